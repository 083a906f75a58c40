"""Sums as somebody reads them."""

import csv
import io

import orjson

from proxy import statement
from tests.test_sums import line, rating, summed

LINES = [
    line("12.5", principal="search-team"),
    line("0.0000005", principal="ops"),
    line(None, principal=None, attempts=({"wasted_usd": "0.25"}, {})),
]


def test_the_table_is_aligned_and_has_a_total():
    assert statement.table(summed(LINES, "principal", "feature")) == (
        "principal    feature  requests  input  cached  output  cost, USD    wasted     saved   share\n"
        "search-team  search          1  1,000     400     100  12.500000  0.000000  0.000000  100.0%\n"
        "ops          search          1  1,000     400     100   0.000000  0.000000  0.000000    0.0%\n"
        "-            search          1  1,000     400     100   0.000000  0.250000  0.000000    0.0%\n"
        "total                        3  3,000   1,200     300  12.500000  0.250000  0.000000  100.0%\n"
    )


def test_csv_and_json_round_nothing():
    sums = summed(LINES, "principal")
    rows = list(csv.DictReader(io.StringIO(statement.as_csv(sums))))
    assert [(row["principal"], row["cost_usd"], row["unpriced"]) for row in rows] == [
        ("search-team", "12.5", "0"),
        ("ops", "0.0000005", "0"),
        ("", "0", "1"),
    ]
    objects = [orjson.loads(text) for text in statement.json(sums).splitlines()]
    assert objects[-1] == {
        "total": True,
        "requests": 3,
        "input_tokens": 3000,
        "cached_input_tokens": 1200,
        "output_tokens": 300,
        "cost_usd": "12.5000005",
        "wasted_usd": "0.25",
        "saved_usd": "0",
        "unpriced": 1,
        "feedbacks": 0,
        "score": None,
        "share": 1.0,
    }
    assert (objects[2]["principal"], objects[2]["share"]) == (None, 0.0)


def test_where_anybody_has_rated_there_is_a_mean():
    sums = summed(
        [line("1"), rating(0.2), rating(0.9), rating(1, principal="ops"), line("1", principal="x")], "principal"
    )
    assert [(row.split()[0], row.split()[-1]) for row in statement.table(sums).splitlines()] == [
        ("principal", "score"),
        ("search-team", "0.550"),
        ("x", "-"),
        ("ops", "1.000"),
        ("total", "0.700"),
    ]
    (rated, *_) = csv.DictReader(io.StringIO(statement.as_csv(sums)))
    assert (rated["requests"], rated["feedbacks"], rated["score"]) == ("1", "2", "0.55")


def test_nothing_that_cost_has_no_share():
    assert statement.table(summed([line("0")], "route")).splitlines()[1].endswith("  -")


def test_what_apps_write_cannot_command_a_terminal():
    shown = statement.table(summed([line(user="\x1b[2J" + "x" * 100)], "user")).splitlines()[1]
    assert shown.startswith("?[2Jxxx")
    assert len(shown.split("  ")[0]) == statement.WIDEST


def test_groups_that_were_too_many_have_a_row():
    sums = summed([line("1", user=f"u{number}") for number in range(9)], "user", most=2)
    assert statement.table(sums).splitlines()[3].split()[:2] == ["(others)", "7"]
