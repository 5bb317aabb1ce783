import sys

import pytest

from tests.support.own_parts import CODE


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A working directory with the file of the documentation, outside of the repository."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])
    (tmp_path / "my_parts.py").write_text(CODE)
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if (getattr(sys.modules[name], "__file__", None) or "").startswith(str(tmp_path)):
            del sys.modules[name]
