"""The pairs of Labeled Faces in the Wild: a small file of the published form, and damaged ones."""

import numpy as np
import pytest

from triplet_jax import data, errors

PARTS = data.PairCounts(folds=2, of_each_kind=2)
LINES = [
    "2\t2",
    "Ann_Lee\t1\t2",
    "Bob\t1\t4",
    "Ann_Lee\t2\tBob\t4",
    "Bob\t1\tCid\t1",
    "Dan\t1\t2",
    "Dan\t2\t12",
    "Dan\t1\tEve\t1",
    "Dan\t2\tEve\t1",
]
IMAGES = {"Ann_Lee": (1, 2), "Bob": (1, 4), "Cid": (1,), "Dan": (1, 2, 12), "Eve": (1,)}


@pytest.fixture
def lfw(tmp_path):
    """The file and the folder of images."""

    def write(lines=LINES):
        path = tmp_path / "pairs.txt"
        path.write_text("\n".join(lines) + "\n")
        return str(path)

    for name, numbers in IMAGES.items():
        for number in numbers:
            image = tmp_path / "lfw" / name / f"{name}_{number:04}.jpg"
            image.parent.mkdir(parents=True, exist_ok=True)
            image.touch()
    return write, tmp_path / "lfw"


def test_pairs_folds_and_images_are_read(lfw):
    write, root = lfw
    found = data.lfw_pairs(write(), root=str(root), parts=PARTS)
    names = np.array(found.images)[found.pairs]
    assert names[[0, 3]].tolist() == [
        ["Ann_Lee/Ann_Lee_0001.jpg", "Ann_Lee/Ann_Lee_0002.jpg"],
        ["Bob/Bob_0001.jpg", "Cid/Cid_0001.jpg"],
    ]
    assert names[5, 1] == "Dan/Dan_0012.jpg"
    assert len(found.images) == len(set(found.images)) == 9
    assert found.is_same.tolist() == [True, True, False, False] * 2
    assert found.folds.tolist() == [0] * 4 + [1] * 4


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda lines: ["10\t300", *lines[1:]], r"line 1 is '10\\t300' instead of '2 2'"),
        (lambda lines: lines[1:], "line 1 is .*instead of '2 2'"),
        (lambda lines: lines[:-1], "fold 2 has 1 pairs of two people instead of 2: line 9 is ''"),
        (
            lambda lines: lines[:2] + lines[3:],
            "fold 1 has 1 pairs of one person instead",
        ),
        (lambda lines: [*lines, lines[1]], "has 1 lines after the last of 2 folds, from line 10"),
        (
            lambda lines: [*lines[:-1], "Dan\t2\tEve\tx"],
            "line 9 .* must be the numbers of images",
        ),
        (lambda lines: [lines[0], "Bob\t1\t1", *lines[2:]], "line 2 .* an image with itself"),
        (lambda lines: [*lines[:-1], "Dan\t2\tDan\t1"], "line 9 is .*compares one person as two"),
    ],
)
def test_other_files_are_refused_by_line_and_fold(lfw, change, message):
    with pytest.raises(errors.InputError, match=message):
        data.lfw_pairs(lfw[0](change(LINES)), parts=PARTS)


def test_a_part_of_the_download_is_refused(lfw):
    write, root = lfw
    with pytest.raises(errors.InputError, match="line 1 is .* instead of '10 300'"):
        data.lfw_pairs(write())
    (root / "Dan" / "Dan_0012.jpg").unlink()
    with pytest.raises(errors.InputError, match="lacks 1 of 9 images of the pairs: 'Dan/Dan_0012"):
        data.lfw_pairs(write(), root=str(root), parts=PARTS)
    with pytest.raises(errors.InputError, match="root='nowhere' is not a folder"):
        data.lfw_pairs(write(), root="nowhere", parts=PARTS)
    with pytest.raises(errors.InputError, match="is not a file. Give the file pairs.txt"):
        data.lfw_pairs(str(root), parts=PARTS)
