"""Schedules: pure functions of the step that give a number, for anything that a run may move.

A schedule is called as optax's are, `schedule(step) -> value`, and traces: a number that
moves is not compiled again. A curriculum is made of three parts,

    fraction = pacing("linear", total_steps=1000, a=0.8, b=0.1)   # how far, from 0 to 1
    fraction = ordered(fraction, "curriculum")                    # in which direction
    hardness = between(fraction, start=0.2, end=0.9)              # in the units of the field

Wu, Dyer and Neyshabur 2021, "When Do Curricula Work?", for the pacing functions and orders.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from triplet_jax import errors

Schedule = Callable[[Int[Array, ""] | int], Float[Array, ""]]

# From the share x in [0, 1] of the pacing's length to the share of the way from b to 1.
_SHAPES: dict[str, Callable] = {
    "linear": lambda x: x,
    "quadratic": jnp.square,
    "root": jnp.sqrt,
    "step": jnp.floor,
    "exponential": lambda x: jnp.expm1(10.0 * x) / jnp.expm1(10.0),
    "logarithmic": lambda x: 1.0 + 0.1 * jnp.log(x + jnp.exp(-10.0)),
}
PACINGS = tuple(_SHAPES)
ORDERS = ("curriculum", "anti_curriculum", "random", "standard")


def pacing(
    kind: str, *, total_steps: int, a: Float[Array, ""] | float, b: Float[Array, ""] | float
) -> Schedule:
    """A pacing function of Wu et al. 2021, section 2: from `b` at step 0 to 1 at step `a T`.

    With `x = t / (a T)`, and clipped to [0, 1]:

        linear         b + (1 - b) x
        quadratic      b + (1 - b) x^2
        root           b + (1 - b) x^(1/2)
        step           b + floor(x)
        exponential    b + (1 - b) (e^(10 x) - 1) / (e^10 - 1)
        logarithmic    b + (1 - b) (1 + ln(x + e^-10) / 10)

    Args:
      kind: a name in `PACINGS`.
      total_steps: T, at least 1.
      a: the share of training until everything is in, in (0, inf); beyond 1 it never is.
      b: where it starts, in [0, 1]; 1 is standard training.

    Raises:
      InputError: `kind` is not known, or a number that is not traced is out of its range.
    """
    errors.check_known("kind", kind, PACINGS)
    if total_steps < 1:
        raise errors.InputError(f"total_steps={total_steps} must be at least 1.")
    _check("a", a, lambda a: 0 < a < float("inf"), "above 0 and finite")
    _check("b", b, lambda b: 0 <= b <= 1, "from 0 to 1")
    shape = _SHAPES[kind]

    def schedule(step):
        # Clipped first: the exponential of what lies beyond would overflow.
        x = jnp.clip(_as_float(step) / (a * total_steps), 0.0, 1.0)
        rest = 1.0 if kind == "step" else 1.0 - b
        return jnp.clip(b + rest * shape(x), 0.0, 1.0)

    return schedule


def constant(value: Float[Array, ""] | float) -> Schedule:
    """The same value at every step."""
    return lambda step: jnp.broadcast_to(jnp.float32(value), jnp.shape(step))


def warmup(*, steps: int) -> Schedule:
    """From 0 to 1 in equal parts over the first `steps` steps; 1 from the start if there are none.

    Raises:
      InputError: `steps` is below 0.
    """
    if steps < 0:
        raise errors.InputError(f"steps={steps} must be at least 0.")
    return lambda step: (
        jnp.clip(_as_float(step) / steps, 0.0, 1.0) if steps else constant(1.0)(step)
    )


def cosine(*, total_steps: int, a: Float[Array, ""] | float = 1.0) -> Schedule:
    """From 0 to 1 along half a cosine over the first `a T` steps: `(1 - cos(pi t / (a T))) / 2`.

    Raises:
      InputError: as `pacing`.
    """
    share = pacing("linear", total_steps=total_steps, a=a, b=0.0)
    return lambda step: 0.5 * (1.0 - jnp.cos(jnp.pi * share(step)))


def piecewise(*, boundaries: Sequence[float | int], values: Sequence[float | int]) -> Schedule:
    """`values[i]` from step `boundaries[i - 1]` on, and before `boundaries[i]`.

    Args:
      boundaries: steps, rising.
      values: one more than there are boundaries.

    Raises:
      InputError: the numbers do not match, or the boundaries do not rise.
    """
    boundaries, values = tuple(boundaries), tuple(values)
    if len(values) != len(boundaries) + 1:
        raise errors.InputError(
            f"values={values} must be one more than boundaries={boundaries}: what holds before the"
            " first, and from each on."
        )
    if any(after <= before for before, after in zip(boundaries, boundaries[1:], strict=False)):
        raise errors.InputError(f"boundaries={boundaries} must rise.")
    edges = jnp.asarray(boundaries, jnp.float32)

    def schedule(step):
        piece = jnp.searchsorted(edges, _as_float(step), side="right")
        return jnp.asarray(values, jnp.float32)[piece]

    return schedule


def between(
    fraction: Schedule, *, start: Float[Array, ""] | float, end: Float[Array, ""] | float
) -> Schedule:
    """`start` where the fraction is 0, `end` where it is 1, and in proportion between."""

    def schedule(step):
        share = fraction(step)
        # In this form both ends are met exactly.
        return (1.0 - share) * start + share * end

    return schedule


def ordered(
    fraction: Schedule, order: str, *, total_steps: int, key: PRNGKeyArray | None = None
) -> Schedule:
    """A pacing taken in one of four directions.

    Args:
      fraction: the pacing.
      order: "curriculum", the pacing itself; "anti_curriculum", `1 - fraction`; "random", the
        same values as the curriculum, every one of them once, at shuffled steps;
        "standard", 1 throughout.
      total_steps: T; the steps [0, T) are shuffled, later ones are taken as the last.
      key: of the shuffling.

    Raises:
      InputError: the order is not known, or it is random and there is no key.
    """
    errors.check_known("order", order, ORDERS)
    if order == "curriculum":
        return fraction
    if order == "anti_curriculum":
        return lambda step: 1.0 - fraction(step)
    if order == "standard":
        return constant(1.0)
    if key is None:
        raise errors.InputError("key=None, but order='random' draws: pass a jax.random.key.")
    shuffled = jax.random.permutation(key, total_steps)
    return lambda step: fraction(shuffled[jnp.minimum(step, total_steps - 1)])


class Pace(NamedTuple):
    """Where a self-paced fraction stands: a part of a run's state."""

    active: Float[Array, ""]
    """The running average of the active fraction."""
    fraction: Float[Array, ""]


