"""How servers say what they have to do: where, and by which names.

A page of metrics may have hundreds of kilobytes (TGI's histograms do): it is searched for the few names as it comes,
and neither kept nor parsed. A name may stand in several lines, one per engine or model: they add up.
"""

from __future__ import annotations

import math
from typing import Final, NamedTuple

from proxy.upstream.work import Reading

LINE_BYTES = 16 * 1024
"""A longer line is none of ours."""


class Series(NamedTuple):
    """A metric's name, and a label that its line has."""

    name: bytes
    label: bytes = b""


class Dialect(NamedTuple):
    """`path` as asked of the server's root; `info`: where it says what it takes, as TGI does."""

    path: str
    running: Series | None
    waiting: Series
    info: str | None = None


DIALECTS: Final = {
    "tgi": Dialect("/metrics", Series(b"tgi_batch_current_size"), Series(b"tgi_queue_size"), "/info"),
    "vllm": Dialect("/metrics", Series(b"vllm:num_requests_running"), Series(b"vllm:num_requests_waiting")),
    "sglang": Dialect("/metrics", Series(b"sglang:num_running_reqs"), Series(b"sglang:num_queue_reqs")),
    "llamacpp": Dialect("/metrics", Series(b"llamacpp:requests_processing"), Series(b"llamacpp:requests_deferred")),
    "trtllm": Dialect(
        "/prometheus/metrics", Series(b"trtllm_num_requests_running"), Series(b"trtllm_num_requests_waiting")
    ),
    "triton_trtllm": Dialect(
        "/metrics",
        Series(b"nv_trt_llm_request_metrics", b'request_type="scheduled"'),
        Series(b"nv_trt_llm_request_metrics", b'request_type="waiting"'),
    ),
    "triton": Dialect("/metrics", None, Series(b"nv_inference_pending_request_count")),
}
"""By what `load.server` calls them; the first whose names are found is taken where it says nothing."""


class Page:
    """A page of Prometheus' text as it comes, in any pieces; `found` is by series."""

    def __init__(self, wanted: tuple[Dialect, ...]) -> None:
        series = [each for dialect in wanted for each in (dialect.running, dialect.waiting) if each is not None]
        self._names = tuple({b"\n" + each.name for each in series})
        self._series = series
        self._rest = b"\n"
        self.found: dict[Series, float] = {}

    def feed(self, chunk: bytes) -> None:
        text = self._rest + chunk
        end = text.rfind(b"\n")
        if end >= 0:
            self._search(text[: end + 1])
            text = text[end:]
        self._rest = text if len(text) <= LINE_BYTES else b" "

    def end(self) -> None:
        """The last line may lack its line break."""
        self.feed(b"\n")

    def reading(self, dialect: Dialect) -> Reading | None:
        """What was found of a dialect's names, if anything was."""
        running = self.found.get(dialect.running) if dialect.running else None
        waiting = self.found.get(dialect.waiting)
        return None if running is None and waiting is None else Reading(running or 0.0, waiting or 0.0)

    def _search(self, lines: bytes) -> None:
        for name in self._names:
            at = lines.find(name)
            while at >= 0:
                end = lines.find(b"\n", at + 1)
                if end < 0:
                    break
                self._take(name[1:], lines[at + len(name) : end])
                at = lines.find(name, end)

    def _take(self, name: bytes, rest: bytes) -> None:
        """`rest`: what follows the name in its line; a longer name is another one."""
        if rest[:1] not in {b"{", b" ", b"\t"}:
            return
        labels, _, told = rest.rpartition(b"}")
        number = _number(told)
        if number is None:
            return
        for series in self._series:
            if series.name == name and series.label in labels:
                self.found[series] = self.found.get(series, 0.0) + number


def _number(told: bytes) -> float | None:
    """A line's value, without the time that may follow it; None of what cannot be a number of requests."""
    try:
        number = float(told.split()[0])
    except (ValueError, IndexError):
        return None
    return number if 0.0 <= number < math.inf else None
