"""How hard an example is."""

import numpy as np

from triplet_jax.curricula import difficulty


def test_r_precision_of_each_example():
    # Two tight classes, and one example of class 0 among those of class 1.
    x = np.array([[0, 0], [0, 0.1], [0.1, 0], [5.0, 5], [5, 5.1], [5.1, 5], [5.05, 5.05]])
    labels = np.array([0, 0, 0, 1, 1, 1, 0])
    found = difficulty.r_precision(x, labels)
    np.testing.assert_allclose(found[[0, 1, 2]], 2 / 3)
    assert found[6] == 0
    assert difficulty.r_precision(x[:2], np.array([0, 1])).tolist() == [0, 0]


def test_classes_that_lie_near_each_other_are_of_one_group():
    labels = np.array([0, 0, 1, 1, 3, 3, 4, 4])  # no example of class 2
    x = np.array([0, 0.2, 9, 9.2, 0.4, 0.6, 9.4, 9.6])[:, None]
    found = difficulty.confusable(x, labels, groups=2)
    assert found.tolist() in ([0, 1, 0, 0, 1], [1, 0, 0, 1, 0])
    assert len(set(difficulty.confusable(x, labels, groups=9)[[0, 1, 3, 4]])) == 4
    assert difficulty.confusable(x[:2], labels[:2], groups=2).tolist() == [0]
