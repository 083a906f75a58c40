"""`weir keys new`: the key, once, and the line for the config, which lets the key in."""

import hashlib
import re

import pytest
import yaml

from proxy import cli, testing
from proxy.keys import entry, new_key

TEXT = """
server: {{listen: "127.0.0.1:0", admin: "127.0.0.1:0"}}
upstreams: {{up: {{base_url: "{url}/v1"}}}}
routes: [{{name: default, targets: [up]}}]
plugins:
  - auth:
      keys:
        {line}
"""


def made(capsys, *arguments):
    assert cli.main(["keys", "new", *arguments]) == 0
    printed, errors = capsys.readouterr()
    assert errors == ""
    key, line = printed.splitlines()
    return key, line


def test_the_key_and_its_line(capsys):
    key, line = made(capsys, "search-team")
    assert re.fullmatch(r"weir-[A-Za-z0-9_-]{43}", key)
    assert line == f'- {{name: "search-team", sha256: "{hashlib.sha256(key.encode()).hexdigest()}"}}'


def test_no_key_is_like_another():
    assert len({new_key() for _ in range(100)}) == 100


def test_labels_and_expiry_stand_in_the_line(capsys):
    _, line = made(capsys, "a", "--label", "feature=search", "--label", "cost=4711", "--expires", "2027-01-31")
    [parsed] = yaml.safe_load(line)
    assert list(parsed) == ["name", "sha256", "labels", "expires"]
    assert parsed["labels"] == {"feature": "search", "cost": "4711"}
    assert parsed["expires"] == "2027-01-31"


@pytest.mark.parametrize(
    "name", ["search-team", "123", "1e3", "null", "true", "-", ".", "0x1F", "2027-01-31", "_9.a-b"]
)
async def test_the_line_lets_the_key_in(name, capsys):
    odd = "label=a: b, {c} #d \"e\" 'f' \\ ${HOME} $$ é"
    key, line = made(capsys, "--label", odd, "--expires", "2999-12-31T23:59:59Z", "--", name)
    async with (
        testing.upstream(testing.chat("hi")) as upstream,
        testing.configured(TEXT.format(url=upstream.url, line=line)) as weir,
    ):
        answers = [await testing.ask(weir, {}, headers={"authorization": f"Bearer {text}"}) for text in (key, key[:-1])]
        [plugin] = weir.plan.plugins
    assert [answer.status for answer in answers] == [200, 401]
    [known] = plugin.config.keys
    assert (known.name, known.labels) == (name, {"label": odd.partition("=")[2]})


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["a b"], "argument NAME: 'a b' is not a name; write 1 to 64 letters, digits, '_', '.' or '-'"),
        (["a" * 65], "is not a name"),
        (["a", "--expires", "soon"], "argument --expires: 'soon' is not a date; write it as in 2027-01-31"),
        (["a", "--expires", "2027-01-31T12:00"], "has no time zone; end it with Z"),
        (["a", "--expires", "2020-01-31"], "argument --expires: '2020-01-31' is over: the key would let nobody in"),
        (["a", "--label", "feature"], "argument --label: 'feature' has no value; write it as in feature=search"),
        (["a", "--label", "feature="], "argument --label: is empty, longer than 256 characters"),
        (["a", "--label", "a b=c"], "argument --label: 'a b' is not a name"),
        ([], "the following arguments are required: NAME"),
    ],
)
def test_what_the_config_would_refuse_makes_no_key(arguments, said, capsys):
    with pytest.raises(SystemExit) as left:
        cli.main(["keys", "new", *arguments])
    told = capsys.readouterr()
    assert (left.value.code, told.out) == (2, "")
    assert said in told.err


def test_only_the_hash_is_written_down():
    assert "sesame" not in entry("sesame", "a", {}, None)
