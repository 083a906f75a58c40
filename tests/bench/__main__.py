"""`python -m tests.bench`: Weir beside nginx in one run, as a Markdown table on standard output.

The proxy has one core to itself, and the upstream and the load generator share another. Exit status 1: something could
not be measured; a missed budget is in the table and no failure, since a busy machine misses them too.
"""

import argparse
import contextlib
import dataclasses
import shlex
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import orjson

from tests.bench import machine, report
from tests.bench.measures import LOADS
from tests.bench.processes import Cores, allow_many_sockets
from tests.bench.proxies import Proxy, nginx_binary, proxies
from tests.bench.session import Session, UpstreamGone
from tests.bench.trials import FULL, QUICK

_NO_NGINX = "nginx is not installed (Debian: apt-get install nginx-light): benching without it, so without ratios"
_HOW = """\
CPU time is the proxy's own, from /proc/PID/task/*/schedstat; CPU, TTFT and waiting are the minimum over the rounds (noise
only adds), rates the maximum, memory the median, the rest the worst. Added TTFT is a proxy's percentile less that of the
same streams without one, on fresh connections."""


def _arguments(names: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description="Weir beside nginx, in one run")
    parser.add_argument("--quick", action="store_true", help="one short round, about 45 s: for a first look")
    parser.add_argument("--rounds", type=int, help=f"default {FULL.rounds}; {QUICK.rounds} with --quick")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures of every round there")
    parser.add_argument(
        "--only", action="append", default=[], choices=(*names, *LOADS), metavar="NAME",
        help=f"repeatable: a proxy ({', '.join(names)}) or a load ({', '.join(LOADS)})",
    )  # fmt: skip
    return parser.parse_args()


def _chosen(names: Sequence[str], only: Sequence[str]) -> list[str]:
    return [name for name in names if name in only] or list(names)


def _text(session: Session, measured: Sequence[Proxy]) -> str:
    summed = report.summary(session.rounds)
    command = shlex.join(["python", "-m", "tests.bench", *sys.argv[1:]])
    parts = [
        f"`{command}`, {len(session.rounds)} round(s); {machine.description(nginx_binary())}",
        report.table(summed, {proxy.name: proxy.budgets for proxy in measured}),
        report.direct_line(session.rounds),
        report.checks(summed),
        _HOW,
        *(f"Warning: {warning}." for warning in report.warnings(summed)),
        *(f"Problem: {problem}" for problem in session.problems),
    ]
    return "\n\n".join(part for part in parts if part)


def main() -> int:
    if not Path("/proc/self/schedstat").exists():
        sys.exit("The bench reads CPU times from Linux's /proc/PID/schedstat; this system has none.")
    if not nginx_binary():
        print(_NO_NGINX, file=sys.stderr)
    every = proxies()
    arguments = _arguments([proxy.name for proxy in every])
    chosen = _chosen([proxy.name for proxy in every], arguments.only)
    measured = [proxy for proxy in every if proxy.name in chosen]
    scale = QUICK if arguments.quick else FULL
    session = Session(
        dataclasses.replace(scale, rounds=arguments.rounds or scale.rounds),
        _chosen(LOADS, arguments.only),
        Cores.of_this_machine(),
    )
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the children are ended
    allow_many_sockets()
    with contextlib.suppress(UpstreamGone):
        session.run(measured)
    print(_text(session, measured))
    if arguments.json:
        arguments.json.write_bytes(orjson.dumps({"rounds": session.rounds}, option=orjson.OPT_INDENT_2))
    return 1 if session.problems else 0


if __name__ == "__main__":
    sys.exit(main())
