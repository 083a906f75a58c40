"""What is written to an app: the framing table, one write where one will do, and never a false end."""

import asyncio

import pytest

from proxy import downstream
from proxy.downstream import MAX_UNSENT, Downstream

FIELDS = [(b"Content-Type", b"text/plain"), (b"X-Tag", b"1"), (b"x-tag", b"2")]
OWN = b"x-weir-request-id: req_1\r\n"
PLAIN_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nX-Tag: 1\r\nx-tag: 2\r\nx-weir-request-id: req_1\r\n"


class Transport(asyncio.Transport):
    def __init__(self):
        super().__init__()
        self.writes = []
        self.is_closed = self.is_aborted = False

    def write(self, data):
        self.writes.append(bytes(data))

    def close(self):
        self.is_closed = True

    def abort(self):
        self.is_closed = self.is_aborted = True

    def is_closing(self):
        return self.is_closed

    @property
    def written(self):
        return b"".join(self.writes)


class Source:
    """An upstream's answer that may be told to end."""

    is_finished = False

    def finish(self):
        self.is_finished = True


def begun(method="GET", status=200, *, is_framed=False, is_http11=True, keep_alive=True, reason=b"OK"):
    transport = Transport()
    down = Downstream(transport, method, is_http11=is_http11, keep_alive=keep_alive)
    down.start(status, reason, FIELDS, OWN, is_framed=is_framed)
    return transport, down


CHUNKED, CLOSE, KEEP = b"Transfer-Encoding: chunked\r\n", b"Connection: close\r\n", b"Connection: keep-alive\r\n"


@pytest.mark.parametrize(
    ("is_http11", "keep_alive", "is_framed", "lines", "body", "stays_open"),
    [
        (True, True, False, CHUNKED, b"5\r\nhello\r\n0\r\n\r\n", True),
        (True, True, True, b"", b"hello", True),
        (True, False, False, CHUNKED + CLOSE, b"5\r\nhello\r\n0\r\n\r\n", False),
        (True, False, True, CLOSE, b"hello", False),
        (False, True, False, CLOSE, b"hello", False),
        (False, True, True, KEEP, b"hello", True),
        (False, False, False, CLOSE, b"hello", False),
        (False, False, True, CLOSE, b"hello", False),
    ],
)
def test_how_a_body_is_framed(is_http11, keep_alive, is_framed, lines, body, stays_open):
    transport, down = begun(is_http11=is_http11, keep_alive=keep_alive, is_framed=is_framed)
    down.write(b"hello")
    down.end([])
    assert transport.written == PLAIN_HEAD + lines + b"\r\n" + body
    assert (down.keep_alive, down.sent, transport.is_closed) == (stays_open, 5, False)


@pytest.mark.parametrize("is_framed", [True, False])
@pytest.mark.parametrize(
    ("method", "status"), [("HEAD", 200), ("HEAD", 404), ("GET", 204), ("POST", 304), ("HEAD", 204)]
)
def test_an_answer_that_has_no_body_gets_none(method, status, is_framed):
    transport, down = begun(method, status, is_framed=is_framed)
    down.write(b"what nobody may see")
    down.end([(b"x-sum", b"1")])
    down.flush()
    head, _, body = transport.written.partition(b"\r\n\r\n")
    assert b"Transfer-Encoding" not in head
    assert (body, down.sent, down.keep_alive) == (b"", 0, True)


def test_head_and_first_bytes_are_one_write():
    transport, down = begun()
    assert transport.writes == []
    down.write(b"ab")
    down.write(b"c" * 17)
    assert transport.writes == [PLAIN_HEAD + CHUNKED + b"\r\n2\r\nab\r\n", b"11\r\n" + b"c" * 17 + b"\r\n"]


def test_a_head_that_is_flushed_goes_alone_and_once():
    transport, down = begun(is_framed=True)
    down.flush()
    down.flush()
    down.write(b"ab")
    assert transport.writes == [PLAIN_HEAD + b"\r\n", b"ab"]


def test_nothing_to_write_is_not_an_end():
    transport, down = begun()
    down.write(b"")
    assert transport.writes == []
    down.flush()
    down.write(b"")
    assert transport.writes == [PLAIN_HEAD + CHUNKED + b"\r\n"]


def test_an_empty_chunked_answer_ends_like_any_other():
    transport, down = begun()
    down.end([])
    assert transport.written == PLAIN_HEAD + CHUNKED + b"\r\n0\r\n\r\n"


def test_trailers_follow_a_chunked_body_only():
    trailers = [(b"X-Sum", b"9"), (b"x-sum", b"10")]
    transport, down = begun()
    down.write(b"a")
    down.end(trailers)
    assert transport.written.endswith(b"1\r\na\r\n0\r\nX-Sum: 9\r\nx-sum: 10\r\n\r\n")
    transport, down = begun(is_framed=True)
    down.write(b"a")
    down.end(trailers)
    assert transport.written.endswith(b"\r\n\r\na")


