"""Three GPU servers of unequal speed, in virtual time, behind the balancing code itself: `make bench-balance`.

Each server works on a few requests at a time, a token for each of them per step, and queues the others, as TGI does;
steps get slower with the batch. What Weir knows is what it would know: its own requests, the times of first tokens, and
readings that are as old as they would be. `others` sends past Weir, as a second client of the same servers.
"""

from __future__ import annotations

import argparse
import heapq
import itertools
import random
import statistics
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from proxy import balance, testing
from proxy.attempt import Target
from proxy.upstream.work import Reading, Work

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from proxy.upstream.pace import Pace

SPEEDS = {"a": 1.0, "b": 0.5, "c": 0.25}
"""Of the three servers, beside the fastest."""
BATCH = 16
STEP, STEP_EACH, PREFILL = 0.020, 0.0005, 0.030
"""Seconds of a step of the fastest, what each request of the batch adds, and what a new one adds to its first step."""
TOKENS = 120
"""Of an answer, on average; their lengths spread exponentially."""
WARM_UP = 20.0
"""Virtual seconds that are not counted."""
INTERVAL, STALE = 2.0, 6.0


@dataclass
class Job:
    arrived: float
    tokens: int
    first: Callable[[float], None]
    last: Callable[[float], None]
    left: int = 0


class Clock:
    def __init__(self) -> None:
        self.now = 0.0
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()

    def at(self, moment: float, work: Callable[[], None]) -> None:
        heapq.heappush(self._due, (moment, next(self._order), work))

    def run(self, until: float) -> None:
        while self._due and self._due[0][0] <= until:
            self.now, _, work = heapq.heappop(self._due)
            work()


class Server:
    """Continuous batching with a first-come queue."""

    def __init__(self, clock: Clock, speed: float) -> None:
        self._clock = clock
        self._speed = speed
        self.running: list[Job] = []
        self.waiting: deque[Job] = deque()

    def take(self, job: Job) -> None:
        job.left = job.tokens
        self.waiting.append(job)
        if not self.running:
            self._begin()

    def _begin(self) -> None:
        joining = 0
        while self.waiting and len(self.running) < BATCH:
            self.running.append(self.waiting.popleft())
            joining += 1
        if self.running:
            took = (STEP + STEP_EACH * len(self.running) + PREFILL * joining) / self._speed
            self._clock.at(self._clock.now + took, self._step)

    def _step(self) -> None:
        now, going_on = self._clock.now, []
        for job in self.running:
            if job.left == job.tokens:
                job.first(now)
            job.left -= 1
            if job.left:
                going_on.append(job)
            else:
                job.last(now)
        self.running = going_on
        self._begin()


@dataclass
class Upstream:
    """What the balancing code sees of a server."""

    in_flight: int = 0
    is_watched: bool = False
    is_healthy: bool = True
    can_load: bool = False
    is_loading: bool = False
    is_full: bool = False
    pace: Pace | None = None
    work: Work | None = None
    capacity: Any = None


@dataclass
class Replica:
    """One Weir: an order of its own, and what it has measured itself."""

    order: Callable[[Any, Any], list[Target]]
    upstreams: dict[str, Upstream]
    first_tokens: list[float] = field(default_factory=list)


