"""What tests of deploy/ share: `weir check` of a config that will lie in a container."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from proxy import cli
from tests.deploy.tools import ROOT

if TYPE_CHECKING:
    import pathlib
    from collections.abc import Callable, Mapping


@pytest.fixture
def checked(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> Callable[[Mapping[str, str]], str]:
    """What `weir check` says to these files, with the image's price list and the Secret in their places."""
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "OPENAI_API_KEY").write_text("sk-1")
    places = {"/etc/weir/": f"{ROOT}/config/", "/secrets/": f"{tmp_path}/secrets/"}

    def check(files: Mapping[str, str]) -> str:
        for name, text in files.items():
            for inside, here in places.items():
                text = text.replace(inside, here)  # noqa: PLW2901
            (tmp_path / name).write_text(text)
        status = cli.main(["check", str(tmp_path / "config.yaml")])
        said = capsys.readouterr()
        assert status == 0, said.err
        return said.err

    return check
