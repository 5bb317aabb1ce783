import math

import pytest

from triplet_jax.runs import health


def row(step=1, **changes):
    return {
        "step": step,
        "loss": 0.05,
        "mean_d_an": 0.9,
        "embedding_norm": 1.0,
        "embedding_spread": 0.8,
        "learning_rate": 1e-3,
    } | changes


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_numbers_that_are_not_finite_stop_the_run(value):
    health.check_finite(row())
    with pytest.raises(health.NotFiniteError, match="Step 7 .*loss=.* learning rate 0.001"):
        health.check_finite(row(7, loss=value))


def test_a_spread_near_zero_is_a_collapse():
    rows = [row(i, embedding_spread=0.01) for i in range(health.ROWS)]
    assert "spread is 1.0%" in health.collapse(rows, level=0.2)


@pytest.mark.parametrize("level", [0.2, math.log(2)])
def test_a_loss_stuck_at_the_value_of_a_point_is_a_collapse(level):
    rows = [row(i, loss=level * 1.001, mean_d_an=0.01) for i in range(health.ROWS)]
    assert f"{level:.3f}" in health.collapse(rows, level=level)


def test_a_loss_that_passes_the_margin_is_none():
    rows = [row(i, loss=0.2, mean_d_an=0.9) for i in range(health.ROWS)]
    assert health.collapse(rows, level=0.2) is None


def test_one_odd_row_is_no_collapse():
    rows = [row(i) for i in range(health.ROWS - 1)] + [row(9, embedding_spread=0.0)]
    assert health.collapse(rows, level=0.2) is None
    assert health.collapse(rows[-1:], level=0.2) is None


def test_rows_that_a_damaged_file_left_without_a_number_say_nothing():
    rows = [row(embedding_spread=0.0) for _ in range(5)]
    for name in ("embedding_spread", "embedding_norm", "loss", "mean_d_an"):
        damaged = [{k: v for k, v in r.items() if k != name} for r in rows[:1]] + rows[1:]
        assert health.collapse(damaged, level=0.2) is None


def test_an_unnormalised_embedding_collapses_relative_to_its_length():
    rows = [row(i, embedding_norm=100.0, embedding_spread=1.0) for i in range(health.ROWS)]
    assert health.collapse(rows, level=0.2) is not None