class Fleet:
    def __init__(self, way: str, *, rate: float, others: float, replicas: int, seed: int) -> None:
        self.clock = Clock()
        self._random = random.Random(seed)
        self._servers = {name: Server(self.clock, speed) for name, speed in SPEEDS.items()}
        self._targets = [Target(name) for name in SPEEDS]
        self._exchange = testing.exchange(body=b"{}")
        self.replicas = [self._replica(way) for _ in range(replicas)]
        self._rate, self._others = rate, others

    def run(self, seconds: float) -> list[float]:
        """The times to first token, of those that came after the warm-up."""
        self._arrive(self._rate, self._asked)
        if self._others:
            self._arrive(self._others, self._passed_by)
        for replica in self.replicas:
            for name in SPEEDS:
                self._read(replica, name)
        self.clock.run(seconds)
        return [took for replica in self.replicas for took in replica.first_tokens]

    def _replica(self, way: str) -> Replica:
        upstreams = {name: Upstream() for name in SPEEDS}
        draw, now = self._random.random, lambda: self.clock.now
        match way:
            case "round robin":
                turns = itertools.count()
                return Replica(lambda _, targets: [targets[next(turns) % len(targets)]], upstreams)
            case "ewma":
                return Replica(balance.fastest(upstreams, draw, now), upstreams)
            case "least_busy":
                return Replica(balance.least_busy(upstreams, draw), upstreams)
            case _:
                for upstream in upstreams.values():
                    upstream.work = Work(now)
                return Replica(balance.shortest(upstreams, draw, now), upstreams)

    def _arrive(self, rate: float, what: Callable[[], None]) -> None:
        def come() -> None:
            what()
            self.clock.at(self.clock.now + self._random.expovariate(rate), come)

        self.clock.at(self._random.expovariate(rate), come)

    def _asked(self) -> None:
        replica = self._random.choice(self.replicas)
        name = replica.order(self._exchange, self._targets)[0].upstream
        upstream, arrived = replica.upstreams[name], self.clock.now
        work, pace = upstream.work, upstream.pace
        upstream.in_flight += 1
        mark = work.begin() if work else 0.0

        def first(now: float) -> None:
            if arrived >= WARM_UP:
                replica.first_tokens.append(now - arrived)
            if pace:
                pace.note(now - arrived, now)

        def last(_: float) -> None:
            upstream.in_flight -= 1
            if work:
                work.end(mark)
                work.served()

        self._servers[name].take(Job(arrived, self._length(), first, last))

    def _passed_by(self) -> None:
        """All of it goes to the fastest, as a job does that knows but one of them."""
        self._servers["a"].take(Job(self.clock.now, self._length(), lambda _: None, lambda _: None))

    def _length(self) -> int:
        return max(round(self._random.expovariate(1 / TOKENS)), 1)

    def _read(self, replica: Replica, name: str) -> None:
        upstream, server = replica.upstreams[name], self._servers[name]
        if upstream.work is not None:
            reading = Reading(len(server.running), len(server.waiting))
            upstream.work.read(reading, upstream.in_flight, STALE)
        self.clock.at(self.clock.now + INTERVAL * self._random.uniform(0.9, 1.1), lambda: self._read(replica, name))


WAYS = ("round robin", "least_busy", "ewma", "queue")
CASES = {
    "40 % of what they can": {"rate": 2.9, "others": 0.0, "replicas": 1},
    "85 %": {"rate": 6.2, "others": 0.0, "replicas": 1},
    "80 %, a third of it past Weir to the fastest": {"rate": 3.8, "others": 2.2, "replicas": 1},
    "85 %, from eight replicas of Weir": {"rate": 6.2, "others": 0.0, "replicas": 8},
}


def percentile(values: list[float], share: float) -> float:
    return sorted(values)[min(int(len(values) * share), len(values) - 1)]


def measured(case: dict[str, Any], way: str, seconds: float, seeds: int) -> list[float]:
    """p50 and p99 of the time to first token, each the median over so many seeds."""
    runs = [Fleet(way, seed=seed, **case).run(seconds) for seed in range(seeds)]
    return [statistics.median(percentile(run, share) for run in runs) for share in (0.50, 0.99)]


def table(seconds: float, seeds: int) -> Iterator[str]:
    yield "| load | " + " | ".join(f"{way}: p50 / p99, s" for way in WAYS) + " |"
    yield "|---" + "|--:" * len(WAYS) + "|"
    for name, case in CASES.items():
        found = [measured(case, way, seconds, seeds) for way in WAYS]
        yield f"| {name} | " + " | ".join(f"{p50:.2f} / {p99:.2f}" for p50, p99 in found) + " |"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tests.bench.fleet", description="ways to balance, in virtual time")
    parser.add_argument("--seconds", type=float, default=200.0, help="of virtual time")
    parser.add_argument("--seeds", type=int, default=12)
    arguments = parser.parse_args()
    for line in table(arguments.seconds, arguments.seeds):
        print(line, flush=True)
