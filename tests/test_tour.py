"""`weir demo` prints its table and ends well; tokens are read from whatever answered."""

import pytest

from proxy import cli, tour
from proxy.tour import CALLS, Seen, costs, table, tokens_of


def test_the_demo_prints_a_row_for_each_call_and_exits_0(capsys, monkeypatch):
    monkeypatch.setattr(tour, "REPEATS", 2)
    monkeypatch.setattr(tour, "PACE", 0.001)
    monkeypatch.setattr(tour, "FIRST_TOKEN", 0.001)
    assert cli.main(["demo"]) == 0
    out, err = capsys.readouterr()
    first, _, head, *rows, _, last = out.splitlines()
    assert first.startswith("weir demo: ")
    assert head.split() == ["call", "status", "first", "byte", "total", "Weir", "adds", "tokens", "cost,", "USD"]
    assert [row[:18].rstrip() for row in rows] == [name for name, _, _ in CALLS]
    for row in rows:
        status, *figures, tokens, usd = row[18:].split()
        assert status == "200"
        assert figures[1::2] == ["ms"] * 3
        assert int(tokens) > 0
        assert 0 < float(usd) < 0.001
    assert "OPENAI_BASE_URL=http://127.0.0.1:8080/v1" in last
    assert "Traceback" not in err


def test_the_demo_fails_where_a_call_does(capsys, monkeypatch):
    monkeypatch.setattr(tour, "REPEATS", 1)
    monkeypatch.setattr(tour, "CALLS", (("nothing", "/v1/nothing", {"model": "demo"}),))
    assert cli.main(["demo"]) == 1
    assert "404" in capsys.readouterr().out


def test_the_table_lines_up():
    figures = [(200, 0.1604, 1.0, 49), (200, 0.15, 2.25, 49), (200, 0.1, 0.2, None), (500, 0.001, 0.01, 8)]
    seen = [Seen(str(number), *figure) for number, figure in enumerate(figures)]
    assert table(seen, [0.00034, 0.0, 0.001, 0.0125], {"0": "0.0000291", "3": "0"}) == [
        "call               status  first byte     total  Weir adds  tokens   cost, USD",
        "chat                  200      160 ms   1000 ms    0.34 ms      49   0.0000291",
        "chat, streamed        200      150 ms   2250 ms    0.00 ms      49           -",
        "chat with a tool      200      100 ms    200 ms    1.00 ms       -           -",
        "embeddings            500        1 ms     10 ms   12.50 ms       8           0",
    ]


def test_the_costs_are_those_of_the_ledger():
    lines = b'{"log":"access","id":"a"}\n{"log":"ledger","id":"a","cost_usd":"0.1"}\n{"log":"ledger","id":"b","cost_usd":null}\n'
    assert costs(lines) == {"a": "0.1"}


@pytest.mark.parametrize(
    ("answer", "tokens"),
    [
        (b'{"usage": {"total_tokens": 7}}', 7),
        (b'data: {"usage": null}\n\ndata: {"choices": [], "usage": {"total_tokens": 9}}\n\ndata: [DONE]\n\n', 9),
        (b'{"usage": null}', None),
        (b"[]", None),
        (b"not json", None),
        (b"", None),
    ],
)
def test_the_tokens_of_an_answer(answer, tokens):
    assert tokens_of(answer) == tokens
