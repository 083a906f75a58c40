"""The Responses API, from a stream to JSON and back: its last event holds the whole response."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from plugins.cache.stream import event, values_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    Told = tuple[str, dict[str, Any]]


def response_of(stream: bytes) -> dict[str, Any]:
    """Of a stream that has completed."""
    *_, last = values_of(stream)
    return dict(last["response"])


def response_events(whole: dict[str, Any]) -> Iterator[bytes]:
    for number, (kind, fields) in enumerate(_told(whole)):
        yield event({"type": kind, "sequence_number": number, **fields}, kind)


def _told(whole: dict[str, Any]) -> Iterator[Told]:
    begun = {**whole, "status": "in_progress", "output": [], "usage": None}
    begun.pop("completed_at", None)
    yield "response.created", {"response": begun}
    yield "response.in_progress", {"response": begun}
    for index, item in enumerate(whole.get("output") or ()):
        yield from _item(index, item)
    yield "response.completed", {"response": whole}


def _item(index: int, item: dict[str, Any]) -> Iterator[Told]:
    at = {"output_index": index, "item_id": item.get("id", f"item_{index}")}
    yield "response.output_item.added", {"output_index": index, "item": _unsaid(item)}
    match item.get("type"):
        case "function_call":
            yield from _text(at, "response.function_call_arguments", "arguments", item, ("name",))
        case "custom_tool_call":
            yield from _text(at, "response.custom_tool_call_input", "input", item)
        case _:
            for place, part in enumerate(item.get("summary") or ()):
                yield from _summary({**at, "summary_index": place}, part)
            for place, part in enumerate(item.get("content") or ()):
                yield from _part({**at, "content_index": place}, part)
    yield "response.output_item.done", {"output_index": index, "item": item}


def _unsaid(item: dict[str, Any]) -> dict[str, Any]:
    """The item before anything of it was told."""
    empty = {"content": [], "summary": [], "arguments": "", "input": "", "status": "in_progress"}
    return {name: empty.get(name, value) if value is not None else None for name, value in item.items()}


def _part(at: dict[str, Any], part: dict[str, Any]) -> Iterator[Told]:
    match part.get("type"):
        case "output_text":
            yield "response.content_part.added", {**at, "part": {**part, "text": "", "annotations": [], "logprobs": []}}
            yield from _text({**at, "logprobs": part.get("logprobs") or []}, "response.output_text", "text", part)
            for number, note in enumerate(part.get("annotations") or ()):
                told = {**at, "annotation_index": number, "annotation": note}
                yield "response.output_text.annotation.added", told
        case "refusal":
            yield "response.content_part.added", {**at, "part": {**part, "refusal": ""}}
            yield from _text(at, "response.refusal", "refusal", part)
        case "reasoning_text":
            yield "response.content_part.added", {**at, "part": {**part, "text": ""}}
            yield from _text(at, "response.reasoning_text", "text", part)
        case _:
            yield "response.content_part.added", {**at, "part": part}
    yield "response.content_part.done", {**at, "part": part}


def _summary(at: dict[str, Any], part: dict[str, Any]) -> Iterator[Told]:
    yield "response.reasoning_summary_part.added", {**at, "part": {**part, "text": ""}}
    yield from _text(at, "response.reasoning_summary_text", "text", part)
    yield "response.reasoning_summary_part.done", {**at, "part": part}


def _text(
    at: dict[str, Any], kind: str, name: str, part: dict[str, Any], repeated: tuple[str, ...] = ()
) -> Iterator[Told]:
    """`repeated`: what the end tells as well."""
    text = part.get(name) or ""
    yield f"{kind}.delta", {**at, "delta": text}
    yield f"{kind}.done", {**at, name: text, **{each: part.get(each) for each in repeated}}
