"""What is checked in as made is what it is made of, valid for every Kubernetes that it is for."""

import pytest

from tests.deploy.rendered import MADE, NEWEST, documents
from tests.deploy.tools import DEPLOY, run

CHECKED_IN = {name: (DEPLOY / name).read_text() for name in MADE}
VERSIONS = ("1.29", "1.33", NEWEST.removesuffix(".0"))


@pytest.mark.parametrize("name", MADE)
def test_it_is_what_it_is_made_of(name):
    made, checked_in = MADE[name](), CHECKED_IN[name]
    is_same = made == checked_in if name.endswith(".md") else documents(made) == documents(checked_in)
    assert is_same, "run `python -m tests.deploy.rendered --write`"


@pytest.mark.parametrize("name", [name for name in MADE if name.endswith(".yaml")])
def test_it_is_yaml_in_which_everything_has_a_kind_and_a_name(name):
    assert all(document["kind"] and document["metadata"]["name"] for document in documents(CHECKED_IN[name]))


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", [name for name in MADE if "rendered" in name])
def test_it_is_valid_by_the_real_schemas(name, version):
    run("kubernetes-validate", "-k", version, "--strict", DEPLOY / name)
