"""The splits of a data set, by their names."""

import pytest

from triplet_jax import errors
from triplet_jax.data import named_splits


def test_splits_that_have_no_role_are_to_be_named():
    wanted = {"train": "train", "validation": "", "test": "test"}
    with pytest.raises(errors.InputError, match="name='x' has neither .* train_split='one\\+two'"):
        named_splits.roles("name='x'", ["one", "two"], wanted, needs_all=False)
    wanted["train"] = "one+two"
    found = named_splits.roles("name='x'", ["one", "two"], wanted, needs_all=False)
    assert found == {"one": "train", "two": "train"}
