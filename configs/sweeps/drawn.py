"""Sweeps whose arms are tuned alike: as many settings for each, drawn from ranges, and a run."""

import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from configs.sweeps import base
from configs.sweeps.schedules import small_digits

TRIALS = 8

Arms = Mapping[str, tuple[Mapping[str, Any], Mapping[str, Mapping[str, Any]]]]
"""Of each arm by name the fields that all of its trials share, and the ranges of those they try."""


def tuned_alike(arms: Arms):
    """A sweep on digits that tries `TRIALS` settings for each arm, and trains with ten seeds."""
    sweep = base.get_config(digits_to_tune())
    sweep.arms = tuple((name, fields) for name, (fields, _) in arms.items())
    sweep.trials = tuple((name, settings(ranges, TRIALS)) for name, (_, ranges) in arms.items())
    sweep.seeds = tuple(range(10))
    return sweep


def settings(ranges: Mapping[str, Mapping[str, Any]], trials: int) -> tuple[dict[str, float], ...]:
    """Draws the settings of an arm: of each field one value out of each of `trials` equal parts.

    What is drawn for a field does not depend on the others, so that arms that share a field, such
    as the learning rate, try the same values of it (a Latin hypercube).

    Args:
      ranges: `configs.tune.base.between` by the names of the fields.
      trials: how many.
    """
    columns = {name: _values(name, of, trials) for name, of in ranges.items()}
    return tuple({name: columns[name][i] for name in columns} for i in range(trials))


def digits_to_tune():
    """The MLP of digits in short runs, with enough validation images to choose settings by."""
    run = small_digits()
    run.train.steps = 300
    run.evaluate.every = 300
    run.evaluate.episodes = 20
    run.dataset.validation_fraction = 0.2
    return run


def _values(name, of, trials):
    random = np.random.default_rng(zlib.crc32(name.encode()))
    shares = (random.permutation(trials) + random.uniform(size=trials)) / trials
    low, high = of["low"], of["high"]
    values = low * (high / low) ** shares if of["log"] else low + (high - low) * shares
    return [float(f"{value:.3g}") for value in values]
