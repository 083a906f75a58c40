"""What is measured, how the rounds become one figure, and what a budget is.

A figure is a float under the key of its measure; a round maps each subject's name (the proxies' and `direct`) to its
figures. CPU and TTFT are the minimum over the rounds, since noise only ever adds to them, and wall rates the maximum;
counts of stalled streams and how busy the cores were are the worst; memory is the median.
"""

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

Figures = Mapping[str, float]
Round = Mapping[str, Figures]

DIRECT = "direct"
NGINX = "nginx"
PACED = 200
WIDE = (256, 512)

REQUEST_US = "request_us"
FULL_REQUEST_US = "full_request_us"
REQUESTS_S = "requests_s"
EVENT_US = "event_us"
IDLE_MB = "idle_mb"
STREAM_KB = "stream_kb"


def first_event_key(streams: int, percent: int) -> str:
    return f"first_event_p{percent}_ms_{streams}"


def stalled_key(streams: int) -> str:
    return f"stalled_{streams}"


def proxy_busy_key(load: str) -> str:
    return f"proxy_busy_{load}"


def proxy_waited_key(load: str) -> str:
    return f"proxy_waited_{load}"


def load_busy_key(load: str) -> str:
    return f"load_busy_{load}"


def stream_load(streams: int) -> str:
    return f"streams-{streams}"


TTFT = frozenset(first_event_key(streams, percent) for streams in WIDE for percent in (50, 99))
RATE = 4000
REQUEST_LOAD = "requests"
FULL_LOAD = "requests-full"
WIDE_LOADS = tuple(stream_load(streams) for streams in reversed(WIDE))
LOADS = (FULL_LOAD, REQUEST_LOAD, *WIDE_LOADS, stream_load(PACED))  # in the order of a round


@dataclass(frozen=True, slots=True)
class Measure:
    key: str
    title: str
    digits: int = 1
    over_rounds: Callable[[Sequence[float]], float] = statistics.median
    compared: bool = False  # shown as a multiple of nginx's


@dataclass(frozen=True, slots=True)
class Budget:
    """An upper limit, in the measure's unit, or as a multiple of nginx's figure, or `beyond` another proxy's figure."""

    limit: float
    times_nginx: bool = False
    beyond: str = ""
    goal: float | None = None


MEASURES = (
    Measure(REQUEST_US, f"CPU per chat request at {RATE} a second, µs", over_rounds=min, compared=True),
    Measure(FULL_REQUEST_US, "the same, as many as each can, µs", over_rounds=min, compared=True),
    Measure(REQUESTS_S, "chat requests per second, at most", digits=0, over_rounds=max, compared=True),
    Measure(EVENT_US, f"CPU per SSE event at {PACED} paced streams, µs", over_rounds=min, compared=True),
    *(
        Measure(
            first_event_key(streams, percent),
            f"added TTFT p{percent} at {streams} streams, ms",
            digits=2,
            over_rounds=min,
        )
        for streams in WIDE
        for percent in (50, 99)
    ),
    *(
        Measure(stalled_key(streams), f"stalled streams of {streams}", digits=0, over_rounds=max)
        for streams in (PACED, *WIDE)
    ),
    Measure(IDLE_MB, "RSS idle, MB", compared=True),
    Measure(STREAM_KB, f"RSS per open stream at {WIDE[-1]}, KB", compared=True),
)
CHECKS = tuple(
    measure
    for load in LOADS
    for measure in (
        Measure(proxy_busy_key(load), f"{load}: proxy's core busy with it, %", digits=0, over_rounds=max),
        Measure(proxy_waited_key(load), f"{load}: proxy waited while it had work, %", digits=0, over_rounds=min),
        Measure(load_busy_key(load), f"{load}: load core busy with the load, %", digits=0, over_rounds=max),
    )
)


def percentile(values: Sequence[float], percent: int) -> float:
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1]
