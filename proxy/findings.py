"""What `weir explain` found out about one request, as plain data: for a terminal, or as JSON for machines."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Asked:
    """`answer_tokens`: what the request allows at most; None: it sets no limit. Tokens are estimated."""

    method: str
    target: str
    endpoint: str
    model: str | None
    prompt_tokens: int
    answer_tokens: int | None


@dataclass(frozen=True, slots=True)
class Passed:
    """A route that was looked at; `why` it was taken, or not."""

    route: str
    is_taken: bool
    why: str
    at: str


@dataclass(frozen=True, slots=True)
class Setting:
    """`of`: who set it: `chain`, `route`, or nobody (`default`); `at` is where, if anybody did."""

    key: str
    value: Any
    of: str
    at: str | None


@dataclass(frozen=True, slots=True)
class Refusal:
    plugin: str
    status: int
    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Step:
    """A plugin of the chain; `overridden_at` is where the route changes it, or switches it off."""

    plugin: str
    at: str
    is_off: bool = False
    overridden_at: str | None = None
    settings: list[Setting] = field(default_factory=list)
    says: list[str] = field(default_factory=list)
    refusal: Refusal | None = None


@dataclass(frozen=True, slots=True)
class Cost:
    """US dollars, exact, as text. `most` is None where nothing bounds the answer; `token` is one of the answer's."""

    prompt: str
    token: str
    most: str | None


@dataclass(frozen=True, slots=True)
class Destination:
    """A target. `share`: how often chance makes it the first. `url` is None where it cannot be asked: see `note`."""

    upstream: str | None = None
    model: str | None = None
    url: str | None = None
    credential: str | None = None
    share: float | None = None
    cost: Cost | None = None
    note: str | None = None


@dataclass(frozen=True, slots=True)
class Findings:
    """`answer` is what the app would get before any upstream is asked, if anything; `order`: why targets stand so."""

    file: str
    asked: Asked
    routes: list[Passed]
    route: str | None
    chain: list[Step]
    order: str | None
    targets: list[Destination]
    answer: Refusal | None
