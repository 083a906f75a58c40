"""One stream of two upstreams: where the first breaks off amid its text, the next goes on from there.

A splice stands between an upstream's answer and its relay, and looks like the answer itself. It passes whole events
only, so that nothing half has gone down when the upstream fails. What has gone down is the next upstream's prefix; of
its stream the preamble is dropped, and the text that repeats what was sent. Only text is spliced, of one choice.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, ClassVar

from proxy.answer import Answer
from proxy.errors import DownstreamStalled, Interrupted, ProxyError
from proxy.seam import Seam
from proxy.sse import Event, Reader

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from proxy.headers import Fields
    from proxy.upstream.incoming import Incoming, Receiver

    Resume = Callable[[ProxyError, str], Awaitable[Incoming | None]]

_OTHERS = ("refusal", "tool_calls", "function_call", "reasoning", "reasoning_content", "audio")


class Splice:
    """`resume` gets what was wrong and the text that has gone down; None from it: nobody goes on."""

    is_pushed: ClassVar[bool] = False
    at_hand: None = None

    def __init__(self, incoming: Incoming, resume: Resume) -> None:
        self._incoming = incoming
        self._ask = resume
        self._receiver: Receiver | None = None
        self._reader = Reader()
        self._answer = Answer(expected=True)
        self._seam: Seam | None = None
        self._held: dict[str, Any] | None = None
        self._text: list[str] = []
        self._tokens = 0
        self._is_plain = True
        self._broken: ProxyError | None = None
        self._last_words = b""

    # -- as an answer

    def attach(self, receiver: Receiver) -> None:
        self._receiver = receiver
        self._incoming.attach(self)

    async def over(self) -> None:
        await self._incoming.over()
        while (broken := self._broken) is not None:
            following = await self._ask(broken, "".join(self._text)) if self._is_plain and self._text else None
            if following is None:
                self._give_up(broken)
                return
            self._begin(following)
            await following.over()

    def pause(self) -> None:
        self._incoming.pause()

    def resume(self) -> None:
        self._incoming.resume()

    def cancel(self) -> None:
        self._incoming.cancel()

    def finish(self) -> None:
        """The relay is done before the upstream is."""
        self._is_plain, self._broken = False, None
        self._incoming.finish()

    def interrupt(self, error: ProxyError) -> None:
        self._is_plain = False
        self._incoming.interrupt(error)

    # -- as the receiver of the upstream's

    def feed(self, chunk: bytes) -> None:
        self._pass(self._reader.feed(chunk))

    def end(self, trailers: Fields) -> None:
        """What stands there without its blank line may be the last event, or half of one."""
        tail = [event for event in self._reader.end() if event.is_done or _object(event) or self._answer.has_ended()]
        self._pass(tail)
        if self._broken is not None:
            return
        if self._answer.is_whole():
            self._down().end(trailers)
            return
        if tail:
            self._down().feed(b"\n\n")
        self._broken = Interrupted("the upstream ended its answer before it was complete")

    def fail(self, error: ProxyError) -> None:
        if self._broken is not None:
            return
        if self._answer.has_ended():
            self._down().end([])
        elif isinstance(error, DownstreamStalled):
            self._down().fail(error)
        else:
            self._broken = error

    # -- inside

    def _begin(self, following: Incoming) -> None:
        self._tokens += self._answer.delivered_tokens()
        self._broken, self._last_words, self._held = None, b"", None
        self._reader, self._answer = Reader(), Answer(expected=True)
        self._seam = Seam("".join(self._text))
        self._incoming = following
        following.attach(self)

    def _pass(self, events: list[Event]) -> None:
        passed: list[Event] = []
        for event in events:
            if self._broken is None:
                passed += self._shown(event)
        if passed:
            self._down().feed(b"".join(event.raw for event in passed))

    def _shown(self, event: Event) -> list[Event]:
        self._answer.see(event)
        if self._answer.error is not None:
            self._break(self._answer.error.message, event.raw)
            return []
        value = _object(event)
        self._is_plain = self._is_plain and _says_only_text(value)
        if self._seam is None:
            if text := _text_of(value):
                self._text.append(text)
            return [event]
        return self._joined(self._seam, event, value)

    def _joined(self, seam: Seam, event: Event, value: dict[str, Any]) -> list[Event]:
        """An event of a later upstream, as it fits behind what the app has got."""
        text = _text_of(value)
        if not text:
            is_preamble = not self._answer.started and not self._answer.has_ended() and event.data is not None
            return [] if is_preamble else [*self._flushed(seam), _with_usage(event, value, self._tokens)]
        shown = seam.feed(text)
        if seam.has_diverged:
            self._break("the upstream that was to go on says something else", b"")
            return []
        if not shown:
            self._held = value
            return []
        self._text.append(shown)
        return [event if shown == text else _with_text(value, shown)]

    def _flushed(self, seam: Seam) -> list[Event]:
        """Text that was too short to tell whether it repeats what was sent."""
        text, held = seam.flush(), self._held
        if not text or held is None:
            return []
        self._text.append(text)
        return [_with_text(held, text)]

    def _break(self, message: str, last_words: bytes) -> None:
        self._broken, self._last_words = Interrupted(message), last_words
        self._incoming.finish()

    def _give_up(self, broken: ProxyError) -> None:
        if self._last_words:  # the upstream has told it in its own words
            self._down().feed(self._last_words)
            self._down().end([])
        else:
            self._down().fail(broken)

    def _down(self) -> Receiver:
        assert self._receiver is not None
        return self._receiver


def can_be_continued(request: Any) -> bool:
    """Whether an answer to this request is text that another model can be asked to go on with."""
    if not isinstance(request, dict) or request.get("stream") is not True or request.get("n", 1) not in {1, None}:
        return False
    kind = request.get("response_format")
    is_free = kind is None or (isinstance(kind, dict) and kind.get("type") == "text")
    has_prompt = isinstance(request.get("messages"), list) or isinstance(request.get("prompt"), str)
    return is_free and has_prompt and not any(map(request.get, ("tools", "functions", "logprobs", "echo", "suffix")))


def continuing(request: dict[str, Any], text: str) -> tuple[str, Any]:
    """The key of the request that holds the prompt, and its value with `text` as what was answered so far."""
    if isinstance(request.get("messages"), list):
        return "messages", [*request["messages"], {"role": "assistant", "content": text}]
    return "prompt", request["prompt"] + text


def _object(event: Event) -> dict[str, Any]:
    try:
        value = event.json()
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _choices(value: dict[str, Any]) -> list[dict[str, Any]]:
    choices = value.get("choices")
    return [choice for choice in choices if isinstance(choice, dict)] if isinstance(choices, list) else []


def _text_of(value: dict[str, Any]) -> str:
    for choice in _choices(value):
        delta = choice.get("delta")
        text = choice.get("text") or (delta.get("content") if isinstance(delta, dict) else None)
        if isinstance(text, str):
            return text
    return ""


def _says_only_text(value: dict[str, Any]) -> bool:
    for choice in _choices(value):
        delta = choice.get("delta") or {}
        if choice.get("index", 0) != 0 or not isinstance(delta, dict) or any(map(delta.get, _OTHERS)):
            return False
    return True


def _with_text(value: dict[str, Any], text: str) -> Event:
    changed = copy.deepcopy(value)
    choice = changed["choices"][0]
    if choice.get("text"):
        choice["text"] = text
    else:
        choice["delta"]["content"] = text
    return Event.of_json(changed)


def _with_usage(event: Event, value: dict[str, Any], earlier: int) -> Event:
    """The usage of all upstreams: the prompt of the first is that of this one without what had been answered."""
    usage = value.get("usage")
    if not isinstance(usage, dict):
        return event
    given, made = usage.get("prompt_tokens"), usage.get("completion_tokens")
    if not isinstance(given, int) or not isinstance(made, int):
        return event
    given, made = given + max(given - earlier, 0), made + earlier
    summed = {"prompt_tokens": given, "completion_tokens": made, "total_tokens": given + made}
    return Event.of_json({**value, "usage": {**usage, **summed}})
