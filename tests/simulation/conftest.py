"""Worker processes must find the fakes: they get this process's `sys.path`."""

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def importable_fakes(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2]))
