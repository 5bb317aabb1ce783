"""The space that a study searches: some fields of a config, each with the values it may have."""

import dataclasses
import itertools
import math
import numbers
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import ml_collections
import numpy as np

from experiments.config import completion, settings
from experiments.sweeps import plan
from triplet_jax import errors

Point = dict[str, Any]
"""A place in the space: a value, or the label of an option, by the names of its parts."""

MOST_CORNERS = 32
"""Up to this many corners, all are checked, a tenth of a second each: those of five ranges."""


@dataclasses.dataclass(frozen=True)
class Range:
    """A field that may be any number of a range.

    Args:
      name: of the field.
      low: the lowest number.
      high: the highest.
      log: whether it is drawn by its logarithm.
      step: how far apart the numbers are; None for all of the range.
    """

    name: str
    low: float
    high: float
    log: bool = False
    step: float | None = None

    @property
    def ends(self) -> list[float]:
        """The lowest and the highest number."""
        return [self.low, self.high]

    def suggest(self, trial) -> float:
        """The number of a trial of Optuna."""
        if isinstance(self.low, int) and isinstance(self.high, int):
            return trial.suggest_int(
                self.name, self.low, self.high, log=self.log, step=int(self.step or 1)
            )
        return trial.suggest_float(self.name, self.low, self.high, log=self.log, step=self.step)

    def differences(self, value: float) -> dict[str, Any]:
        """The field with this value."""
        return {self.name: value}

    def of_run(self, run: ml_collections.ConfigDict) -> float | None:
        """The value that a config has; None where the range does not hold it."""
        value = settings.flat(run)[self.name]
        if value is None or not self.low <= value <= self.high:
            return None
        steps = (value - self.low) / (self.step or 1)
        on_grid = self.step is None or math.isclose(steps, round(steps), abs_tol=1e-9)
        return value if on_grid else None


@dataclasses.dataclass(frozen=True)
class Options:
    """A choice among a few values of a field, or among a few ways to set several.

    Args:
      name: of the field, or of the choice.
      of: the fields that each option sets, by its label.
    """

    name: str
    of: Mapping[str | float | bool, Mapping[str, Any]]

    @property
    def ends(self) -> list[str | float | bool]:
        """All labels."""
        return list(self.of)

    def suggest(self, trial) -> str | float | bool:
        """The label of a trial of Optuna."""
        return trial.suggest_categorical(self.name, self.ends)

    def differences(self, label: str | float | bool) -> dict[str, Any]:
        """The fields that the option sets."""
        return dict(self.of[label])

    def of_run(self, run: ml_collections.ConfigDict) -> str | float | bool | None:
        """The label of the option that leaves a config as it is; None where none does."""
        before = settings.flat(completion.completed(run))
        for label, differences in self.of.items():
            config = plan.config_of(run, differences, self.name)
            if settings.flat(completion.completed(config)) == before:
                return label
        return None


@dataclasses.dataclass(frozen=True)
class Space:
    """The parts of a space, which differ in the fields that they set."""

    parts: Sequence[Range | Options]

    def suggest(self, trial) -> Point:
        """The point of a trial of Optuna; what the trial has already stays."""
        return {part.name: part.suggest(trial) for part in self.parts}

    def differences(self, point: Point) -> dict[str, Any]:
        """The fields that a point sets."""
        merged: dict[str, Any] = {}
        for part in self.parts:
            merged |= part.differences(point[part.name])
        return merged

    def of_run(self, run: ml_collections.ConfigDict) -> Point | None:
        """The point of a config; None where it lies outside of the space."""
        point = {part.name: part.of_run(run) for part in self.parts}
        return None if None in point.values() else point

    def corners(self) -> Iterator[Point]:
        """The points at which every part is at an end, the first of all parts before others.

        If there are more than `MOST_CORNERS`, they are those with at most one part at another end
        than the first, and `MOST_CORNERS` at random.
        """
        names = [part.name for part in self.parts]
        ends = [part.ends for part in self.parts]
        if math.prod(map(len, ends)) <= MOST_CORNERS:
            for values in itertools.product(*ends):
                yield dict(zip(names, values, strict=True))
            return
        first = {name: of_part[0] for name, of_part in zip(names, ends, strict=True)}
        yield first
        for name, of_part in zip(names, ends, strict=True):
            yield from (first | {name: end} for end in of_part[1:])
        drawn = np.random.default_rng(0)
        for _ in range(MOST_CORNERS):
            yield {n: of[drawn.integers(len(of))] for n, of in zip(names, ends, strict=True)}


# The columns of trials.csv that are not parts of a point.
_COLUMNS = ("trial", "state", "value", "steps", "seconds", "error")


def parse(pairs: Sequence[tuple[str, Mapping[str, Any]]]) -> Space:
    """The space of the field `space`; see `configs.tune.base`.

    Raises:
      InputError: it is empty, a part is none that `configs.tune.base` makes, two parts set one
        field or have one name, or a name is that of another column of trials.csv.
    """
    if not pairs:
        raise errors.InputError(
            "space is empty; give pairs of a field and its values, such as"
            " ('loss.margin', configs.tune.base.between(0.05, 1.0))."
        )
    plan.check_pairs("space", pairs, object)
    parts, owners = [], {}
    for name, values in pairs:
        parts.append(part := _part(name, values))
        if name in _COLUMNS or [p.name for p in parts].count(name) > 1:
            why = "names a column of trials.csv" if name in _COLUMNS else "is there twice"
            raise errors.InputError(f"space: {name!r} {why}; give another name.")
        for field in sorted({field for end in part.ends for field in part.differences(end)}):
            if owners.setdefault(field, part) is not part:
                raise errors.InputError(
                    f"space: {field!r} is set by {owners[field].name!r} and by {name!r}; let one"
                    " of them set it."
                )
    return Space(tuple(parts))


def _part(name, values):
    keys = sorted(values) if isinstance(values, Mapping) else None
    if keys == ["high", "log", "low", "step"]:
        return _range(name, values)
    if keys == ["values"] and values["values"]:
        labels = [x if isinstance(x, str | int | float) else repr(x) for x in values["values"]]
        return Options(name, {n: {name: x} for n, x in zip(labels, values["values"], strict=True)})
    if keys == ["alternatives"] and values["alternatives"]:
        return Options(name, values["alternatives"])
    raise errors.InputError(
        f"space: {name!r} has {values!r}; use between, one_of or alternatives of"
        " configs.tune.base, with at least one value."
    )


def _range(name, values):
    low, high, log, step = (values[key] for key in ("low", "high", "log", "step"))
    given = [low, high] if step is None else [low, high, step]
    if not all(isinstance(x, numbers.Real) and math.isfinite(x) for x in given) or not low < high:
        raise errors.InputError(
            f"space: {name!r} is between {low!r} and {high!r}, step {step!r}: give finite numbers,"
            " the lower one first."
        )
    if (log and (low <= 0 or step is not None)) or (step is not None and step <= 0):
        raise errors.InputError(
            f"space: {name!r} is between {low} and {high}, log={log}, step={step}: a logarithm"
            " needs numbers above 0 and no step, and a step is above 0."
        )
    return Range(name, low, high, log, step)
