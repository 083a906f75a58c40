"""The simulation behind `make bench-balance`: what it is for holds with any seed."""

import pytest

from tests.bench.fleet import CASES, WAYS, Clock, Job, Server, measured, table

SECONDS, SEEDS = 120.0, 3


@pytest.mark.parametrize("case", CASES)
def test_a_queue_known_halves_the_slowest_first_tokens_of_round_robin(case):
    (_, by_turns), (_, by_queue) = (measured(CASES[case], way, SECONDS, SEEDS) for way in ("round robin", "queue"))
    assert by_turns >= 2 * by_queue


def test_a_server_works_on_a_batch_and_queues_the_rest():
    clock = Clock()
    server, came = Server(clock, 1.0), []
    for number in range(17):
        server.take(Job(0.0, 10, lambda _, number=number: came.append(number), lambda _: None))
    clock.run(0.6)
    assert came == list(range(16))
    clock.run(10.0)
    assert came[16:] == [16]
    assert not server.running


def test_the_table_has_a_row_per_case():
    rows = list(table(30.0, 1))
    assert [row.split(" | ")[0].removeprefix("| ") for row in rows[2:]] == list(CASES)
    assert {row.count("|") for row in rows} == {len(WAYS) + 2}
