"""What differs between two configs, by name and key only."""

import pytest

from proxy import config
from proxy.changes import changes, frozen

ONE = """
server: {drain_timeout: 5s}
upstreams: {a: {base_url: "http://a/v1", api_key: s3cret}, b: {base_url: "http://b/v1"}}
plugins: [guard, {mine: {use: guard, max_messages: 3}}]
routes: [{name: x, match: {path: /x}, targets: [a]}, {name: y, targets: [a, b]}]
"""


def told(tmp_path, *edits):
    texts = ONE
    for old, new in edits:
        assert old in texts
        texts = texts.replace(old, new)
    configs = []
    for text in (ONE, texts):
        file = tmp_path / "config.yaml"
        file.write_text(text)
        configs.append(config.load(file, {})[1])
    return changes(*configs), frozen(*configs)


@pytest.mark.parametrize(
    ("old", "new", "changed"),
    [
        ("s3cret", "s3cret", []),
        ("5s", "5000ms", []),
        ("5s", "6s", ["server: drain_timeout"]),
        ("s3cret", "s4cret", ["upstream 'a' changed: api_key"]),
        ("max_messages: 3", "max_messages: 4", ["plugin 'mine' changed: max_messages"]),
        (", max_messages: 3", "", ["plugin 'mine' changed: max_messages"]),
        (
            "[guard, {mine: {use: guard, max_messages: 3}}]",
            "[{mine: {use: guard, max_messages: 3}}, guard]",
            ["plugins in another order"],
        ),
        ("[guard, ", "[", ["plugin 'guard' removed"]),
        ("targets: [a, b]", "targets: [b]", ["route 'y' changed: targets"]),
        ("name: x", "name: z", ["route 'x' removed", "route 'z' added"]),
    ],
)
def test_what_changed(tmp_path, old, new, changed):
    assert told(tmp_path, (old, new)) == (changed, [])


def test_what_only_a_start_takes(tmp_path):
    edits = (
        ("drain_timeout: 5s", 'listen: ":1", admin: ":2", workers: 3'),
        ("upstreams:", "redis: redis://a\nupstreams:"),
    )
    assert told(tmp_path, *edits) == (
        ["server: listen", "server: admin", "server: workers", "server: drain_timeout", "redis"],
        ["server.listen", "server.admin", "server.workers", "redis"],
    )
