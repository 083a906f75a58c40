"""One bench: rounds of all subjects in turn, so that a noisy minute of the machine meets all of them.

A proxy is started anew in each round. Its loads come in the order that keeps the figures honest: idle memory first,
then chats, which also warm it, then the widest streams, whose memory must not come out of what earlier streams left.
"""

import sys
import tempfile
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.bench import meter
from tests.bench.measures import DIRECT, FULL_LOAD, IDLE_MB, LOADS, TTFT, WIDE_LOADS, Round
from tests.bench.processes import Cores, StartError, await_ready, free_port, listens, spawned
from tests.bench.proxies import Prepared, Proxy
from tests.bench.trials import Scale, Subject, TrialError, Trials, Upstream

_READY_S = 20
_SETTLE_S = 0.5
_LOG_TAIL = 2000


class UpstreamGone(Exception):
    """No figure can be had, and it is no proxy's fault."""


class Session:
    """`rounds` are those that came to their end; `problems` says what could not be measured in them, and why."""

    def __init__(self, scale: Scale, loads: Collection[str], cores: Cores) -> None:
        self._loads = [load for load in LOADS if load in loads]
        self._count = scale.rounds
        self._cores = cores
        self._trials = Trials(scale, cores.load)
        self.rounds: list[Round] = []
        self.problems: list[str] = []

    def run(self, proxies: Sequence[Proxy]) -> None:
        with tempfile.TemporaryDirectory(prefix="weir-bench-") as name, self._upstream(Path(name)) as upstream:
            for number in range(1, self._count + 1):
                self.rounds.append(self._round(Path(name) / str(number), proxies, upstream))

    @contextmanager
    def _upstream(self, folder: Path) -> Iterator[Upstream]:
        port = free_port()
        command = (sys.executable, "-m", "tests.bench.upstream", str(port))
        with spawned(command, self._cores.load, folder / "upstream.log") as child:
            await_ready(child, lambda: listens(port), _READY_S)
            yield Upstream(port, meter.family(child.pid))

    def _round(self, folder: Path, proxies: Sequence[Proxy], upstream: Upstream) -> Round:
        folder.mkdir()
        _say(f"round {folder.name} of {self._count}")
        return {DIRECT: self._direct(upstream)} | {
            proxy.name: self._proxied(proxy, folder / f"proxy-{number}", upstream)
            for number, proxy in enumerate(proxies)
        }

    def _direct(self, upstream: Upstream) -> dict[str, float]:
        figures: dict[str, float] = {}
        for load in self._loads:
            if load in WIDE_LOADS:
                figures |= self._figures(load, Subject(DIRECT, upstream.port, (), upstream))
        return {key: value for key, value in figures.items() if key in TTFT}

    def _proxied(self, proxy: Proxy, folder: Path, upstream: Upstream) -> dict[str, float]:
        folder.mkdir()
        prepared = proxy.prepare(folder, upstream.port)
        log = folder / "output.log"
        with self._redis(prepared, folder), spawned(prepared.command, self._cores.proxy, log) as child:
            try:
                await_ready(child, prepared.is_ready, _READY_S)
            except StartError as error:
                self._problem(f"{proxy.name}: {error}\n{log.read_text(errors='replace')[-_LOG_TAIL:]}")
                return {}
            time.sleep(_SETTLE_S)
            return self._measured(Subject(proxy.name, prepared.port, meter.family(child.pid), upstream))

    @contextmanager
    def _redis(self, prepared: Prepared, folder: Path) -> Iterator[None]:
        if prepared.redis is None:
            yield
            return
        command, port = prepared.redis
        with spawned(command, self._cores.load, folder / "redis.log") as child:
            await_ready(child, lambda: listens(port), _READY_S)
            yield

    def _measured(self, subject: Subject) -> dict[str, float]:
        figures = {IDLE_MB: meter.rss_bytes(subject.proxy_pids) / 1e6}
        if FULL_LOAD not in self._loads:
            self._figures(FULL_LOAD, subject)  # warms it all the same
        for load in self._loads:
            figures |= self._figures(load, subject)
        return figures

    def _figures(self, load: str, subject: Subject) -> dict[str, float]:
        try:
            figures = self._trials.run(load, subject)
        except TrialError as error:
            if not listens(subject.upstream.port):
                self._problem("the bench's own upstream was ended from outside")
                raise UpstreamGone from error
            self._problem(f"{subject.name}, {load}: {error}")
            return {}
        _say(f"  {subject.name}, {load}: " + ", ".join(f"{key} {value:.2f}" for key, value in figures.items()))
        return figures

    def _problem(self, problem: str) -> None:
        _say(f"  {problem}")
        self.problems.append(problem)


def _say(progress: str) -> None:
    print(progress, file=sys.stderr, flush=True)
