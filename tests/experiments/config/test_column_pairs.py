"""Pairs of columns as fields and flags name them, and from there to a data set."""

import pytest

from experiments.config import check, column_pairs
from tests.support.configs import config
from triplet_jax import errors

TABLE = {"dataset__name": "table", "dataset__path": "fruit.csv"}


def test_one_column_serves_for_both():
    found = column_pairs.parse("--ignore", ["camera", "day=filmed"])
    assert found == (("camera", "camera"), ("day", "filmed"))


@pytest.mark.parametrize("text", ["", "a=", "=b", "a=b=c", 3])
def test_what_is_no_pair_is_refused(text):
    with pytest.raises(errors.InputError, match=r"--ignore=camera,.* write COLUMN, or QUERY_"):
        column_pairs.parse("--ignore", ["camera", text])


def test_a_config_that_says_twice_what_is_left_out_is_refused():
    fields = TABLE | {"dataset__ignore_columns": ("camera", "day=filmed")}
    check.check(config(**fields))
    with pytest.raises(errors.InputError, match="add 'group' to it, and set evaluate.ignore_group"):
        check.check(config(**fields, evaluate__ignore_group=True))
    with pytest.raises(errors.InputError, match=r"dataset.ignore_columns=a=b=c holds 'a=b=c'"):
        check.check(config(**TABLE, dataset__ignore_columns=("a=b=c",)))
