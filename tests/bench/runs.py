"""What the bench asks of a load process, and what that answers: JSON on its command line and on its standard output."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class _Order(_Model):
    port: int
    proxy_pids: tuple[int, ...]  # empty: straight to the upstream
    upstream_pids: tuple[int, ...]
    limit_s: float = 60


class RequestOrder(_Order):
    """A closed loop, where every connection asks again as soon as it is answered; with a `rate`, so many a second."""

    kind: Literal["requests"] = "requests"
    connections: int
    warm_up: int
    count: int
    rate: int | None = None


class StreamOrder(_Order):
    """Streams that start at a steady rate over `spread_s`, and all run together for `window_s`."""

    kind: Literal["streams"] = "streams"
    streams: int
    spread_s: float
    window_s: float
    interval_ms: int


class Window(_Model):
    """A stretch of time between two samplings.

    `proxy_wait_ns`: ready to run while something else had the core. `load_cpu_ns`: the upstream's and the load process's.
    """

    wall_ns: int
    proxy_cpu_ns: int
    proxy_wait_ns: int
    load_cpu_ns: int


class RequestResult(_Model):
    window: Window
    requests: int


class StreamResult(_Model):
    """`events` are those of the window; `first_ms` is one time to first event per stream that had any."""

    opening: Window
    window: Window
    events: int
    first_ms: tuple[float, ...]
    stalled: int
    rss_before: int
    rss_open: int


ORDER: TypeAdapter[RequestOrder | StreamOrder] = TypeAdapter(
    Annotated[RequestOrder | StreamOrder, Field(discriminator="kind")]
)
