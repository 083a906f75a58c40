"""Files are looked at often here, so that a test need not wait a second."""

import pytest

from proxy.watch import Watch


@pytest.fixture(autouse=True)
def quick_watch(monkeypatch):
    monkeypatch.setattr(Watch.__init__, "__defaults__", (0.01,))
