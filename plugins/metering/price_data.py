"""Writes config/prices.yaml from public price data: `python -m plugins.metering.price_data > config/prices.yaml`.

The data is genai-prices (MIT), downloaded by pip into a temporary folder; its module is parsed, never run. A model is
left out where five prices per token cannot tell its cost, and a name that several hosts sell at different prices: no
price is better than a wrong one, since requests without a price are counted.
"""

from __future__ import annotations

import ast
import datetime as dt
import pathlib
import re
import subprocess
import sys
import tempfile
import zipfile
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

PACKAGE: Final = "genai-prices"
VERSION: Final = "0.2.3"

Node = dict[str, Any]
"""A constructor call of the data: its keywords, its arguments under `args`, its name under `is`."""

Amounts = dict[str, str]
"""What stands in a price of prices.yaml."""


class Section(NamedTuple):
    """`hosts`: it sells others' models, so a name counts only where all providers that have it agree on its price."""

    title: str
    provider: str
    hosts: bool = False
    names: str = ".*"


SECTIONS: Final = (
    Section("OpenAI, and Azure OpenAI where deployments have the models' names", "openai"),
    Section("Anthropic", "anthropic"),
    Section("Google, and Claude as Vertex AI names it", "google"),
    Section("Mistral", "mistral"),
    Section("xAI", "x-ai"),
    Section("DeepSeek", "deepseek"),
    Section("Groq", "groq", hosts=True),
    Section("OpenRouter", "openrouter", hosts=True, names="(openai|anthropic|google|mistralai|x-ai|cohere|amazon)/.*"),
)

_HEAD: Final = """\
# What models cost, in US dollars per million tokens. cached_input and cache_write cost what input does where they are
# not set, reasoning what output does. Names are exact or globs; exact ones go first.
#
# Source: {package} {version}, MIT licence, Copyright (c) Pydantic Services Inc.; prices as of {day}.
# Made by: python -m plugins.metering.price_data {day} > config/prices.yaml
# Do not edit it: point the metering plugin's `prices` at a file of your own, or give an upstream its own `prices`.
#
# - Prices that depend on the prompt's length: the lowest tier. On the time of day: the one that holds longest.
# - Batches, priority tiers, one-hour cache writes, regions, searches and other tools are not in it.
# - Models paid by the minute, the page or the picture are not in it, nor those with audio or pictures as output.
# - Audio and pictures in the prompts of chat models cost what text does.
# - Open weights are not in it under the names that all give them (Llama, gpt-oss, …), since each host has its price:
#   give the upstream that serves them its own `prices`, or `prices: {{"*": {{free: true}}}}` where it costs nothing.

models:
"""

_TAIL: Final = """\
  # Variants that OpenRouter gives away
  "*/*:free": {free: true}
"""

_FIELDS: Final = {
    "input": "input_mtok",
    "cached_input": "cache_read_mtok",
    "cache_write": "cache_write_mtok",
    "output": "output_mtok",
    "reasoning": "output_reasoning_mtok",
}
_NOT_PER_TOKEN: Final = re.compile(r"requests|hours|mchars|pages|(input|output)_(image|video)|output_audio")
_NOT_TEXT: Final = re.compile(r"audio|realtime|transcribe|live|voice|voxtral|image|banana|gemini-omni")
_ANYONES: Final = re.compile(r"gpt-oss|gemma|deepseek-(r1|v3)|(?<!open-)(mistral-7b|mistral-nemo|mixtral)|\db-instruct")
"""Open weights, under names that servers of one's own use."""

_PLAIN_KEY: Final = re.compile(r"[A-Za-z][\w./-]*")


def main(arguments: list[str]) -> None:
    """The only argument is the day whose prices are meant, by default today."""
    day = dt.date.fromisoformat(arguments[0]) if arguments else dt.datetime.now(dt.UTC).date()
    with tempfile.TemporaryDirectory() as folder:
        sys.stdout.write(text(providers(downloaded(pathlib.Path(folder))), day))


