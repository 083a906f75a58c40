"""`python -m tests.bench.pii`: how well the pii plugin's detector finds, and what it costs, as Markdown tables.

Beside it presidio-analyzer, on the same texts in the same run, installed into an environment of its own under the
cache folder (`--no-presidio` leaves it out). Without the labelled texts only the cost is measured.
"""

import argparse
import importlib.metadata
import os
import random
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
import venv
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import orjson
import uvloop

from plugins.pii.detector import Detector
from plugins.pii.tail import Tail
from tests.bench import machine, pii_streams
from tests.plugins.pii import quality, secret_texts

CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "weir-bench"
PRESIDIO = "presidio-analyzer>=2.2,<3"
ENTITIES = ("email", "phone", "credit_card", "us_ssn", "iban", "ip_address", "secret")
ROUNDS = 12
CLEAN_KB, DENSE_DOCS = 256, 40

_PROSE = "so that is why the limit of a plan counts for each of the people in it"
_TURN = """Hi, {name} here. My invoice {order} from 2024-0{digit}-17 is wrong, it says ${price} for 3 seats of v{digit}.2.1.
Please write to {email} or call {phone} before Friday; my colleague {other} is at {email2}.
I paid with {card} and the refund should go to {iban}. The gateway logged:
  2024-0{digit}-17T10:30:00.123Z WARN client={ip} request_id={uuid} status=502 took=31.5ms retries={digit}
  {{"user": "{email}", "ssn": "{ssn}", "password": "{password}", "total": {price}}}

For context: we have been with you since the spring, and until last week the export ran every night without anybody having
to look at it. Then it began to stop half way through, and the page of the workspace said only that a limit had been
reached. We asked in the chat and were told to wait, which we did, and it has not become any better since then.

Could you explain in a few plain sentences why the limit of the plan is counted per workspace and not per person, and
what we would have to change so that the nightly export does not run into it again? Thanks a lot for your help so far.
"""


def dense(rng: random.Random) -> str:
    """A chat of 2 to 8 KB with a dozen findings in each turn of about 1.4 KB."""
    return "\n".join(_turn(rng) for _ in range(rng.randint(2, 5)))


def _turn(rng: random.Random) -> str:
    digits = lambda count: "".join(rng.choices("0123456789", k=count))  # noqa: E731
    return _TURN.format(
        name=rng.choice(("Ann", "Bo", "Chidi")), other=rng.choice(("Dana", "Eli")), order=digits(8), digit=rng.randint(1, 9),
        price=f"{rng.randint(10, 9999)}.{digits(2)}", email=f"ann{digits(2)}@example.com", email2=f"dana.{digits(3)}@mail.example.org",
        phone=rng.choice((f"+1 415 555 {digits(4)}", f"(212) 555-{digits(4)}", f"+4420794{digits(5)}")),
        card=rng.choice(("4111 1111 1111 1111", "5555555555554444", "3782 822463 10005")),
        iban=rng.choice(("GB82 WEST 1234 5698 7654 32", "DE89370400440532013000")), ip=f"10.{digits(2).lstrip('0') or 7}.4.{rng.randint(1, 254)}",
        uuid=secret_texts.OPAQUE["uuid"](rng), ssn=f"536-{rng.randint(10, 99)}-{rng.randint(1000, 9999)}",
        password=secret_texts.PASSWORDS["with signs"](rng),
    )  # fmt: skip


def clean() -> list[str]:
    """Source code of the standard library, in files cut to 8 KB."""
    files = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))
    cut = [file.read_text(errors="ignore")[:8192] for file in files]
    return cut[: CLEAN_KB // 8]


def per_kb(run: Callable[[str], object], texts: Sequence[str]) -> float:
    """µs of processor time per KB of UTF-8; the least of the rounds, as noise only adds."""
    kb = sum(len(text.encode()) for text in texts) / 1024
    took = []
    for _ in range(ROUNDS):
        start = time.process_time()
        for text in texts:
            run(text)
        took.append(time.process_time() - start)
    return min(took) / kb * 1e6


def per_piece(detector: Detector, pieces: Sequence[str]) -> float:
    """µs for each piece of a stream."""
    took = []
    for _ in range(ROUNDS):
        tail, start = Tail(detector.reading), time.process_time()
        for piece in pieces:
            tail.feed(piece)
        tail.finish()
        took.append(time.process_time() - start)
    return min(took) / len(pieces) * 1e6


def held(detector: Detector, texts: Sequence[str], rng: random.Random) -> list[int]:
    """Characters that wait after each piece of 1 to 8."""
    waiting = []
    for text in texts:
        tail = Tail(detector.reading)
        waiting += [tail.held for piece in pieces(text, rng) if tail.feed(piece) is not None]
    return sorted(waiting)


def pieces(text: str, rng: random.Random) -> Iterator[str]:
    at = 0
    while at < len(text):
        size = rng.randint(1, 8)
        yield text[at : at + size]
        at += size


def start_cost(entities: Sequence[str]) -> tuple[float, float]:
    """ms and MB that a detector adds to a bare interpreter with pydantic and orjson loaded."""
    code = (
        "import time, sys, pydantic, orjson, proxy.plugin\n"
        "rss = lambda: int(open('/proc/self/statm').read().split()[1]) * 4096 / 2**20\n"
        "size, start = rss(), time.process_time()\n"
        f"from plugins.pii.detector import Detector; Detector({list(entities)!r}).find('call +1 415 555 2671')\n"
        "print((time.process_time() - start) * 1000, rss() - size)"
    )
    runs = [subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, timeout=60) for _ in range(3)]
    figures = [tuple(map(float, run.stdout.split())) for run in runs]
    return min(ms for ms, _ in figures), statistics.median(mb for _, mb in figures)


