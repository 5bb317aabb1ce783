"""A seal tells of every change to a folder."""

import pytest

from triplet_jax.runs import seal


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "below").mkdir()
    (tmp_path / "a").write_text("one")
    (tmp_path / "below" / "b").write_text("two")
    seal.close(tmp_path)
    return tmp_path


def test_a_sealed_folder_has_no_fault(folder):
    assert seal.is_closed(folder)
    assert seal.fault(folder) == ""


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda folder: (folder / "below" / "b").write_text("tow"), "below/b has changed"),
        (lambda folder: (folder / "a").unlink(), "a is gone"),
        (lambda folder: (folder / "c").write_text(""), "c was added"),
        (lambda folder: (folder / seal.NAME).write_text("{"), "seal.json cannot be read"),
        (lambda folder: (folder / seal.NAME).write_text('{"files": 1}'), "holds no digests"),
    ],
)
def test_every_change_is_named(folder, change, fault):
    change(folder)
    assert seal.fault(folder).endswith(fault)


def test_without_a_seal_nothing_is_at_fault(folder):
    seal.open(folder)
    (folder / "a").unlink()
    assert not seal.is_closed(folder)
    assert seal.fault(folder) == ""
