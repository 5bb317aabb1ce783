"""Where a file system does not answer, readers say so, and call no file damaged."""

import builtins
import errno
import os

import numpy as np
import pytest

from triplet_jax.data import (
    decoding,
    folder_layout,
    folder_listing,
    image_rows,
    table_files,
    tar_members,
)
from triplet_jax.runs import files

READERS = {
    "decode": lambda path: decoding.decode(str(path), least=1, background=0, max_pixels=100),
    "upright_size": lambda path: decoding.upright_size(str(path)),
    "members": lambda path: list(tar_members.members(str(path))),
    "pieces": lambda path: tar_members.Pieces([str(path)], np.r_[0], np.r_[0], np.r_[1])[0],
    "table": lambda path: table_files.read(str(path.with_suffix(".csv")), ["label"]),
    "arrays": lambda path: files.names_of_arrays(str(path)),
    "layout": lambda path: folder_layout.layout_of(path.parent),
    "listing": lambda path: folder_listing.find(path.parent, folder_layout.Layout()),
}


@pytest.mark.parametrize("reader", READERS)
def test_the_error_of_the_file_system_is_raised(reader, tmp_path, monkeypatch):
    path = tmp_path / "classes" / "file"
    path.parent.mkdir()
    path.with_suffix(".csv").write_text("label\n1\n")
    path.write_bytes(b"12")
    opened = builtins.open

    def fail(name, *args, **kwargs):
        if not str(name).startswith(str(tmp_path)):
            return opened(name, *args, **kwargs)
        raise OSError(errno.ESTALE, "Stale file handle", str(name))

    monkeypatch.setattr(builtins, "open", fail)
    monkeypatch.setattr("io.open", fail)  # which pathlib, tarfile and zipfile call
    monkeypatch.setattr(os, "listdir", fail)
    monkeypatch.setattr(os, "scandir", fail)
    with pytest.raises(OSError, match="Stale") as raised:
        READERS[reader](path)
    assert raised.value.errno == errno.ESTALE


@pytest.mark.parametrize("reader", ["table", "arrays", "images"])
def test_a_file_that_cannot_be_looked_up_is_not_called_missing(reader, tmp_path, monkeypatch):
    readers = READERS | {
        "images": lambda path: image_rows.kept("t.csv", path.parent, ["file"], "skip", 100)
    }
    look_up = os.stat

    def fail(name, *args, **kwargs):
        if not str(name).startswith(str(tmp_path)):
            return look_up(name, *args, **kwargs)
        raise OSError(errno.ESTALE, "Stale file handle", str(name))

    monkeypatch.setattr(os, "stat", fail)
    with pytest.raises(OSError, match="Stale"):
        readers[reader](tmp_path / "file")