def presidio(files: dict[str, Path], cost: dict[str, list[str]]) -> tuple[dict[str, Any] | None, dict[str, float], str]:
    """Its scores, its µs per KB and its version."""
    python = CACHE / "presidio" / "bin" / "python"
    if not python.exists():
        venv.create(python.parents[1], with_pip=True)
    subprocess.run([python, "-m", "pip", "install", "--quiet", PRESIDIO], check=True, timeout=1200)
    order = {"files": {name: str(file) for name, file in files.items()}, "cost": cost}
    script = Path(__file__).with_name("pii_presidio.py")
    ran = subprocess.run([python, script], input=orjson.dumps(order), stdout=subprocess.PIPE, check=True, timeout=1800)
    said = orjson.loads(ran.stdout.splitlines()[-1])
    return (quality.scored(files) if files else None), said["per_kb"], said["version"]


def quality_table(columns: dict[str, dict[str, Any]]) -> str:
    rows = [["", *columns], ["---", *("---:" for _ in columns)]]
    for label, text in (
        ("precision", lambda scores: f"{scores['ALL']['P']:.3f}"),
        ("recall", lambda scores: f"{scores['ALL']['R']:.3f}"),
        ("recall, secrets aside", lambda scores: f"{_recall(scores, ENTITIES[:-1]):.3f}"),
        ("recall of what a checksum or format proves", lambda scores: f"{scores['ALL']['Rstd']:.3f}"),
        ("false alarms per 1,000 texts without any", lambda scores: f"{scores['NEG']['fp_per_1000_texts']:.0f}"),
        ("labelled characters that leak", lambda scores: f"{100 * scores['ALL']['leak']:.1f} %"),
        *(
            (f"recall: `{entity}`", lambda scores, name=entity: f"{scores[name.upper()]['R']:.3f}")
            for entity in ENTITIES
        ),
    ):
        rows.append([label, *map(text, columns.values())])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _recall(scores: dict[str, Any], entities: Sequence[str]) -> float:
    rows = [scores[entity.upper()] for entity in entities]
    return sum(row["tp"] for row in rows) / sum(row["n"] for row in rows)


def cost_table(columns: dict[str, dict[str, float]]) -> str:
    rows = [["µs per KB", *columns], ["---", *("---:" for _ in columns)]]
    rows += [
        [kind, *(f"{figures[kind]:,.0f}" for figures in columns.values())] for kind in next(iter(columns.values()))
    ]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.pii", description="how well pii finds, and its cost")
    parser.add_argument("--no-presidio", action="store_true", help="do not install and run presidio-analyzer beside it")
    arguments = parser.parse_args()
    rng, detector = random.Random(1), Detector(ENTITIES)
    cost = {
        "clean: source code": clean(),
        "dense: chats, about 8 findings per KB": [dense(rng) for _ in range(DENSE_DOCS)],
    }
    qualities: dict[str, dict[str, Any]] = {}
    costs = {"Weir": {kind: per_kb(detector.find, texts) for kind, texts in cost.items()}}
    with tempfile.TemporaryDirectory() as folder:
        files: dict[str, Path] = {}
        if quality.IS_HERE:
            spans = lambda text: [(start, end, entity.upper()) for start, end, entity in detector.find(text)]  # noqa: E731
            qualities["Weir"] = quality.score(spans, Path(folder))
            files = {
                name: Path(folder) / f"{name}.jsonl" for name in ("gold", "negatives", "gold_found", "negatives_found")
            }
        if not arguments.no_presidio:
            scores, per, version = presidio(files, cost)
            costs[f"presidio-analyzer {version}"] = per
            if scores:
                qualities[f"presidio-analyzer {version}"] = scores
    print(f"`python -m tests.bench.pii`; {machine.description(None)}, google-re2 {_version('google-re2')}\n")
    print(quality_table(qualities) if qualities else "The labelled texts are not at hand: only the cost was measured.")
    print(f"\n{cost_table(costs)}\n")
    _print_streams(detector, cost, rng)
    for entities in (ENTITIES, [entity for entity in ENTITIES if entity != "phone"]):
        ms, mb = start_cost(entities)
        print(f"Start-up with {', '.join(entities)}: {ms:.0f} ms, {mb:.1f} MB")


def _print_streams(detector: Detector, cost: dict[str, list[str]], rng: random.Random) -> None:
    words = [f" {word}" for word in _PROSE.split()] * 40
    waiting = held(detector, cost[next(reversed(cost))], rng)
    at = lambda share: waiting[int(share * (len(waiting) - 1))]  # noqa: E731
    print(f"Streams: {per_piece(detector, words):.1f} µs per word of prose,", end=" ")
    print(f"{per_piece(detector, list(pieces(dense(rng), rng))):.0f} µs per piece of a dense text;", end=" ")
    print(f"characters that wait there: p50 {at(0.5)}, p90 {at(0.9)}, p99 {at(0.99)}, most {waiting[-1]}")
    more = uvloop.run(pii_streams.added())
    print(f"Through Weir: {more.first_event:+.2f} ms to the first event, {more.event:.1f} µs more per event\n")


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "absent"


if __name__ == "__main__":
    main()
