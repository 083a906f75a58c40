"""The plugin contract: all that a plugin imports, and all that the core knows of one.

A plugin is a class with a strict Config and the hooks that it needs; hooks that it does not override cost nothing.
A hook that raises a ProxyError refuses the request; anything else that it raises is judged by its `failure_mode`.
State of one request lives on the exchange (`exchange[KEY]`) or in a stage, never on the plugin.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from proxy.admission import Grant, Standing
from proxy.answer import in_band_error
from proxy.attempt import Attempt, Hold, Target
from proxy.body import multipart_fields, repeated_key, replace_multipart_field, replace_value, top_level_values
from proxy.consumption import (
    ESTIMABLE,
    PAID,
    Consumed,
    asked_model,
    consumed,
    output_tokens,
    prompt_tokens,
    rough_prompt_tokens,
    streamed_tokens,
)
from proxy.errors import (
    ClientFault,
    NotFound,
    Outcome,
    PassedOver,
    PluginFailed,
    ProxyError,
    QuotaExceeded,
    RateLimited,
    Rejected,
    StoreDown,
    TooLarge,
    Unauthorized,
    Unavailable,
    UpstreamFault,
)
from proxy.exchange import EARLY, PRINCIPAL, REDACTED, SAVED, Exchange, Key, Principal, Saved
from proxy.fault import Fault, Kind
from proxy.feedback import Feedback
from proxy.flight import Flight
from proxy.prices import Price, PriceFile
from proxy.request import Request
from proxy.response import Response
from proxy.routing import glob, read_model
from proxy.scalars import (
    Duration,
    DurationOrNone,
    ExistingFile,
    Expiry,
    FilePath,
    Labels,
    Name,
    NotSet,
    Rate,
    RouteName,
    Share,
    Size,
    written,
)
from proxy.services import OTHER, Services
from proxy.source import ConfigError, read_yaml
from proxy.sse import Event
from proxy.sse import Reader as EventReader
from proxy.stages import BodyFilter, EventFilter, EventTap, Heartbeat, Stage, Tap
from proxy.store.claims import Claim, Store, WhenDown
from proxy.tariff import FEMTO, TARIFF, Tariff
from proxy.usage import Usage, usage_from_body
from proxy.wording import fault, nearest

if TYPE_CHECKING:
    from collections.abc import Awaitable, Mapping, Sequence
    from contextlib import AbstractAsyncContextManager

__all__ = [
    "EARLY",
    "ESTIMABLE",
    "FEMTO",
    "OTHER",
    "PAID",
    "PRINCIPAL",
    "REDACTED",
    "SAVED",
    "TARIFF",
    "Attempt",
    "BodyFilter",
    "Claim",
    "ClientFault",
    "ConfigError",
    "Consumed",
    "Duration",
    "DurationOrNone",
    "Event",
    "EventFilter",
    "EventReader",
    "EventTap",
    "Exchange",
    "ExistingFile",
    "Expiry",
    "FailureMode",
    "Fault",
    "Feedback",
    "FilePath",
    "Flight",
    "Grant",
    "Heartbeat",
    "Hold",
    "Key",
    "Kind",
    "Labels",
    "Name",
    "NotFound",
    "NotSet",
    "Outcome",
    "PassedOver",
    "Plugin",
    "PluginConfig",
    "PluginFailed",
    "Price",
    "PriceFile",
    "Principal",
    "ProxyError",
    "QuotaExceeded",
    "Rate",
    "RateLimited",
    "Rejected",
    "Request",
    "Response",
    "RouteName",
    "Saved",
    "Services",
    "Share",
    "Size",
    "Stage",
    "Standing",
    "Store",
    "StoreDown",
    "Tap",
    "Target",
    "Tariff",
    "TooLarge",
    "Unauthorized",
    "Unavailable",
    "UpstreamFault",
    "Usage",
    "WhenDown",
    "asked_model",
    "consumed",
    "fault",
    "glob",
    "in_band_error",
    "multipart_fields",
    "nearest",
    "output_tokens",
    "prompt_tokens",
    "read_model",
    "read_yaml",
    "repeated_key",
    "replace_multipart_field",
    "replace_value",
    "rough_prompt_tokens",
    "streamed_tokens",
    "top_level_values",
    "usage_from_body",
    "written",
]


class FailureMode(StrEnum):
    """What happens to a request when a plugin fails: CLOSED ends it, OPEN goes on without the plugin."""

    CLOSED = "closed"
    OPEN = "open"


class PluginConfig(BaseModel):
    """A plugin's settings in config.yaml: strict, frozen, unknown keys refused. These two every plugin has."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    use: str | None = Field(
        default=None,
        description="where the class is, `package.module:Class` or a plugin's name; by default the entry's name",
    )
    failure_mode: FailureMode | None = Field(
        default=None, description="`open` or `closed`: overrides what the plugin does when it fails"
    )


