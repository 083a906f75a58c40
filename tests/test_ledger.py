"""`weir ledger` as its users run it: files in, a table out, and sharp words where that cannot be."""

import gzip
import io

import orjson
import pytest

from proxy import cli, ledger, testing
from tests import wire
from tests.test_sums import line, rating

ACCESS = b'{"log":"access","id":"req_1","path":"/v1/chat/completions?q=\\"ledger\\""}\n'


def dumped(*entries):
    return b"".join(orjson.dumps(entry) + b"\n" for entry in entries)


@pytest.fixture
def weir(tmp_path, monkeypatch, capsys):
    """Runs `weir ledger …` in a folder with those files: exit code, rows without the spaces, standard error."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments, **files):
        for name, data in files.items():
            (tmp_path / f"{name}.jsonl").write_bytes(data)
        code = cli.main(["ledger", *arguments])
        told = capsys.readouterr()
        return code, [row.split() for row in told.out.splitlines()], told.err

    return run


def test_files_are_summed_by_principal(weir):
    code, rows, err = weir(
        "a.jsonl", "b.jsonl", a=ACCESS + dumped(line("1")) + b"\n", b=dumped(line("2"), line("4", principal="ops"))
    )
    assert (code, err) == (0, "")
    assert [(row[0], row[1], row[-4]) for row in rows[1:]] == [
        ("ops", "1", "4.000000"),
        ("search-team", "2", "3.000000"),
        ("total", "3", "7.000000"),
    ]


async def test_what_a_running_weir_writes_can_be_summed(weir, tmp_path):
    out = io.BytesIO()
    async with testing.upstream(testing.chat("to be or not")) as upstream:
        text = (
            'server: {listen: "127.0.0.1:0", admin: "127.0.0.1:0"}\n'
            f'upstreams: {{up: {{base_url: "{upstream.url}/v1", prices: {{m: {{input: "10", output: "30"}}}}}}}}\n'
            "plugins: [metering]\nroutes: [{name: default, targets: [up]}]\n"
        )
        async with testing.configured(text, out) as running:
            for _ in range(3):
                await testing.ask(running, {"model": "m"})
            await wire.until(lambda: out.getvalue().count(b'"ledger"') == 3)
    code, rows, err = weir("a.jsonl", "--by", "upstream", "--by", "model", a=out.getvalue())
    assert (code, err) == (0, "")
    assert rows[1] == ["up", "m", "3", "9", "0", "12", "0.000450", "0.000000", "0.000000", "100.0%"]


def test_compressed_files_and_standard_input_are_read_alike(weir, monkeypatch):
    stdin = io.TextIOWrapper(io.BufferedReader(io.BytesIO(gzip.compress(dumped(line("1"))))))
    monkeypatch.setattr("sys.stdin", stdin)
    assert weir("-", "a.jsonl", a=gzip.compress(dumped(line("2"))))[1][-1][-4] == "3.000000"


def test_only_the_days_that_were_asked_for(weir):
    times = [f"2026-11-{day}T12:00:00.000000Z" for day in (19, 20, 21, 22)]
    data = dumped(*(line("1", time=time) for time in times))
    _, rows, _ = weir("a.jsonl", "--by", "day", "--since", "2026-11-20", "--until", "2026-11-21", a=data)
    assert sorted(row[0] for row in rows[1:]) == ["2026-11-20", "2026-11-21", "total"]


def test_lines_from_a_containers_log_have_something_before_them(weir):
    assert weir("a.jsonl", a=b"2026-11-20T12:00:00Z stdout F " + dumped(line("1")))[1][-1][-4] == "1.000000"


def test_broken_lines_are_told_and_not_summed(weir):
    whole = dumped(line("1"))
    code, rows, err = weir("a.jsonl", a=whole + whole[:80] + b"\n" + whole + dumped({"log": "ledger"}) * 6)
    assert (code, rows[-1][-4]) == (0, "2.000000")
    assert err.splitlines() == [
        *(
            f"weir ledger: a.jsonl:{number}: a line of a ledger that cannot be read; it is not summed"
            for number in (2, 4, 5, 6, 7)
        ),
        "weir ledger: 2 more lines cannot be read",
    ]


def test_a_line_without_an_end_does_not_fill_the_memory(weir, monkeypatch):
    monkeypatch.setattr(ledger, "LONGEST_LINE", 4096)
    assert weir("a.jsonl", a=b"x" * 100_000 + b"\n" + dumped(line("1")))[1][-1][-4] == "1.000000"


def test_a_compressed_file_that_ends_too_early_is_told(weir):
    data = gzip.compress(dumped(*[line("1")] * 1000))
    code, rows, err = weir("a.jsonl", a=data[:-20])
    assert (code, rows[-1][0]) == (0, "total")
    assert err == "weir ledger: a.jsonl: the compressed file ends too early; what came before is summed\n"


def test_a_ledger_of_nothing_but_feedback_is_one(weir):
    code, rows, err = weir("a.jsonl", "--by", "prompt_version", a=ACCESS + dumped(rating(0.25), rating(0.75)))
    assert (code, rows[0][-1], rows[1][0], rows[1][-1], err) == (0, "score", "v7", "0.500", "")


def test_requests_without_a_price_are_told(weir):
    _, _, err = weir("a.jsonl", a=dumped(line(None), line("1")))
    assert err == "weir ledger: 1 requests had no price: they are not in the cost\n"


REFUSED = {
    "no such file": (["none.jsonl"], b"", "cannot read none.jsonl: No such file or directory"),
    "a folder": (["."], b"", "cannot read .: Is a directory"),
    "no ledger": (["a.jsonl"], ACCESS, "no line of a ledger in a.jsonl; the metering plugin writes them, where its `ledger` says: to a file, or to standard output"),
    "another time": (["a.jsonl", "--since", "2027-01-01"], dumped(line()), "no line is of these days; the ledger goes from 2026-11-20 to 2026-11-20"),
    "a misspelt column": (["a.jsonl", "--by", "principl"], dumped(line()), "no line has a label 'principl', nor is it a column; did you mean 'principal'?"),
}  # fmt: skip


@pytest.mark.parametrize(("arguments", "data", "told"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_summed_is_told_with_what_to_do(weir, arguments, data, told):
    assert weir(*arguments, a=data) == (1, [], f"weir ledger: {told}\n")


@pytest.mark.parametrize(
    "arguments", [[], ["a", "--since", "yesterday"], ["a", "--by", "label:"], ["a", "--csv", "--json"]]
)
def test_a_wrong_command_says_how_it_is_used(arguments, capsys):
    with pytest.raises(SystemExit) as left:
        cli.main(["ledger", *arguments])
    assert (left.value.code, capsys.readouterr().err[:18]) == (2, "usage: weir ledger")


def test_progress_is_shown_on_a_terminal_when_it_takes_long(weir, monkeypatch):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    monkeypatch.setattr(ledger, "QUIET_SECONDS", 0.0)
    monkeypatch.setattr(ledger, "LOOK_EVERY", 1)
    _, rows, err = weir("a.jsonl", a=dumped(*[line("1")] * 3))
    assert rows[-1][-4] == "3.000000"
    assert err.startswith("\r1 lines, 0 of 0 MB")
    assert err.endswith("\r\x1b[K"), "it leaves the terminal as it was"
