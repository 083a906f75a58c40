"""What an operator writes of prices, in prices.yaml and under an upstream's `prices`: US dollars per million tokens.

Amounts are decimals in quotes. YAML would make a binary fraction of a plain 0.15, and a sum of such is not what the
provider's bill says.
"""

import math
import re
from decimal import Decimal
from typing import TYPE_CHECKING, Annotated, Final, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    PlainValidator,
    Tag,
    WithJsonSchema,
    model_validator,
)

from proxy.wording import fault

__all__ = ["Price", "PriceFile", "Prices", "UsdPerHour"]

_USD: Final = r"^[0-9]{1,6}(\.[0-9]{1,9})?$"


def _usd(value: object) -> Decimal:
    return _amount(value, "per million tokens", "0.15")


def _usd_per_hour(value: object) -> Decimal | None:
    return None if value in {None, ""} else _amount(value, "per hour", "2.50")


def _amount(value: object, unit: str, example: str) -> Decimal:
    if isinstance(value, float) and math.isfinite(value):
        raise fault("{value} is not in quotes, and YAML would round it", f'put it in quotes, as in "{example}"')
    text = format(value, "f") if isinstance(value, Decimal) else str(value)
    if type(value) not in (str, int, Decimal) or not re.fullmatch(_USD, text):
        raise fault("{value} is not a price", f'write dollars {unit} in quotes, as in "{example}"')
    return Decimal(text)


_SCHEMA: Final = {"type": ["string", "integer"], "pattern": _USD, "minimum": 0}

Usd = Annotated[Decimal | None, PlainValidator(_usd), WithJsonSchema(_SCHEMA)]
"""US dollars per million tokens; None only by default."""


UsdPerHour = Annotated[Decimal | None, PlainValidator(_usd_per_hour), WithJsonSchema(_SCHEMA)]
"""US dollars per hour; empty text and None: none."""


class Price(BaseModel):
    """Of one model. What is not set costs what is nearest to it: the cache as input, reasoning as output."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    input: Usd = Field(default=None, description="prompt tokens", examples=['"0.15"'])
    cached_input: Usd = Field(default=None, description="prompt tokens read from the provider's cache")
    cache_write: Usd = Field(default=None, description="prompt tokens written to it")
    output: Usd = Field(default=None, description="generated tokens", examples=['"0.60"'])
    reasoning: Usd = Field(default=None, description="generated tokens that are reasoning")
    free: bool = Field(default=False, description="costs nothing; then no price stands beside it")

    @model_validator(mode="after")
    def _free_or_priced(self) -> Self:
        priced = [key for key in self.model_fields_set if key != "free"]
        if self.free and priced:
            raise fault("free: true stands beside a price", "remove one of the two", key="free")
        missing = next((key for key in ("input", "output") if key not in priced), None)
        if missing and not self.free:
            raise fault(f"missing key '{missing}'", f"add it ({missing}: 0 where there is none), or `free: true`")
        return self


class PriceFile(BaseModel):
    """What stands in prices.yaml."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    models: dict[str, Price] = Field(
        description="by the model's name, or a glob over names",
        examples=[{"gpt-4o": {"input": '"2.50"', "output": '"10"'}}],
    )


def _shape(value: object) -> str:
    """Whether `models:` stands above the names, as in prices.yaml, or a model is called so."""
    inner = value.get("models") if isinstance(value, dict) and len(value) == 1 else None
    is_file = isinstance(inner, dict) and all(isinstance(price, dict) for price in inner.values())
    return "prices.yaml" if is_file else "by name"


def _by_name(prices: dict[str, Price] | PriceFile) -> dict[str, Price]:
    return prices.models if isinstance(prices, PriceFile) else prices


if TYPE_CHECKING:
    Prices = dict[str, Price]  # what a field of it holds
else:
    Prices = Annotated[
        Annotated[dict[str, Price], Tag("by name")] | Annotated[PriceFile, Tag("prices.yaml")],
        Discriminator(_shape),
        AfterValidator(_by_name),
    ]
