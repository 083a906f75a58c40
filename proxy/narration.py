"""Findings as somebody reads them on a terminal: the request, then its way, each part with its line in the config."""

from __future__ import annotations

from decimal import Decimal
from textwrap import wrap
from typing import TYPE_CHECKING, Any, Final

from proxy.wording import flow

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from proxy.findings import Asked, Cost, Destination, Findings, Passed, Refusal, Setting, Step

WIDTH: Final = 110
WIDEST: Final = 72
"""Of a line that is broken, and of a value, which is cut."""

_PER: Final = 1_000_000


def narrated(found: Findings) -> str:
    lines = [*_request(found.asked), "", *_routes(found.routes), "", *_chain(found.chain)]
    if found.order is not None:
        lines += ["", *_targets(found)]
    lines += ["", _answer(found)]
    return "".join(f"{_plain(line)}\n" for line in lines)


def _request(asked: Asked) -> Iterator[str]:
    yield f"{asked.method} {asked.target}"
    yield f"  model   {asked.model or 'not named'}"
    most = "not limited by the request" if asked.answer_tokens is None else f"at most {asked.answer_tokens:,}"
    if asked.prompt_tokens or asked.answer_tokens:
        yield f"  tokens  about {asked.prompt_tokens:,} of the prompt; of the answer {most}"


def _routes(routes: Sequence[Passed]) -> Iterator[str]:
    yield "Routes, up to the first that matches"
    yield from _columns(
        [(passed.route, "yes" if passed.is_taken else "no", passed.why, passed.at) for passed in routes]
    )


def _chain(chain: Sequence[Step]) -> Iterator[str]:
    yield "Chain, in the order in which the request meets it" if chain else "Chain: no plugins"
    for step in chain:
        yield from _step(step)


def _step(step: Step) -> Iterator[str]:
    if step.is_off:
        yield f"  {step.plugin}: off on this route ({step.overridden_at})"
        return
    changed = f", changed on this route at {step.overridden_at}" if step.overridden_at else ""
    yield f"  {step.plugin} ({step.at}{changed})"
    written = [setting for setting in step.settings if setting.at is not None]
    yield from _columns([(each.key, _short(flow(each.value)), _origin(each)) for each in written], indent=4)
    defaults = [f"{each.key} {flow(each.value)}" for each in step.settings if each.at is None and says(each.value)]
    if defaults:
        yield from wrap(f"by default: {', '.join(defaults)}", WIDTH, initial_indent=" " * 4, subsequent_indent=" " * 6)
    yield from (f"    > {sentence}" for sentence in step.says)
    if step.refusal is not None:
        yield f"    > refuses it: {_refusal(step.refusal)}"


def says(value: Any) -> bool:
    """Whether it is worth a word that this is so: nothing is set by far the most."""
    return value is not None and value not in ({}, [])


def _origin(setting: Setting) -> str:
    return f"{setting.at} (this route)" if setting.of == "route" else f"{setting.at}"


def _targets(found: Findings) -> Iterator[str]:
    yield f"Targets, in order: {found.order}"
    for place, target in enumerate(found.targets, 1):
        yield from _target(place, target)


def _target(place: int, target: Destination) -> Iterator[str]:
    share = "" if target.share is None else f", first in {target.share:.1%} of cases"
    if target.upstream is None:
        yield f"  {place} {target.note}"
        return
    yield f"  {place} {target.upstream}{share}"
    rows = [("url", target.url), ("model", target.model), ("credential", target.credential)]
    rows += [("cost", _cost(target.cost) if target.url else None), ("note", target.note)]
    yield from _columns([(name, value) for name, value in rows if value], indent=4)


def _cost(cost: Cost | None) -> str:
    if cost is None:
        return "no price is known"
    if Decimal(cost.token) == Decimal(cost.prompt) == 0:
        return "nothing"
    if cost.most is None:
        million = f"${Decimal(cost.token) * _PER:,.2f}"
        return f"about ${cost.prompt} for the prompt, and {million} per million tokens of the answer"
    return f"about ${cost.prompt} for the prompt, with the longest answer ${cost.most}"


def _answer(found: Findings) -> str:
    if found.answer is None:
        first = next((target.upstream for target in found.targets if target.upstream), "Weir itself")
        return f"Answer: whatever {first} says"
    by = f" by {found.answer.plugin}" if found.answer.plugin else ""
    return f"Answer: refused{by}: {_refusal(found.answer)}"


def _refusal(refusal: Refusal) -> str:
    return f"{refusal.status} {refusal.code}: {refusal.message}"


def _columns(rows: Sequence[Sequence[str]], indent: int = 2) -> Iterator[str]:
    widths = [max(map(len, cells)) for cells in zip(*rows, strict=True)]
    for row in rows:
        yield " " * indent + "  ".join(map(str.ljust, row, widths)).rstrip()


def _short(text: str) -> str:
    return text if len(text) <= WIDEST else f"{text[: WIDEST - 1]}…"


def _plain(text: str) -> str:
    """What a request holds may hold whatever a terminal obeys."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)
