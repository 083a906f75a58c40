"""What `auth` may be told, and in which words it refuses the rest; a key that was pasted is never repeated."""

import pathlib

import pytest

from proxy import cli

from .house import KEY, digest

HASH = digest(KEY)
PASTED = (
    "is not a SHA-256; if it is the key itself, count it as leaked; "
    "write the 64 hexadecimal digits that `weir keys new` prints, in quotes"
)
HEAD = """upstreams: {up: {base_url: "https://api.example.com/v1"}}
routes: [{name: default, targets: [up]}]
plugins:
"""
JWT = "  - auth: {jwt: {jwks: https://login.example.com/jwks, issuer: https://login.example.com/, audience: weir%s}}\n"


@pytest.fixture
def check(tmp_path, monkeypatch, capsys):
    """What `weir check` says of these plugins, which begin in line 4."""
    monkeypatch.chdir(tmp_path)

    def run(plugins: str) -> str:
        pathlib.Path("config.yaml").write_text(HEAD + plugins)
        code = cli.main(["check", "config.yaml"])
        said = capsys.readouterr()
        assert (code == 0) == (not said.err)
        assert KEY not in said.err
        return said.err

    return run


def one(text: str) -> str:
    return f"  - auth:\n      keys:\n        - {{{text}}}\n"


@pytest.mark.parametrize(
    "plugins",
    [
        one(f'name: a, sha256: "{HASH}"'),
        one(f"name: a, sha256: {HASH}"),
        one(f'name: a.b-c_9, sha256: "{HASH.upper()}", labels: {{feature: search, cost-center: "4711"}}'),
        one(f'name: a, sha256: "{HASH}", expires: 2027-01-31'),
        one(f'name: a, sha256: "{HASH}", expires: 2027-01-31T00:00:00Z'),
        one(f'name: a, sha256: "{HASH}", expires: 2027-01-31 00:00+02:00'),
        one(f'name: a, sha256: "{HASH}", expires: 2020-01-01'),
        one(f'name: a, sha256: "{HASH}", models: ["gpt-4o*"], routes: [default, nowhere]'),
        JWT % "",
        JWT % ", algorithms: [EdDSA], leeway: 0s, require: []",
        JWT.replace("weir%", "[weir, other]%") % "",
    ],
)
def test_what_is_taken(check, plugins):
    assert check(plugins) == ""


