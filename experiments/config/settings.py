"""What a config sets: its fields, its keys, and the numbers that move while it trains."""

from collections.abc import Callable

import flax.traverse_util
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from experiments.config import defaults
from triplet_jax import schedules
from triplet_jax.training.numbers import Numbers


def flat(config: ml_collections.ConfigDict) -> dict:
    """The fields by their dotted names."""
    return flax.traverse_util.flatten_dict(config.to_dict(), sep=".")


def knobs(fields) -> dict:
    """The fields that are set; the others keep the defaults of what takes them."""
    return {name: value for name, value in fields.items() if value is not None}


def rule(config: ml_collections.ConfigDict) -> str:
    """The name of what a run tries: its loss, or the miner of a triplet loss."""
    return config.mining.miner if config.loss.name == "triplet" else config.loss.name


def keys(config: ml_collections.ConfigDict) -> tuple[jax.Array, jax.Array]:
    """The key of the initial weights, and the key of everything drawn while training."""
    init_key, run_key = jax.random.split(jax.random.key(config.seed))
    return init_key, run_key


def with_numbers(config: ml_collections.ConfigDict, numbers: dict) -> ml_collections.ConfigDict:
    """The config with other numbers, which may be traced, at their dotted names."""
    moved = ml_collections.ConfigDict(config).copy_and_resolve_references()
    with moved.ignore_type():
        moved.update_from_flattened_dict(numbers)
    return moved


OFF = {"memory.noise_rate": 0, "optimizer.proxies_rate": 1}
"""Numbers that turn off what they are for, by field."""


def is_on(field: str, number: float | jax.Array) -> bool:
    """Whether a number of a config turns on what it is for.

    A traced one does: runs train together where each of them has it on.

    Args:
      field: one of `OFF`.
      number: its value.
    """
    return isinstance(number, jax.Array) or number != OFF[field]


def scheduled(config) -> dict:
    """The schedules by their fields."""
    return {c.field: c for _, c in sorted(config.schedules.items())}


def constant(config: ml_collections.ConfigDict) -> Numbers:
    """The fields as they are without schedules."""
    return Numbers(flat(config))


def numbers(config: ml_collections.ConfigDict) -> Callable[..., Numbers]:
    """The fields as they are at a step, `(step, pace) -> Numbers`."""
    fields, move = flat(config), moving(config)
    return lambda step, pace: Numbers(fields, move(step, pace))


def moving(config: ml_collections.ConfigDict) -> Callable[..., dict[str, jax.Array]]:
    """The scheduled numbers by their fields, `(step, pace) -> numbers`."""
    by_field = scheduled(config)
    if not by_field:
        return lambda step, pace: {}
    _, run_key = keys(config)
    # Beyond the keys of the steps.
    shuffling = [jax.random.fold_in(run_key, 2**31 + i) for i in range(len(by_field))]
    paths = {
        field: _path(c, config.train.steps, key)
        for (field, c), key in zip(by_field.items(), shuffling, strict=True)
    }
    usual = defaults.like(config)

    def at(step, pace):
        moved = {}
        for field, c in by_field.items():
            path = paths[field]
            if path is None:
                own = schedules.constant(pace[field].fraction)
                path = schedules.ordered(own, c.order, total_steps=config.train.steps)
            value = schedules.SCALES[c.scale](path, start=c.start, end=c.end)(step)
            owner, _, name = field.rpartition(".")
            whole = usual[owner].get_type(name) is int
            moved[field] = jnp.round(value).astype(jnp.int32) if whole else value
        return moved

    return at


def of_all_steps(config: ml_collections.ConfigDict, section: str) -> dict[str, np.ndarray]:
    """The values that schedules give the fields of a section, `[steps]`, by field.

    A field that the run paces itself has its first value at every step.
    """
    if not any(field.startswith(f"{section}.") for field in scheduled(config)):
        return {}
    pace, move = first_pace(config), moving(config)
    every = jax.jit(jax.vmap(lambda step: move(step, pace)))(jnp.arange(config.train.steps))
    return {f: np.asarray(x) for f, x in every.items() if f.startswith(f"{section}.")}


def lowest(config: ml_collections.ConfigDict, field: str) -> float:
    """The least value that a field may have in a run."""
    schedule = scheduled(config).get(field)
    if schedule is None:
        return flat(config)[field]
    if schedule.kind == "self_paced":
        return min(schedule.start, schedule.end)
    return float(of_all_steps(config, field.partition(".")[0])[field].min())


def _path(c, steps, key):
    """The share of the way by the step; None where the run paces itself."""
    if c.kind == "self_paced":
        return None
    if c.kind == "constant":
        path = schedules.constant(1.0)
    elif c.kind == "cosine":
        path = schedules.cosine(total_steps=steps, a=c.a)
    elif c.kind == "piecewise":
        boundaries = [share * steps for share in c.boundaries]
        path = schedules.piecewise(boundaries=boundaries, values=c.levels)
    else:
        path = schedules.pacing(c.kind, total_steps=steps, a=c.a, b=c.b)
    return schedules.ordered(path, c.order, total_steps=steps, key=key)


def _self_paced(config):
    return {field: c for field, c in scheduled(config).items() if c.kind == "self_paced"}


def holds_gradient_share(config: ml_collections.ConfigDict) -> bool:
    """Whether a number moves so that the gradient's share stays."""
    return any(c.holds == "gradient_share" for c in _self_paced(config).values())


def first_pace(config: ml_collections.ConfigDict) -> dict[str, schedules.Pace]:
    """The first values of the self-paced numbers, by field."""
    return {
        field: schedules.first_pace(target=c.target, b=c.b)
        for field, c in _self_paced(config).items()
    }


def next_pace(config: ml_collections.ConfigDict) -> Callable:
    """Moves the self-paced numbers on, `(pace, stats) -> pace`, by the stats of a step's loss."""

    def after(pace, stats):
        return {
            field: schedules.next_pace(
                pace[field], stats[c.holds], target=c.target, rate=c.rate, decay=c.decay
            )
            for field, c in _self_paced(config).items()
        }

    return after
