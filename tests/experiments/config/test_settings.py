"""Numbers that schedules move."""

import jax.numpy as jnp
import numpy as np

from experiments.config import check, settings
from tests.support.configs import scheduled


def values_of(made, steps):
    field = made.schedules.one.field
    moved = settings.moving(made)
    pace = settings.first_pace(made)
    return [moved(jnp.int32(step), pace)[field] for step in steps]


def test_a_schedule_moves_from_its_start_to_its_end():
    made = scheduled("mining.knobs.hardness", start=0.2, end=0.9, a=0.5)
    found = values_of(made, (0, 250, 500, 999))
    np.testing.assert_allclose(found, [0.2, 0.55, 0.9, 0.9], atol=1e-6)
    back = scheduled("loss.margin", start=0.2, end=0.9, a=0.5, order="anti_curriculum")
    np.testing.assert_allclose(values_of(back, (0, 250, 999)), [0.9, 0.55, 0.2], atol=1e-6)


def test_a_share_of_the_hardest_moves_by_equal_factors():
    ends = {"start": 0.5, "end": 0.005}
    made = scheduled("mining.knobs.share", miner="hardest_share", a=0.5, scale="log", **ends)
    check.check(made)
    np.testing.assert_allclose(values_of(made, (0, 250, 999)), [0.5, 0.05, 0.005], rtol=1e-5)


def test_a_whole_number_stays_one():
    made = scheduled("mining.knobs.n", miner="rank", start=10, end=1)
    found = values_of(made, (0, 400, 999))
    assert [int(x) for x in found] == [10, 6, 1]  # 5.5 to the even one
    assert found[0].dtype == jnp.int32
    check.check(made)
