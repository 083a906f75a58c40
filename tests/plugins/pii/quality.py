"""How well a detector finds: the public texts of `../shared/data/pii` with its scorer, and secrets that are made up.

The texts with secrets and those that only look like them come from `secret_texts`; nothing of the data set is copied.
"""

import os
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from tests.plugins.pii import secret_texts

DATA = Path(os.environ.get("WEIR_PII_DATA", Path(__file__).parents[4] / "shared" / "data" / "pii"))
SECRET_ROUNDS = 3
IS_HERE = (DATA / "score.py").exists()

Line = dict[str, Any]
Spans = list[tuple[int, int, str]]
"""Start, end, and the type in the data set's words, such as `CREDIT_CARD`."""


class Texts(NamedTuple):
    gold: list[Line]
    negatives: list[Line]


def _lines(name: str) -> list[Line]:
    return [orjson.loads(line) for line in (DATA / name).read_bytes().splitlines()]


def texts() -> Texts:
    """Those with labels, and those in which all that is found is a false alarm."""
    secrets = [
        _line("made", at, text, "generated")
        | {"spans": [{"start": start, "end": end, "type": "SECRET", "tier": "std"}]}
        for at, (text, start, end) in enumerate(secret_texts.texts(seed=1, rounds=SECRET_ROUNDS))
    ]
    lookalikes = [_line("none", at, text, "generated") for at, text in enumerate(secret_texts.NO_SECRETS)]
    return Texts([*_lines("dev.jsonl"), *secrets], [*_lines("negatives-dev.jsonl"), *lookalikes])


def _line(prefix: str, number: int, text: str, kind: str) -> Line:
    return {"id": f"{prefix}{number}", "text": text, "spans": [], "other": [], "source": kind, "kind": kind}


def score(find: Callable[[str], Spans], folder: Path) -> dict[str, Any]:
    """What the scorer says of all texts, by type and as `ALL` and `NEG`; its input is left in `folder`."""
    every = texts()
    files = {}
    for name, lines in every._asdict().items():
        files[name] = folder / f"{name}.jsonl"
        files[f"{name}_found"] = folder / f"{name}_found.jsonl"
        _write(files[name], lines)
        _write(files[f"{name}_found"], ({"id": line["id"], "spans": _labelled(find(line["text"]))} for line in lines))
    return scored(files)


def scored(files: dict[str, Path]) -> dict[str, Any]:
    command = [sys.executable, str(DATA / "score.py"), "--json", "--gold", files["gold"], "--pred", files["gold_found"]]
    command += ["--neg", files["negatives"], "--negpred", files["negatives_found"]]
    ran = subprocess.run(command, capture_output=True, timeout=120, check=True)
    return orjson.loads(ran.stdout)


def _labelled(spans: Spans) -> list[Line]:
    return [{"start": start, "end": end, "type": entity} for start, end, entity in spans]


def _write(file: Path, lines: Iterable[Line]) -> None:
    file.write_bytes(b"\n".join(map(orjson.dumps, lines)))