@pytest.mark.parametrize(
    ("plugins", "said"),
    [
        ("  - auth\n", "4 plugins[0].auth: it would refuse everything; add keys, a keys_file or jwt; "),
        ("  - auth: {keys: []}\n", "4 plugins[0].auth: it would refuse everything; "),
        (
            f'  - auth: {{keys: [{{name: a, sha256: "{HASH}"}}], failure_mode: open}}\n',
            "4 plugins[0].auth.failure_mode: auth that fails open lets everybody in; remove it\n",
        ),
        (
            one(f"name: a, sha256: {KEY}"),
            f"6 plugins[0].auth.keys[0].sha256: {PASTED}\n",
        ),
        (one(f"name: a, sha256: {HASH[:63]}"), "6 plugins[0].auth.keys[0].sha256: is not a SHA-256; "),
        (one(f"name: a, sha256: {HASH}0"), "6 plugins[0].auth.keys[0].sha256: is not a SHA-256; "),
        (one("name: a, sha256: [x]"), "6 plugins[0].auth.keys[0].sha256: is not a SHA-256; "),
        (one("name: a"), "6 plugins[0].auth.keys[0].sha256: missing key 'sha256'; "),
        (one(f'name: "a b", sha256: "{HASH}"'), "6 plugins[0].auth.keys[0].name: 'a b' is not a name; "),
        (one(f'name: a, sha256: "{HASH}", key: {KEY}'), "6 plugins[0].auth.keys[0].key: unknown key 'key'; "),
        (f"  - auth: {{keys: [{KEY}]}}\n", "4 plugins[0].auth.keys[0]: must be a mapping, not text; "),
        (f"  - auth: {{keys: {KEY}}}\n", "4 plugins[0].auth.keys: must be a list, not text; "),
        (
            one(f'name: a, sha256: "{HASH}"}}\n        - {{name: a, sha256: "{digest("b")}"'),
            "7 plugins[0].auth.keys[1]: another key is named 'a'; give it a name of its own\n",
        ),
        (
            one(f'name: a, sha256: "{HASH}"}}\n        - {{name: b, sha256: "{HASH.upper()}"'),
            "7 plugins[0].auth.keys[1]: is the key of 'a'; make one of its own\n",
        ),
        (one(f'name: a, sha256: "{HASH}", models: []'), "6 plugins[0].auth.keys[0].models: must have 1 or more"),
        (one(f'name: a, sha256: "{HASH}", routes: []'), "6 plugins[0].auth.keys[0].routes: must have 1 or more"),
        (one(f'name: a, sha256: "{HASH}", expires: soon'), "6 plugins[0].auth.keys[0].expires: 'soon' is not a date; "),
        (
            one(f'name: a, sha256: "{HASH}", labels: {{feature: 7}}'),
            "6 plugins[0].auth.keys[0].labels.feature: must be text, not a number; put it in quotes\n",
        ),
        ("  - auth: {keys_file: none.yaml}\n", "4 plugins[0].auth.keys_file: 'none.yaml' is not a file that exists; "),
        ("  - auth: {jwt: {}}\n", "4 plugins[0].auth.jwt.jwks: missing key 'jwks'; add `jwks: https://"),
        ("  - auth: {jwt: {}}\n", "4 plugins[0].auth.jwt.issuer: missing key 'issuer'; "),
        ("  - auth: {jwt: {}}\n", "4 plugins[0].auth.jwt.audience: missing key 'audience'; add `audience: weir`\n"),
        (JWT % ", algorithms: [none]", "4 plugins[0].auth.jwt.algorithms[0]: 'none' is not valid here; "),
        (JWT % ", algorithms: [HS256]", "4 plugins[0].auth.jwt.algorithms[0]: 'HS256' is not valid here; "),
        (JWT % ", algorithms: []", "4 plugins[0].auth.jwt.algorithms: must have 1 or more entries"),
        (JWT % ", refresh: 0s", "4 plugins[0].auth.jwt.refresh: no time at all would ask without a pause; "),
        (JWT.replace("weir%", "[]%") % "", "4 plugins[0].auth.jwt.audience: must have 1 or more entries"),
        (JWT.replace("weir%", '""%') % "", "4 plugins[0].auth.jwt.audience: must have 1 or more characters"),
        (
            JWT.replace("https://login.example.com/jwks", "jwks.json") % "",
            "4 plugins[0].auth.jwt.jwks: 'jwks.json' is not a file that exists; ",
        ),
    ],
)
def test_what_is_refused(check, plugins, said):
    assert f"config.yaml:{said}" in check(plugins)


@pytest.mark.parametrize(
    "url", ["ftp://a/k", "file:///etc/passwd", "https://", "https://a:b@c/k", "https://a:99999/k", '"https://a/ b"']
)
def test_where_keys_cannot_be_fetched_from(check, url):
    assert "jwt.jwks: is no URL to fetch keys from; " in check(JWT.replace("https://login.example.com/jwks", url) % "")


def test_the_keys_file_is_checked_with_its_own_lines(check):
    pathlib.Path("keys.yaml").write_text(f"keys:\n  - name: a\n    sha256: {KEY}\n")
    assert check("  - auth: {keys_file: keys.yaml}\n") == (
        f"config.yaml:4 plugins[0].auth.keys_file: keys.yaml:3 keys[0].sha256: {PASTED}\n"
    )


def test_a_hash_without_letters_is_a_number_to_yaml(check):
    pathlib.Path("keys.yaml").write_text("keys:\n  - name: a\n    sha256: " + "1234" * 16)
    said = "keys.yaml:3 keys[0].sha256: is a number to YAML; put the 64 digits in quotes"
    assert said in check("  - auth: {keys_file: keys.yaml}\n")


def test_a_key_file_beside_keys(check):
    pathlib.Path("keys.yaml").write_text(f'keys:\n  - {{name: b, sha256: "{HASH}"}}\n')
    said = check(f'  - auth: {{keys: [{{name: a, sha256: "{HASH}"}}], keys_file: keys.yaml}}\n')
    assert (
        said == "config.yaml:4 plugins[0].auth.keys_file: keys.yaml:2 keys[0]: is the key of 'a'; make one of its own\n"
    )


def test_a_hash_without_quotes_that_is_all_digits_is_told(tmp_path, capsys):
    file = tmp_path / "config.yaml"
    file.write_text(
        "upstreams: {up: {base_url: 'http://127.0.0.1:1/v1'}}\nroutes: [{name: r, targets: [up]}]\n"
        f"plugins: [{{auth: {{keys: [{{name: a, sha256: {'1' * 64}}}]}}}}]\n"
    )
    assert cli.main(["check", str(file)]) == 1
    assert "put the 64 digits in quotes" in capsys.readouterr().err