C = TypeVar("C", bound=PluginConfig)


class Plugin(Generic[C]):
    """One policy. `__init__` is pure; what needs a socket, a task or a file belongs into `lifespan`.

    `needs` must be given before this plugin; what it `follows` must be, where the chain gives it at all.
    `__init__` may also set `needs` and `reads_usage`, where they depend on the settings.

    A hook that may return an Awaitable is an `async def` or, cheaper, a plain `def` that waits for nothing.
    Requests meet the plugins of config.yaml from left to right, responses from right to left.
    """

    Config: ClassVar[type[PluginConfig]] = PluginConfig
    needs: tuple[Key[Any], ...] = ()
    provides: ClassVar[tuple[Key[Any], ...]] = ()
    follows: ClassVar[tuple[Key[Any], ...]] = ()
    reads_usage: bool = False
    sees_all: ClassVar[bool] = False
    uses_store: ClassVar[bool] = False
    failure_mode: ClassVar[FailureMode] = FailureMode.CLOSED

    def __init__(self, config: C, *, name: str) -> None:
        self.config = config
        self.name = name

    def lifespan(self, services: Services) -> AbstractAsyncContextManager[None] | None:
        """Entered before the first request, in YAML order, and left after the last. What it raises stops the start."""

    def on_head(self, exchange: Exchange) -> Awaitable[object] | None:
        """The header is here, and the body would be read now to find the route: raise, so that it is not.

        Only for plugins that all routes have with the same settings, and only for such requests; `on_request` follows
        when the route is known. What this leaves on the exchange stays.
        """

    def on_request(self, exchange: Exchange) -> Awaitable[Response | None] | Response | None:
        """The request is here. A Response answers it: no later plugin and no upstream sees it.

        Of an answer or a refusal the plugins before this one see `on_response`; this one sees only `on_complete`.
        """

    def select_targets(self, exchange: Exchange, targets: Sequence[Target]) -> Sequence[Target]:  # noqa: ARG002
        """Reorder or drop the route's targets. Pure: called again whenever targets are looked at."""
        return targets

    def on_attempt(self, exchange: Exchange, attempt: Attempt) -> Awaitable[None] | None:
        """A target is about to be tried; `attempt.headers` and `attempt.body` are this try's own."""

    def on_attempt_end(self, exchange: Exchange, attempt: Attempt) -> None:
        """The try is over and `attempt.outcome` known: at once if it failed, else after the last byte.

        Before anything went down, `attempt.retry` says whether the next target is tried (`attempt.again`: this one
        once more): plugins set or clear it.
        """

    def on_response(self, exchange: Exchange, response: Response) -> Awaitable[Stage | None] | Stage | None:
        """Status and header are here, also of refusals and other plugins' answers; a Stage joins the body's relay."""

    def on_complete(self, exchange: Exchange, outcome: Outcome) -> Awaitable[None] | None:
        """After the last byte, exactly once for every request that met this plugin, whatever happened.

        An `async def` runs at once, on a task; a plain `def`, cheaper, a moment later together with other exchanges'.

        With `sees_all`, also for those that ended before they met it: refused by a plugin before it, or at the edge.
        """

    def explain(self, exchange: Exchange, services: Services) -> Awaitable[Sequence[str]] | Sequence[str]:  # noqa: ARG002
        """For `weir explain`: what it would do with this request, in sentences. A ProxyError says that it refuses it.

        Nothing runs: no `lifespan` was entered, and `services` has `upstreams`, `routes` and an empty store. The body
        is at hand. Facts go onto the exchange as in `on_request`; where a plugin before refused, its own are missing.
        """
        return ()

    def state(self) -> Mapping[str, Any] | None:
        """What the admin's `/state` shows under the plugin's name, as JSON takes it: nothing secret.

        What stands in its `upstreams`, by their names, is shown with those as well.
        """