def downloaded(folder: pathlib.Path, *options: str) -> pathlib.Path:
    """The package's wheel. Raises CalledProcessError."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:", *options]
    subprocess.run([*command, "--dest", str(folder), f"{PACKAGE}=={VERSION}"], check=True)  # noqa: S603 - our own words
    return next(folder.glob("*.whl"))


def providers(wheel: pathlib.Path) -> dict[str, Node]:
    """By id."""
    with zipfile.ZipFile(wheel) as archive:
        module = ast.parse(archive.read("genai_prices/data.py"))
    assigned = next(step.value for step in module.body if isinstance(step, ast.AnnAssign) and step.value)
    return {provider["id"]: provider for provider in _read(assigned)}


def _read(node: ast.expr) -> Any:
    match node:
        case ast.Constant():
            return node.value
        case ast.List():
            return [_read(item) for item in node.elts]
        case ast.Call():
            named = {keyword.arg: _read(keyword.value) for keyword in node.keywords}
            return {**named, "args": [_read(item) for item in node.args], "is": ast.unparse(node.func).split(".")[-1]}
    return None  # the zone of a time: always UTC


def text(known: Mapping[str, Node], day: dt.date) -> str:
    """The whole file. A name that several sections have stands in the first."""
    listed = {provider: dict(entries(known[provider], day)) for provider in known}
    parts, taken = [_HEAD.format(package=PACKAGE, version=VERSION, day=day)], set[str]()
    for section in SECTIONS:
        prices = listed[section.provider]
        found = {name for name in prices if re.fullmatch(section.names, name)} - taken
        lines = [_line(name, prices[name]) for name in sorted(found) if not section.hosts or _agreed(name, listed)]
        parts.append(f"  # {section.title}\n{''.join(lines)}\n")
        taken |= found
    return "".join(parts) + _TAIL


def entries(provider: Node, day: dt.date) -> Iterator[tuple[str, Amounts]]:
    """Names and globs with their prices; of a name that comes twice the first counts, as it does in the data."""
    found: dict[str, Amounts] = {}
    for model in provider["models"]:
        amounts = amounts_on(model["prices"], day)
        for name in names(model["match"]):
            found.setdefault(name, amounts)
    yield from ((name, amounts) for name, amounts in found.items() if amounts and _is_meant(name))


def _is_meant(name: str) -> bool:
    """Not a variant such as `:batch`; `ft:` is OpenAI's mark of a model that was tuned."""
    return ":" not in name.removeprefix("ft:") and not _ANYONES.search(name) and not _NOT_TEXT.search(name)


def _agreed(name: str, listed: Mapping[str, Mapping[str, Amounts]]) -> bool:
    first, *others = (prices[name] for prices in listed.values() if name in prices)
    return all(amounts == first for amounts in others)


def amounts_on(prices: Node | list[Node], day: dt.date) -> Amounts:
    """Nothing where five prices per token cannot tell what the model costs."""
    begins = dt.datetime.combine(day, dt.time())
    held = [_price_at(prices, begins + dt.timedelta(minutes=30 * half)) for half in range(48)]
    price = max(held, key=held.count)
    if "input_mtok" not in price or any(map(_NOT_PER_TOKEN.search, price)):
        return {}
    amounts = {"output": "0"} | {field: _amount(price[key]) for field, key in _FIELDS.items() if key in price}
    if Decimal(amounts.get("cache_write", "Infinity")) < Decimal(amounts["input"]):  # it comes on top (Gemini)
        del amounts["cache_write"]
    return amounts


def _price_at(prices: Node | list[Node], moment: dt.datetime) -> Node:
    if isinstance(prices, dict):
        return prices
    found: Node = next((step for step in reversed(prices) if _is_active(step.get("constraint"), moment)), prices[0])
    return dict(found["prices"])


def _is_active(constraint: Node | None, moment: dt.datetime) -> bool:
    if constraint is None:
        return True
    if constraint["is"] == "StartDateConstraint":
        return moment.date() >= dt.date(*constraint["start_date"]["args"])
    start, end = (dt.time(*constraint[key]["args"]) for key in ("start_time", "end_time"))
    now = moment.time()
    return start <= now < end if start <= end else now >= start or now < end


def _amount(price: Node) -> str:
    return str((price["base"] if price["is"] == "TieredPrices" else price)["args"][0])


def names(match: Node) -> list[str]:
    """As names and globs. What a name only contains must begin it: what may stand before is some provider's prefix."""
    value = next(value for key, value in match.items() if key not in ("is", "args"))
    match match["is"]:
        case "ClauseOr" | "ClauseAnd":
            return [name for clause in value for name in names(clause)]
        case "ClauseStartsWith" | "ClauseContains":
            return [f"{value}*"]
        case "ClauseRegex":
            return _globs(value)
    return [value]


def _globs(pattern: str) -> list[str]:
    """Of a regular expression with nothing but letters, sets and digits; of any other, none."""
    plain = pattern.removeprefix("^").removesuffix("$").replace(r"\.", ".")
    glob = re.sub(r"\\d(?:\{(\d)\})?", lambda digits: "[0-9]" * int(digits[1] or 1), plain)
    return [] if re.search(r"[\\(){}|+?^$]", glob) else [glob if pattern.endswith("$") else f"{glob}*"]


def _line(name: str, amounts: Amounts) -> str:
    key = name if _PLAIN_KEY.fullmatch(name) else f'"{name}"'
    priced = ", ".join(f'{field}: "{amounts[field]}"' for field in _FIELDS if field in amounts)
    return f"  {key}: {{{priced}}}\n"


if __name__ == "__main__":
    main(sys.argv[1:])
