"""Field case 103: ten thousand values that nobody has seen before leave the number of metric series as it was."""

import io
import random

import orjson

from proxy import testing
from proxy.plugin import PRINCIPAL, Plugin, PluginConfig, Principal
from tests import wire

ROUNDS = 160
CONFIG = """
server: {{listen: "127.0.0.1:0", admin: "127.0.0.1:0"}}
upstreams: {{up: {{base_url: "{url}/v1"}}}}
plugins:
  - metering: {{ledger: stdout}}
  - somebody: {{use: "tests.contract.test_closed_labels:Somebody"}}
  - guard: {{models: ["[!-]*"], max_choices: 2}}
routes:
  - {{name: named, match: {{model: named}}, targets: [up]}}
  - {{name: changed, match: {{header: {{x-tier: free}}}}, targets: [{{upstream: up, model: own}}]}}
  - {{name: v1, match: {{path: "/v1/*"}}, targets: [up]}}
"""
JSON = "content-type: application/json"


class Somebody(Plugin[PluginConfig]):
    """Whoever the app says it is."""

    provides = (PRINCIPAL,)

    async def on_request(self, exchange):
        exchange[PRINCIPAL] = Principal(exchange.request.headers.get("x-team", "nobody"))


class Chance(random.Random):
    def word(self) -> str:
        return "".join(self.choices("abcdefghijklmnopqrstuvwxyz0123456789_~", k=self.randint(1, 40)))


def request(chance, line, *fields, **body):
    """Each with a path, a model, a user, a team and a host that are nobody's."""
    data = orjson.dumps(body) if body else b""
    known = [f"x-weir-user: {chance.word()}", f"x-team: {chance.word()}", f"content-length: {len(data)}"]
    head = [f"{line} HTTP/1.1", f"host: {chance.word()}", f"user-agent: {chance.word()}", *known, *fields]
    return "\r\n".join([*head, "", ""]).encode() + data


def requests(chance):
    """One of each kind; the same kinds each time."""
    word, chat = chance.word, "POST /v1/chat/completions"
    yield request(chance, chat, JSON, model=word(), messages=[])
    yield request(chance, chat, JSON, model=word(), messages=[], stream=True)
    yield request(chance, chat, JSON, "x-tier: free", model=word(), messages=[], stream=True)
    yield request(chance, chat, JSON, model="named", messages=[], user=word())
    yield request(chance, chat, JSON, model=f"-{word()}", messages=[])
    yield request(chance, chat, JSON, model=word(), messages=[], n=chance.randint(3, 10**9))
    yield request(chance, "POST /v1/embeddings", JSON, model=word(), input=word())
    yield request(chance, f"POST /v1/{word()}", JSON, model=word())
    yield request(chance, f"GET /v1/models/{word()}?{word()}={word()}")
    yield request(chance, f"GET /v1/files/{word()}/{word()}")
    yield request(chance, f"GET /{word()}/{word()}")
    yield request(chance, f"GET /{word()}?/v1/{word()}")
    yield request(chance, f"DELETE /v1/responses/{word()}")


async def served(received, up):
    """An answer that names a model, and an object, that nobody knows either."""
    chance = Chance(len(received.body))
    asked = orjson.loads(received.body or b"{}")
    model = f"{asked.get('model')}-{chance.word()}"
    usage = {"prompt_tokens": 1, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 1}}
    choice = {"index": 0, "delta": {"content": "a"}, "message": {"content": "a"}, "finish_reason": "stop"}
    body = orjson.dumps({"object": chance.word(), "model": model, "choices": [choice], "usage": usage})
    if asked.get("stream"):
        await testing.stream(b"data: " + body + b"\n\n", b"data: [DONE]\n\n")(received, up)
    else:
        await testing.answer(body)(received, up)


def series(page):
    return {line.rpartition(b" ")[0].decode() for line in page.splitlines() if not line.startswith(b"#")}


async def test_no_value_of_a_request_or_an_answer_makes_a_series():
    chance, stdout = Chance(1), io.BytesIO()
    async with (
        testing.upstream(served) as upstream,
        testing.configured(CONFIG.format(url=upstream.url), stdout) as weir,
        wire.connected(weir.url) as client,
    ):

        async def ask_all():
            for sent in requests(chance):
                await client.send(sent)
                answer = await client.answer(sent.partition(b" ")[0].decode())
                assert answer.status in (200, 400, 403, 404), answer
                assert answer.head.get("connection") is None, answer

        for _ in range(3):
            await ask_all()
        await wire.until(lambda: not weir.in_flight and b"\nweir_event_loop_lag_seconds " in weir.metrics.page())
        before = series(weir.metrics.page())
        assert 'weir_tokens_total{kind="input",model="other",principal="other",route="v1",upstream="up"}' in before
        for _ in range(ROUNDS):
            await ask_all()
        after = series(weir.metrics.page())
    assert after == before
    assert len(before) < 1000
    assert stdout.getvalue().count(b'"log":"access"') == (ROUNDS + 3) * len(list(requests(chance)))
