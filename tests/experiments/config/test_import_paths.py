"""Functions by their import paths, and the files that define them."""

import sys
import types

import pytest

from experiments.config import import_paths
from triplet_jax import errors


def test_a_path_is_told_from_the_names_of_libraries():
    for name in ("my_parts:nth_band", "a.b.c:D", "_x:_y"):
        assert import_paths.is_path(name)
    for name in (
        "omniglot:3.0.0",
        "omniglot/split:1.0.0",
        "semi_hard",
        "a:b:c",
        "a-b:c",
        ":c",
        "",
        3,
    ):
        assert not import_paths.is_path(name)


def test_the_hash_is_of_the_file_that_defines_the_function(place):
    (place / "kit").mkdir()
    (place / "kit" / "__init__.py").write_text(
        "import functools\nfrom kit import miners\n"
        "half = functools.partial(miners.mine, band=0.5)\n"
    )
    (place / "kit" / "miners.py").write_text("def mine(a, b, c, d, *, band=1.0): ...\n")
    assert import_paths.source("kit:half") == place / "kit" / "miners.py"
    before = import_paths.digest("kit:half")
    (place / "kit" / "miners.py").write_text("def mine(a, b, c, d, *, band=2.0): ...\n")
    assert import_paths.digest("kit:half") != before


def test_a_part_without_a_file_of_its_own_has_that_of_its_module_or_none(place):
    (place / "kit.py").write_text("class Miner:\n    def __call__(self, a): ...\nmine = Miner()\n")
    assert import_paths.source("kit:mine") == place / "kit.py"
    assert import_paths.source("builtins:print") is None
    assert import_paths.digest("builtins:print") is None


def test_what_is_no_path_to_a_function_is_refused(monkeypatch):
    monkeypatch.setitem(sys.modules, "nowhere_from", types.ModuleType("nowhere_from"))
    for path, words in (
        ("nth_band", "'nth_band' is no import path, such as 'my_parts:nth_band'"),
        ("nowhere_from:x", "'nowhere_from:x': there is no module 'nowhere_from'"),
        ("builtins:type", "'builtins:type' does not say which arguments it takes"),
    ):
        with pytest.raises(errors.InputError, match=words):
            import_paths.function(path)
