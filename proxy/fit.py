"""Whether a request can fit what an upstream takes at most, by what it surely has: nobody else is turned away.

Tokens are the server's to count, and no tokenizer is here. But the usual ones join no two words, so a prompt has at
least as many tokens as words, and what is asked for in `max_tokens` is a number. Where that is too much already, the
server would say no as well, after it was read, queued and counted. Doubt is in the request's favour: pictures and
templates weigh nothing, and a prompt that the server is told to cut fits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from proxy.errors import ClientFault

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from proxy.attempt import Target
    from proxy.request import Request

_ASKED = ("max_completion_tokens", "max_tokens", "max_output_tokens", "max_new_tokens")
_CUT = ("truncate", "truncate_prompt_tokens", "truncation")


@dataclass(slots=True)
class Capacity:
    """What an upstream takes at most; None: nobody knows. What it says itself may change while it is used.

    `concurrent` in requests; `input_tokens` of a prompt, `total_tokens` of a prompt and the answer asked for.
    """

    concurrent: int | None = None
    input_tokens: int | None = None
    total_tokens: int | None = None

    @property
    def counts_tokens(self) -> bool:
        return self.input_tokens is not None or self.total_tokens is not None


class Limited(Protocol):
    capacity: Capacity | None


def fitting(request: Request, targets: Sequence[Target], loads: Mapping[str, Limited]) -> Sequence[Target]:
    """Those that may take the request, whose body is at hand. Raises ClientFault where none can."""
    limits = [loads[target.upstream].capacity for target in targets]
    if not any(limit is not None and limit.counts_tokens for limit in limits):
        return targets
    size = _size(request)
    if size is None:
        return targets
    faults = [None if limit is None else _fault(*size, limit) for limit in limits]
    found = [target for target, fault in zip(targets, faults, strict=True) if fault is None]
    if targets and not found:
        param = "max_tokens" if size[1] else "messages"
        raise ClientFault(next(fault for fault in faults if fault), code="context_length_exceeded", param=param)
    return found


def fewest_tokens(asked: Any) -> int:
    """That the longest prompt of a request must have; 0 where nobody knows."""
    if not isinstance(asked, dict) or any(map(_cuts, _levels(asked))):
        return 0
    apart = [asked.get("prompt"), asked.get("inputs")]
    together = [asked.get("messages"), asked.get("instructions")]
    given = asked.get("input")
    (together if _is_conversation(given) else apart).append(given)
    return max(sum(map(_tokens, together)), *(_longest(prompts) for prompts in apart))


def fewest_asked(asked: Any) -> int:
    """Tokens that the answer may have, as the request says, the least where it says it twice; 0 where it does not."""
    if not isinstance(asked, dict):
        return 0
    told = [part.get(name) for part in _levels(asked) for name in _ASKED]
    return min((value for value in told if type(value) is int and value > 0), default=0)


def _size(request: Request) -> tuple[int, int] | None:
    if request.method != "POST" or request.at_hand is None:
        return None
    asked = request.glimpse()
    return fewest_tokens(asked), fewest_asked(asked)


def _fault(prompt: int, answer: int, limit: Capacity) -> str | None:
    if limit.input_tokens is not None and prompt > limit.input_tokens:
        return (
            f"the maximum context length for prompts is {limit.input_tokens} tokens here, and this one has at least "
            f"{prompt}: make it shorter"
        )
    if limit.total_tokens is not None and prompt + answer > limit.total_tokens:
        return (
            f"the maximum context length is {limit.total_tokens} tokens here, and this request has at least {prompt} "
            f"in its prompt and asks for {answer} more: make the prompt shorter, or ask for fewer"
        )
    return None


def _levels(asked: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield asked
    if isinstance(asked.get("parameters"), dict):
        yield asked["parameters"]


def _cuts(part: dict[str, Any]) -> bool:
    """Whether the server is told to make the prompt fit."""
    return any(part.get(name) not in (None, False, "disabled") for name in _CUT)


def _is_conversation(given: Any) -> bool:
    return isinstance(given, list) and any(isinstance(part, dict) for part in given)


def _longest(prompts: Any) -> int:
    """Of one prompt, or of many, each of which has the whole window; numbers are one prompt's tokens."""
    if isinstance(prompts, list) and not all(isinstance(part, int) for part in prompts):
        return max(map(_tokens, prompts), default=0)
    return _tokens(prompts)


def _tokens(value: Any) -> int:
    """Words of a text, of a message's content or of its parts; in a prompt a number is a token already."""
    if isinstance(value, str):
        return len(value.split())
    if isinstance(value, list):
        return sum(1 if type(part) is int else _tokens(part) for part in value)
    if isinstance(value, dict):
        return _tokens(value.get("text") or value.get("content"))
    return 0
