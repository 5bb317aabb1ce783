"""Random damage to the files of a gallery: it is built anew, and nothing is raised.

FUZZ=1000 looks at a quarter as many, of each kind.
"""

import shutil

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from tests.experiments.run.test_damaged_files import EXAMPLES, damages, fuzzed
from tests.experiments.run.test_galleries import DIM, Encoder, followed, paint
from tests.support import limits
from triplet_jax.evaluation import gallery
from triplet_jax.runs import seal

few = hypothesis.settings(fuzzed, max_examples=EXAMPLES // 4)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder of images, its gallery, and the rows of that."""
    root = tmp_path_factory.mktemp("made")
    for i in range(6):
        paint(root / "images" / str(i % 2) / f"{i}.png", 40 * i)
    (root / "place").mkdir()
    return root, followed(root / "place", root / "images")


@pytest.fixture(scope="module")
def old(made):
    """One that was never sealed, with the files of several changes."""
    root, rows = made
    (root / "old").mkdir()
    found = gallery.Gallery(root / "old", dim=DIM)
    for i in range(3):
        some = rows[2 * i : 2 * i + 2]
        found.put(list(some.path), list(some.label), list(some.mark), np.stack(some.vector))
    found.remove([rows.path[0]])
    return root / "old"


def damaged(place, copy, drawn):
    """A copy of a gallery with one to three of its files damaged or gone."""
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(place, copy)
    files = sorted(file for file in copy.rglob("*") if file.is_file() and file.name != ".lock")
    for file in drawn.draw(st.lists(st.sampled_from(files), min_size=1, max_size=3, unique=True)):
        if drawn.draw(st.integers(0, 5)) == 0 and file.name != seal.NAME:
            file.unlink()
        else:
            file.write_bytes(drawn.draw(damages())(file.read_bytes()))
    return copy


@few
@hypothesis.given(drawn=st.data())
def test_a_damaged_gallery_is_built_anew_with_the_right_rows(drawn, made):
    root, right = made
    copy = damaged(root / "place", root / "copy", drawn)
    with limits.fails_after(60):
        rows = followed(copy, root / "images")
    assert list(rows.path) == list(right.path) and list(rows.label) == list(right.label)
    assert list(rows.mark) == list(right.mark)
    np.testing.assert_equal(np.stack(rows.vector), np.stack(right.vector))


@few
@hypothesis.given(drawn=st.data())
def test_a_damaged_gallery_without_a_seal_ends_with_all_images(drawn, made, old):
    """Bytes that changed within a row cannot be told from the right ones without a seal."""
    root, right = made
    copy = damaged(old, root / "copy", drawn)
    with limits.fails_after(60):
        rows = followed(copy, root / "images", Encoder())
    assert list(rows.path) == list(right.path)
