"""Tables of near examples: made, kept in the run's folder, and gone on with."""

import numpy as np
import pytest

from experiments.run import offline_mining
from tests.support.configs import config
from triplet_jax import data, errors


def mining(folder, **fields):
    x, labels = np.arange(24, dtype=np.float32).reshape(12, 2), np.arange(12) // 4
    examples = data.Dataset(x, labels, np.full(12, "train"), tuple("abc"))
    offline = {"offline__every": 10, "offline__neighbours": 3}
    return offline_mining.OfflineMining(config(**offline | fields), folder, examples)


def test_a_table_is_kept_for_the_run_that_goes_on(tmp_path):
    made = mining(tmp_path)
    assert [step for step in range(25) if made.is_due(step)] == [10, 20]
    line = np.repeat(np.arange(12, dtype=np.float32)[:, None], 2, axis=1)
    near = made.mine(10, line)
    # Of classes of four on a line: the nearest of the next class, or of the one before.
    assert near[0].tolist() == [4, 5, 6] and near[11].tolist() == [7, 6, 5]
    again = mining(tmp_path)
    np.testing.assert_array_equal(again.at_start(14), near)
    assert again.at_start(5) is None and again.at_start(10) is None


def test_more_neighbours_than_examples_are_refused(tmp_path):
    with pytest.raises(errors.InputError, match="offline.neighbours=13 must be at most 12, the nu"):
        mining(tmp_path, offline__neighbours=13)
