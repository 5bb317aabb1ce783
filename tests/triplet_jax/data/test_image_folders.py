"""A folder of images has a class for each of its folders."""

import os
import shutil

import numpy as np
import pytest

from tests.support.image_folders import FORM, fold
from triplet_jax import data, errors
from triplet_jax.data import images


def test_a_folder_has_a_class_for_each_folder(class_folders):
    found = fold(class_folders)
    assert found.class_names == ("cat", "dog", "emu")
    np.testing.assert_array_equal(np.bincount(found.labels), [4, 4, 4])
    assert images.load(found.inputs).shape == (12, 8, 8, 3)
    assert [len(found.only(split)) for split in data.SPLITS] == [6, 3, 3]
    means = images.load(found.inputs).mean(axis=(1, 2, 3))
    np.testing.assert_allclose(means, 80 * found.labels, atol=2)


def test_files_that_are_no_images_are_listed_and_refused(class_folders):
    (class_folders / "cat" / "notes.txt").write_text("hello")
    (class_folders / "dog" / "broken.png").write_bytes(b"\x89PNG not really")
    whole = (class_folders / "emu" / "0.jpg").read_bytes()
    (class_folders / "emu" / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(errors.InputError) as refused:
        fold(class_folders)
    message = str(refused.value)
    assert "3 of 15 files cannot be read" in message
    assert all(name in message for name in ("notes.txt", "broken.png", "cut.jpg"))
    assert "bad_images='skip'" in message
    found = fold(class_folders, bad_images="skip")
    assert len(found) == 12
    assert "notes.txt cannot be read as an image: is no .jpg" in found.notes[0]
    assert "broken.png cannot be read as an image: it is none of" in found.notes[0]


def test_an_image_of_another_kind_is_given_to_no_program(tmp_path, monkeypatch):
    """Pillow has PostScript drawn by Ghostscript, whatever the file is named."""
    (tmp_path / "gs").write_text(f"#!/bin/sh\ntouch {tmp_path}/was_run\n")
    (tmp_path / "gs").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    file = tmp_path / "images" / "cat" / "x.png"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n%%EOF\n")
    for read in (lambda: fold(tmp_path / "images"), lambda: FORM.read(str(file))):
        with pytest.raises(errors.InputError, match="none of JPEG, PNG"):
            read()
    assert not (tmp_path / "was_run").exists()


def test_hidden_files_are_passed_over(class_folders):
    (class_folders / "cat" / ".DS_Store").write_text("")
    (class_folders / ".git").mkdir()
    copies = class_folders / "cat" / ".ipynb_checkpoints"
    copies.mkdir()
    shutil.copy(class_folders / "cat" / "0.jpg", copies / "0-checkpoint.jpg")
    assert len(fold(class_folders)) == 12


@pytest.mark.parametrize("where", ["", "missing", "empty"])
def test_folders_without_images_are_refused(where, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(errors.InputError, match="path="):
        fold(tmp_path / where if where else "")
