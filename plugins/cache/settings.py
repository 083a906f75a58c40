"""What config.yaml says of the cache."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from proxy.plugin import Duration, PluginConfig, Size, written


class Memory(PluginConfig):
    entries: int = Field(default=10_000, ge=1, description="answers that are kept at most, of all caches together")
    size: Size = written("64MiB", "bytes that they take at most")


class CacheConfig(PluginConfig):
    ttl: Duration = written("10m", "how long an answer is given again")
    scope: Literal["principal", "shared"] = Field(
        default="principal",
        description="whose answers one gets: one's own, or those of all who ask this route the same",
    )
    tool_calls: bool = Field(default=False, description="answers that call the app's tools are kept, too")
    pace: Literal["at_once", "original"] = Field(
        default="at_once", description="how a stream is given again: all at once, or as it came"
    )
    max_entry: Size = written("1MiB", "larger answers are not kept, and nobody can join them when so much has come")
    single_flight: bool = Field(default=True, description="who asks the same at the same time shares one upstream call")
    memory: Memory = Field(default_factory=Memory, description="bounds without Redis, which has its own")
