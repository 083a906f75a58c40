"""An operator's own entities: a pattern, what proves it, and examples that are tried at start-up."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from plugins.pii.findings import Finding

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

EntityName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,31}$")]


class Custom(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    name: EntityName = Field(description="its word in `entities`, metrics and placeholders", examples=["employee_id"])
    pattern: str = Field(
        min_length=1, max_length=500, description="RE2 syntax; what it matches is one word, and bounded"
    )
    validator: Literal["luhn", "mod97", "none"] = Field(
        default="none", description="a checksum that the match must have besides"
    )
    examples: list[str] = Field(default_factory=list, description="values that must be found whole")
    not_examples: list[str] = Field(default_factory=list, description="texts in which it must find nothing")

    def finder(self) -> Callable[[str, int, int], Iterator[Finding]]:
        pattern, name = re.compile(self.pattern), self.name
        return lambda text, start, end: (Finding(*match.span(), name) for match in pattern.finditer(text, start, end))