def first_pace(*, target: float, b: float) -> Pace:
    """Where self-pacing starts: at the fraction `b`, as if the target had been met so far."""
    return Pace(jnp.float32(target), jnp.float32(b))


def next_pace(
    pace: Pace,
    active_fraction: Float[Array, ""],
    *,
    target: Float[Array, ""] | float,
    rate: Float[Array, ""] | float,
    decay: Float[Array, ""] | float,
) -> Pace:
    """Moves on while too few triplets are active, and back while too many are.

        active   <- decay * active + (1 - decay) * active_fraction
        fraction <- clip(fraction + rate * (target - active), 0, 1)

    In the manner of the running averages of Harwood et al. 2017 and of CurricularFace (Huang
    et al. 2020); the rule itself is ours.

    Args:
      pace: after the last step.
      active_fraction: of this step's triplets, those whose penalty is not zero.
      target: the active fraction to hold.
      rate: how far the fraction moves at most in one step.
      decay: of the running average, in [0, 1).
    """
    active = decay * pace.active + (1.0 - decay) * active_fraction
    return Pace(active, jnp.clip(pace.fraction + rate * (target - active), 0.0, 1.0))


def _as_float(step):
    return jnp.asarray(step, jnp.float32)


def _check(name, value, allowed, range_in_words):
    if not isinstance(value, jax.core.Tracer) and not allowed(float(value)):
        raise errors.InputError(f"{name}={value} must be {range_in_words}.")
