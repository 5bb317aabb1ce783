"""What is held out: whole units, by the seed alone."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from triplet_jax import data, errors
from triplet_jax.data import splits


@pytest.mark.parametrize("by", ["image", "class", "group"])
def test_hold_out_takes_whole_units(by):
    labels = np.repeat(np.arange(10), 20)
    groups = np.arange(10) // 2
    held = data.hold_out(labels, 0.4, by=by, seed=0, groups=groups)
    assert held.sum() == 80
    if by == "image":
        assert (np.bincount(labels[held]) == 8).all()
    else:
        assert len(set(labels[held])) == 4
        assert not set(labels[held]) & set(labels[~held])
    if by == "group":
        assert len(set(groups[labels[held]])) == 2


def test_hold_out_by_image_leaves_one_of_every_class():
    labels = np.array([0, 1, 1, 2, 2, 2])
    held = data.hold_out(labels, 0.9, by="image", seed=0)
    assert np.bincount(labels[held], minlength=3).tolist() == [0, 1, 2]


def test_hold_out_depends_on_the_seed_alone():
    labels = np.repeat(np.arange(10), 20)
    first, again, other = (data.hold_out(labels, 0.5, by="image", seed=s) for s in (0, 0, 1))
    assert (first == again).all()
    assert (first != other).any()


@pytest.mark.parametrize(
    ("fraction", "by", "message"),
    [
        (1.0, "class", r"fraction=1\.0 must be at least 0 and below 1"),
        (-0.5, "image", r"fraction=-0\.5"),
        (float("nan"), "image", "fraction=nan"),
        (0.5, "classes", "by='classes' is not known.* class"),
        (0.5, "group", "by='group' needs groups"),
    ],
)
def test_hold_out_refuses_what_it_cannot_do(fraction, by, message):
    with pytest.raises(errors.InputError, match=message):
        data.hold_out(np.repeat(np.arange(4), 3), fraction, by=by, seed=0)


@pytest.mark.parametrize(
    ("shares", "message"),
    [
        ((-0.1, 0.0), r"test=-0\.1 is no share"),
        ((1.0, 0.0), r"test=1\.0 is no share .* below 1"),
        ((0.0, float("nan")), "validation=nan is no share"),
        ((0.6, 0.6), r"test=0\.6 and validation=0\.6 leave nothing to train on"),
        ((0.5, 0.5), "together they must be below 1"),
    ],
)
def test_shares_that_leave_nothing_or_are_none_are_refused(shares, message):
    labels, held_out = np.repeat(np.arange(10), 10), data.HeldOut(*shares, seed=0)
    for by in ("image", "class"):
        with pytest.raises(errors.InputError, match=message):
            splits.at_random(labels, held_out, by=by)
    with pytest.raises(errors.InputError, match=message):
        splits.of_groups(labels, np.arange(100), held_out)


def test_where_the_test_is_given_its_share_is_not_read():
    labels, is_test = np.repeat(np.arange(10), 10), np.arange(100) % 2 == 0
    split = splits.with_test(labels, is_test, data.HeldOut(1.0, 0.2, seed=0))
    assert [(split == name).sum() for name in data.SPLITS] == [40, 10, 50]
    with pytest.raises(errors.InputError, match="validation=2 is no share"):
        splits.with_test(labels, is_test, data.HeldOut(0.0, 2, seed=0))


@given(
    st.lists(st.tuples(st.integers(0, 4), st.integers(0, 8)), min_size=1, max_size=60),
    st.sampled_from([0.0, 0.2, 0.5]),
    st.sampled_from([0.0, 0.1, 0.4]),
)
def test_no_group_stands_on_both_sides_of_a_split(pairs, test_fraction, validation_fraction):
    labels, groups = np.array(pairs).T
    names = np.array([f"session {g}" for g in groups])
    held_out = data.HeldOut(test_fraction, validation_fraction, seed=3)
    split = splits.of_groups(labels, names, held_out)
    for g in range(9):
        assert len(set(split[groups == g])) <= 1
    assert set(labels[split == "train"]) == set(labels), "training has every class"
    if not test_fraction:
        assert "test" not in split


@pytest.mark.parametrize("shared", [False, True])
def test_groups_are_held_out_of_every_class(shared):
    labels = np.repeat(np.arange(10), 50)
    sessions = np.tile(np.repeat(np.arange(10), 5), 10)
    groups = sessions if shared else sessions + 10 * labels
    held_out = data.HeldOut(0.2, 0.1, seed=0)
    split = splits.of_groups(labels, groups, held_out)
    for c in range(10):
        counts = [(split[labels == c] == name).sum() for name in data.SPLITS]
        assert counts == [35, 5, 10]
    again, other = (
        splits.of_groups(labels, groups, held_out._replace(seed=seed)) for seed in (0, 1)
    )
    assert (again == split).all() and (other != split).any()