@pytest.mark.parametrize(
    ("status", "reason", "line"),
    [
        (200, None, b"HTTP/1.1 200 OK"),
        (429, None, b"HTTP/1.1 429 Too Many Requests"),
        (200, b"", b"HTTP/1.1 200 "),
        (200, b"Fine", b"HTTP/1.1 200 Fine"),
        (529, None, b"HTTP/1.1 529 "),
        (529, b"Overloaded", b"HTTP/1.1 529 Overloaded"),
    ],
)
def test_status_lines(status, reason, line):
    transport, down = begun(status=status, reason=reason)
    down.flush()
    assert transport.written.partition(b"\r\n")[0] == line


def test_interim_answers_go_as_they_came_before_the_answer():
    transport = Transport()
    down = Downstream(transport, "POST", is_http11=True, keep_alive=True)
    down.ask_for_body()
    down.interim(103, b"Early Hints", [(b"Link", b"</a>")])
    assert transport.written == b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
    down.start(200, b"OK", [], b"", is_framed=True)
    down.interim(103, b"Too Late", [])
    assert b"Too Late" not in transport.written


def test_an_http10_app_knows_no_interim_answers():
    transport = Transport()
    Downstream(transport, "POST", is_http11=False, keep_alive=False).ask_for_body()
    assert transport.writes == []


@pytest.mark.parametrize("is_http11", [True, False])
async def test_an_abort_closes_and_never_writes_the_terminator(is_http11):
    transport, down = begun(is_http11=is_http11)
    down.write(b"half")
    down.abort()
    assert (transport.is_closed, transport.is_aborted, down.keep_alive) == (True, False, False)
    assert not transport.written.endswith(b"0\r\n\r\n")
    down.end([])
    assert not transport.written.endswith(b"0\r\n\r\n")


async def test_an_abort_before_any_body_sends_the_head_that_was_promised():
    transport, down = begun()
    down.abort()
    assert transport.writes == [PLAIN_HEAD + CHUNKED + b"\r\n"]


async def test_an_app_that_does_not_take_its_farewell_is_dropped(monkeypatch):
    monkeypatch.setattr(downstream, "FAREWELL_SECONDS", 0.01)
    transport, down = begun()
    down.abort()
    await asyncio.sleep(0.05)
    assert transport.is_aborted


def test_what_is_written_for_an_app_that_has_gone_is_counted_apart():
    transport, down = begun()
    down.write(b"abc")
    transport.close()
    down.write(b"defg")
    down.end([])
    down.flush()
    assert (down.is_gone, down.sent, down.unsent) == (True, 3, 4)
    assert len(transport.writes) == 1


def test_an_answer_that_nobody_reads_ends_at_a_limit():
    transport, down = begun()
    down.source = Source()
    transport.close()
    down.write(bytes(MAX_UNSENT))
    assert not down.source.is_finished
    down.write(b"1")
    assert down.source.is_finished


def switched():
    transport = Transport()
    down = Downstream(transport, "GET", is_http11=True, keep_alive=True)
    down.switch(b"Switching Protocols", [(b"Sec-WebSocket-Accept", b"x")], OWN)
    return transport, down


def test_after_a_101_bytes_are_written_as_they_are():
    transport, down = switched()
    down.write(b"\x81\x02hi")
    down.write(b"")
    head = b"HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Accept: x\r\nx-weir-request-id: req_1\r\n"
    assert transport.writes == [head + b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n", b"\x81\x02hi"]
    assert (down.is_started, down.keep_alive, down.sent) == (True, False, 4)


async def test_a_fin_and_a_reset_are_what_the_app_sees_of_them():
    """The rest of a slow app's bytes goes with the FIN, and is lost with the reset."""

    async def ends(how):
        ended = asyncio.Event()

        async def serve(reader, writer):
            down = Downstream(writer.transport, "GET", is_http11=True, keep_alive=True)
            down.write(bytes(1000))
            getattr(down, how)()
            assert await reader.read(-1) == (b"heard" if how == "half_close" else b"")
            getattr(down, how)()  # once more, on a connection that is going: nothing
            writer.close()
            ended.set()

        async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            try:
                seen = len(await reader.read(-1))
            except ConnectionResetError:
                seen = "reset"
            else:
                writer.write(b"heard")
            writer.close()
            await ended.wait()
            return seen

    assert await asyncio.wait_for(ends("half_close"), 10) == 1000
    assert await asyncio.wait_for(ends("reset"), 10) == "reset"
