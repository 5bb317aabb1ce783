"""Data of .npz files."""

import pickle

import numpy as np
import pytest

from tests.support.image_folders import SPLIT
from triplet_jax import data, errors


def save_arrays(tmp_path, **arrays):
    path = tmp_path / "data.npz"
    np.savez(path, **arrays)
    return str(path)


def test_arrays_hold_features_or_images(tmp_path):
    y = np.repeat([10, 30], 8)
    features = data.arrays(save_arrays(tmp_path, x=np.ones((16, 5)), y=y), **SPLIT)
    assert features.inputs.dtype == np.float32
    assert features.class_names == ("10", "30")
    assert set(features.labels) == {0, 1}
    pixels = np.zeros((16, 6, 6, 1), np.uint8)
    assert data.arrays(save_arrays(tmp_path, x=pixels, y=y), **SPLIT).input_shape == (6, 6, 1)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"images": np.ones((4, 2)), "y": np.zeros(4, int)}, r"lacks \['x'\]"),
        ({"x": np.ones((0, 2)), "y": np.zeros(0, int)}, "x has no rows"),
        ({"x": np.ones((4, 2)), "y": np.zeros(4)}, "y has shape .4,. and dtype float64"),
        ({"x": np.ones((4, 2)), "y": np.zeros(3, int)}, "one for each of the 4 rows"),
        ({"x": np.ones((4, 2)), "y": np.zeros((4, 1), int)}, r"y .*.4, 1. .* x has shape .4, 2."),
        ({"x": np.ones((4, 2)), "y": np.array(["a"] * 3)}, r"y has shape .3,. and dtype <U1"),
        ({"x": np.ones((4, 2, 2)), "y": np.zeros(4, int)}, "x has shape .4, 2, 2."),
        ({"x": np.ones((4, 2, 2, 2), np.uint8), "y": np.zeros(4, int)}, "x has shape"),
        ({"x": np.array([[1.0], [np.nan]]), "y": np.zeros(2, int)}, "first is row 1"),
        ({"x": np.array([[1e39], [1.0]]), "y": np.zeros(2, int)}, "first is row 0"),
        ({"x": np.array([{}, {}]), "y": np.zeros(2, int)}, "cannot be read"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(arrays, message, tmp_path):
    with pytest.raises(errors.InputError, match=message):
        data.arrays(save_arrays(tmp_path, **arrays), **SPLIT)


@pytest.mark.parametrize(
    ("y", "names"),
    [
        (np.array(["emu", "cat"] * 8), ("cat", "emu")),
        (np.array([b"caf\xc3\xa9", b"tea"] * 8), ("caf\u00e9", "tea")),
        (np.array([b"caf\xe9", b"caf\xe8"] * 8), ("caf\\xe8", "caf\\xe9")),
        (np.array([True, False] * 8), ("False", "True")),
        (np.array([2**31 - 1, -5] * 8, ">i8"), ("-5", "2147483647")),
    ],
)
def test_labels_of_arrays_are_compared_and_nothing_else(y, names, tmp_path):
    found = data.arrays(save_arrays(tmp_path, x=np.ones((16, 5)), y=y), **SPLIT)
    assert found.class_names == names
    first = np.unique(y, return_inverse=True)[1]
    np.testing.assert_array_equal(found.labels, first)
    assert sorted(found.split) == ["test"] * 4 + ["train"] * 8 + ["validation"] * 4


def test_arrays_are_split_by_their_groups(tmp_path):
    y, group = np.repeat([0, 1], 12), np.tile(np.repeat(["a", "b", "c", "d"], 3), 2)
    by_group = SPLIT | {"split_by": "group"}
    path = save_arrays(tmp_path, x=np.arange(24.0)[:, None], y=y, group=group)
    found = data.arrays(path, **by_group)
    assert [len(set(group[found.split == split])) for split in data.SPLITS] == [2, 1, 1]
    lacking = save_arrays(tmp_path, x=np.ones((24, 1)), y=y)
    with pytest.raises(errors.InputError, match=r"lacks \['group'\]"):
        data.arrays(lacking, **by_group)
    short = save_arrays(tmp_path, x=np.ones((24, 1)), y=y, group=group[:5])
    with pytest.raises(errors.InputError, match=r"group has shape .5,."):
        data.arrays(short, **by_group)
    single = save_arrays(tmp_path, x=np.ones((24, 1)), y=y, group=y)
    with pytest.raises(errors.InputError, match="can hold out none of the 2 groups"):
        data.arrays(single, **by_group)


def test_arrays_may_say_their_splits_queries_and_categories(tmp_path):
    y, category = np.tile([3, 5, 7, 9], 6), np.tile(["round", "long", "round", "round"], 6)
    split = np.repeat([b"train", b"Val", b"query", b"gallery"], 6)
    given = {"x": np.arange(24.0)[:, None], "y": y, "split": split, "category": category}
    official = SPLIT | {"split_by": "official"}
    camera = np.arange(24) % 3
    found = data.arrays(save_arrays(tmp_path, **given, group=camera), **official)
    assert [(found.split == name).sum() for name in data.SPLITS] == [6, 6, 12]
    assert found.is_query.tolist() == [False] * 12 + [True] * 6 + [False] * 6
    assert found.groups.tolist() == [1, 0, 1, 1]
    np.testing.assert_array_equal(found.sessions, camera)
    with pytest.raises(errors.InputError, match=r"lacks \['split'\]"):
        data.arrays(save_arrays(tmp_path, x=given["x"], y=y), **official)
    with pytest.raises(errors.InputError, match="nothing for the split 'test', only for 'train'"):
        data.arrays(save_arrays(tmp_path, **given | {"split": ["train"] * 24}), **official)
    with pytest.raises(errors.InputError, match="classes have more than one category, such as '3'"):
        mixed = given | {"category": np.arange(24) // 3 % 2}
        data.arrays(save_arrays(tmp_path, **mixed), **official)


class Bomb:
    def __reduce__(self):
        return (pytest.fail, ("a pickle was run",))


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 no zip", pickle.dumps(Bomb())])
def test_files_that_are_no_npz_are_refused_and_not_run(content, tmp_path):
    path = tmp_path / "bad.npz"
    path.write_bytes(content)
    with pytest.raises(errors.InputError, match="cannot be read as an .npz"):
        data.arrays(str(path), **SPLIT)
