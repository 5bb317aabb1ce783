"""Schedules against the formulas of their paper, at many points, and at their limits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from triplet_jax import errors, schedules


def by_the_paper(kind, t, total, a, b):
    """Wu et al. 2021, table of pacing functions with N = 1, clipped."""
    x = min(t / (a * total), 1.0)
    value = {
        "linear": lambda: b + (1 - b) * x,
        "quadratic": lambda: b + (1 - b) * x**2,
        "root": lambda: b + (1 - b) * x**0.5,
        "step": lambda: b + np.floor(x),
        "exponential": lambda: b + (1 - b) / (np.exp(10) - 1) * (np.exp(10 * x) - 1),
        "logarithmic": lambda: b + (1 - b) * (1 + 0.1 * np.log(x + np.exp(-10))),
    }[kind]()
    return min(max(value, 0.0), 1.0)


@pytest.mark.parametrize("kind", schedules.PACINGS)
@pytest.mark.parametrize(("a", "b"), [(0.8, 0.0), (0.01, 0.1), (1.6, 0.8), (0.4, 1.0)])
def test_pacing_equals_the_paper_at_a_thousand_points(kind, a, b):
    steps = np.arange(1000)
    schedule = schedules.pacing(kind, total_steps=1000, a=a, b=b)
    ours = np.asarray(jax.jit(jax.vmap(schedule))(steps))
    theirs = np.array([by_the_paper(kind, t, 1000, a, b) for t in steps])
    # A step function may jump one step apart where t / (a T) is rounded.
    apart = np.abs(ours - theirs) > 1e-5
    assert apart.sum() <= (1 if kind == "step" else 0)


@pytest.mark.parametrize("kind", schedules.PACINGS)
def test_pacing_meets_its_ends_and_never_falls(kind):
    schedule = schedules.pacing(kind, total_steps=200, a=0.5, b=0.25)
    values = np.array([schedule(t) for t in range(250)])
    assert values[0] == pytest.approx(0.25, abs=1e-6)
    assert (values[100:] == 1.0).all()
    assert (np.diff(values) >= 0).all()


@given(
    kind=st.sampled_from(schedules.PACINGS),
    a=st.floats(1e-3, 1e3),
    b=st.floats(0, 1),
    step=st.integers(0, 10**6),
)
def test_pacing_is_a_fraction_for_any_numbers(kind, a, b, step):
    value = schedules.pacing(kind, total_steps=1000, a=a, b=b)(step)
    assert 0 <= value <= 1


def test_numbers_of_a_pacing_may_be_traced():
    traces = []

    @jax.jit
    def at(step, a, b):
        traces.append(1)
        return schedules.pacing("quadratic", total_steps=100, a=a, b=b)(step)

    for step, a, b in ((10, 0.5, 0.1), (20, 0.8, 0.0), (99, 1.5, 0.9)):
        steps, numbers = jnp.int32(step), (jnp.float32(a), jnp.float32(b))
        assert at(steps, *numbers) == pytest.approx(
            by_the_paper("quadratic", step, 100, a, b), abs=1e-6
        )
    assert len(traces) == 1


@pytest.mark.parametrize(
    ("numbers", "named"),
    [
        ({"kind": "cubic"}, "cubic"),
        ({"a": 0.0}, "a=0.0"),
        ({"a": float("inf")}, "a=inf"),
        ({"b": -0.1}, "b=-0.1"),
        ({"b": 1.1}, "b=1.1"),
        ({"total_steps": 0}, "total_steps=0"),
    ],
)
def test_pacing_refuses_what_makes_no_sense(numbers, named):
    numbers = {"kind": "linear", "total_steps": 10, "a": 0.5, "b": 0.0} | numbers
    with pytest.raises(errors.InputError, match=named):
        schedules.pacing(**numbers)


def test_orders():
    steps = range(50)
    path = schedules.pacing("linear", total_steps=50, a=1.0, b=0.0)

    def values(order, **key):
        made = schedules.ordered(path, order, total_steps=50, **key)
        return np.array([made(t) for t in steps])

    up = values("curriculum")
    np.testing.assert_allclose(values("anti_curriculum"), 1 - up, atol=1e-6)
    assert (values("standard") == 1).all()
    shuffled = values("random", key=jax.random.key(3))
    np.testing.assert_array_equal(np.sort(shuffled), up)
    assert (shuffled != up).any()
    assert (shuffled != values("random", key=jax.random.key(4))).any()
    with pytest.raises(errors.InputError, match="key"):
        values("random")
    with pytest.raises(errors.InputError, match="backwards"):
        values("backwards")


@pytest.mark.parametrize(("start", "end"), [(0.5, 0.005), (1e-3, 10.0), (2.0, 2.0)])
def test_equal_shares_of_the_way_are_equal_factors(start, end):
    fraction = schedules.pacing("linear", total_steps=8, a=1.0, b=0.0)
    values = [float(schedules.geometric(fraction, start=start, end=end)(t)) for t in range(9)]
    np.testing.assert_allclose(values, np.geomspace(start, end, 9), rtol=1e-5)
    moved = jax.jit(lambda end: schedules.geometric(fraction, start=start, end=end)(4))(end)
    assert float(moved) == pytest.approx((start * end) ** 0.5, rel=1e-5)
    with pytest.raises(errors.InputError, match="end=0.0 must be above 0"):
        schedules.geometric(fraction, start=start, end=0.0)


def test_other_schedules():
    rise = schedules.warmup(steps=4)
    assert [float(rise(t)) for t in (0, 1, 4, 9)] == [0, 0.25, 1, 1]
    assert float(schedules.warmup(steps=0)(0)) == 1
    assert float(schedules.constant(0.3)(7)) == pytest.approx(0.3)
    half = schedules.cosine(total_steps=10)
    np.testing.assert_allclose([half(0), half(5), half(10), half(20)], [0, 0.5, 1, 1], atol=1e-6)
    pieces = schedules.piecewise(boundaries=(3, 6), values=(0.1, 0.5, 1.0))
    np.testing.assert_allclose(
        [pieces(t) for t in (0, 2, 3, 5, 6, 100)], [0.1, 0.1, 0.5, 0.5, 1, 1]
    )
    moved = schedules.between(schedules.constant(0.25), start=2.0, end=-2.0)
    assert float(moved(0)) == 1.0
    with pytest.raises(errors.InputError, match="boundaries"):
        schedules.piecewise(boundaries=(3, 3), values=(0, 1, 2))
    with pytest.raises(errors.InputError, match="one more"):
        schedules.piecewise(boundaries=(3,), values=(0,))


def test_self_pacing_holds_the_active_fraction():
    """A world in which harder mining makes more triplets active: fraction = target is met."""
    pace = schedules.first_pace(target=0.4, b=0.0)
    for _ in range(2000):
        pace = schedules.next_pace(pace, pace.fraction, target=0.4, rate=0.05, decay=0.9)
    assert float(pace.fraction) == pytest.approx(0.4, abs=1e-3)
    assert float(pace.active) == pytest.approx(0.4, abs=1e-3)


def test_self_pacing_stays_a_fraction():
    pace = schedules.first_pace(target=1.0, b=0.5)
    for _ in range(100):
        pace = schedules.next_pace(pace, jnp.float32(0), target=1.0, rate=0.1, decay=0.0)
    assert float(pace.fraction) == 1.0


@given(
    rows=st.integers(1, 9),
    seed=st.integers(0, 2**16),
    scale=st.sampled_from([1e-30, 1e-8, 1.0, 1e12]),
)
def test_the_share_of_a_gradient_does_not_depend_on_its_scale(rows, seed, scale):
    slopes = np.random.default_rng(seed).normal(size=(rows, 3))
    slopes[0] = 1.0  # not all of them 0
    lengths = np.linalg.norm(slopes, axis=1)
    expected = lengths.sum() ** 2 / (rows * (lengths**2).sum())
    found = schedules.gradient_share(jnp.asarray(scale * slopes, jnp.float32))
    assert float(found) == pytest.approx(expected, rel=1e-4)


def test_the_share_of_no_gradient_is_0():
    assert float(schedules.gradient_share(jnp.zeros((4, 2)))) == 0.0


def test_a_warmup_of_fewer_steps_than_none_is_refused():
    with pytest.raises(errors.InputError, match="steps=-1 must be at least 0"):
        schedules.warmup(steps=-1)
    assert schedules.warmup(steps=0)(0) == 1
