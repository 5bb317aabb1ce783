"""What a config field says about itself: its default, its meaning, its values, when it counts."""

import dataclasses
import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any

from triplet_jax import errors

MOST_COUNTED = 2**31 - 1
"""The largest whole number that 32 bits hold."""

TRAINING = "training"
"""The field decides what is learned: a run keeps its value for life."""
EXAMPLES = "examples"
"""The field decides which examples there are, their labels and splits: a run keeps its value for
life, and so do all trials of a study, which else could not be compared."""
JUDGING = "judging"
"""The field decides how a run is scored and which checkpoint counts: it may change on resume."""
MACHINE = "machine"
"""The field leaves every bit of the run as it was: it may change on resume."""


# -- the values that a field may have ----------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Range:
    """Finite numbers from `lowest` to `highest`, with or without the two ends."""

    lowest: float = -math.inf
    highest: float = math.inf
    without_lowest: bool = False
    without_highest: bool = False

    def check(self, name: str, value: float) -> None:
        """Refuses a number outside of the range.

        Raises:
          InputError: naming the field, its value and the range.
        """
        limits = self
        if self.highest == math.inf and isinstance(value, int):
            limits = dataclasses.replace(self, highest=MOST_COUNTED)
        if value not in limits:
            raise errors.InputError(f"{name}={value} must be a finite number{limits._ends(', ')}.")

    def __contains__(self, value: float) -> bool:
        above = value > self.lowest if self.without_lowest else value >= self.lowest
        below = value < self.highest if self.without_highest else value <= self.highest
        return above and below and math.isfinite(value)

    def _ends(self, before):
        ends = []
        if self.lowest > -math.inf:
            ends.append(f"{'more than' if self.without_lowest else 'at least'} {self.lowest}")
        if self.highest < math.inf:
            ends.append(f"{'less than' if self.without_highest else 'at most'} {self.highest}")
        return before * bool(ends) + " and ".join(ends)

    def __str__(self):
        return self._ends("")


def at_least(lowest: float, *, at_most: float = math.inf) -> Range:
    """The numbers from `lowest` to `at_most`, both included."""
    return Range(lowest, at_most)


def more_than(lowest: float, *, at_most: float = math.inf) -> Range:
    """The numbers above `lowest`, up to `at_most`."""
    return Range(lowest, at_most, without_lowest=True)


FINITE = Range()


@dataclasses.dataclass(frozen=True)
class Each:
    """A list of numbers that all lie in one range."""

    range: Range

    def check(self, name: str, values: tuple) -> None:
        """Refuses a list with an entry that is not a number of the range.

        Raises:
          InputError: naming the field, its value and the range.
        """
        if not all(isinstance(value, int | float) and value in self.range for value in values):
            raise errors.InputError(f"{name}={values} must be a list of numbers, {self}.")

    def __str__(self):
        return f"each {self.range}"


@dataclasses.dataclass(frozen=True)
class Among:
    """A list of texts, all different, from a few."""

    values: tuple[str, ...]

    def check(self, name: str, values: tuple) -> None:
        """Refuses a list with another entry, or with one that is there twice.

        Raises:
          InputError: naming the field, its value, and the values that are allowed.
        """
        for value in values:
            errors.check_known(name, value, self.values)
        if len(set(values)) < len(values):
            raise errors.InputError(f"{name}={values} must not name anything twice.")

    def __str__(self):
        return f"of {', '.join(f'`{value!r}`' for value in self.values)}"


@dataclasses.dataclass(frozen=True)
class OneOf:
    """A few values, which are all texts or all numbers.

    Args:
      values: the values.
      words: the values as messages list them; empty to list them as they are.
    """

    values: tuple
    words: str = ""

    def check(self, name: str, value: Any) -> None:
        """Refuses every other value.

        Raises:
          InputError: naming the field, its value, and the values that are allowed.
        """
        if isinstance(value, str):
            errors.check_known(name, value, self.values)
        elif value not in self.values:
            raise errors.InputError(f"{name}={value} must be {self}.")

    def __str__(self):
        return self.words or " or ".join(repr(value) for value in self.values)


@dataclasses.dataclass(frozen=True)
class Part:
    """A part of a run: one of the library by its name, or the user's own by its import path.

    Args:
      word: what such a part is called.
      table: the parts of the library by name; it is read anew each time, since it may grow.
      contract: what a part of the user's own is given, and what it returns.
      may_be_empty: whether the field may be empty.
      others: names that are allowed, and that no table has.
    """

    word: str
    table: Mapping[str, Callable]
    contract: str
    may_be_empty: bool = False
    others: tuple[str, ...] = ()

    def or_none(self) -> "Part":
        """Such a part, where the field may also be empty."""
        return dataclasses.replace(self, may_be_empty=True)


# -- when a field counts -----------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class When:
    """What other fields must be, so that a field has an effect.

    Args:
      needs: the condition, worded to follow "it needs".
      fields: the names of the other fields.
      holds: tells from their values, in this order, whether the condition holds.
    """

    needs: str
    fields: tuple[str, ...]
    holds: Callable[..., Any]

    def failing(self, values: Mapping[str, Any]) -> str:
        """The fields that keep the condition from holding, as NAME=VALUE; else empty."""
        if self.holds(*(values[name] for name in self.fields)):
            return ""
        return " and ".join(f"{name}={values[name]!r}" for name in self.fields)


# -- fields and sections -----------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Field:
    """One field of a config.

    Args:
      default: its value in a config that does not set it; None for a number that stays unset.
      meaning: what it decides, as one sentence with the unit.
      allowed: the values that it may have; None for all of its type.
      when: the conditions that must all hold for it to have an effect.
      concerns: TRAINING, EXAMPLES, JUDGING or MACHINE.
      moves: whether a schedule may move it.
      number: the type of a field whose default is None.
    """

    default: Any
    meaning: str
    allowed: Range | Each | Among | OneOf | Part | None = None
    when: tuple[When, ...] = ()
    concerns: str = TRAINING
    moves: bool = False
    number: type | None = None

    @property
    def type(self) -> type:
        """The type of its values."""
        return self.number or type(self.default)

    @property
    def may_change(self) -> bool:
        """Whether a run may go on with another value."""
        return self.concerns in (JUDGING, MACHINE)


@dataclasses.dataclass(frozen=True)
class Knob:
    """A number that some miners or losses take, each with its own default.

    The signatures of these functions give its type and its defaults.
    """

    meaning: str
    allowed: Range = FINITE


@dataclasses.dataclass(frozen=True)
class Knobs:
    """The field `knobs` of a section: a field for each number that a function of `tables` takes."""

    tables: tuple[Mapping[str, Callable], ...]
    described: Mapping[str, Knob]

    def types(self) -> dict[str, type]:
        """The knobs of all functions of the library, by name."""
        found: dict[str, type] = {}
        for table in self.tables:
            for function in table.values():
                found = {name: type(value) for name, value in numbers(function).items()} | found
        return dict(sorted(found.items()))

    def owners(self, knob: str) -> dict[str, float]:
        """The functions of the library that take a knob, each with its default."""
        every = [(name, numbers(f)) for table in self.tables for name, f in table.items()]
        return {name: defaults[knob] for name, defaults in every if knob in defaults}


def numbers(function: Callable) -> dict[str, float]:
    """The defaults of a function's keyword arguments that are numbers."""
    return {
        name: p.default
        for name, p in inspect.signature(function).parameters.items()
        if p.kind is p.KEYWORD_ONLY and type(p.default) in (int, float)
    }


@dataclasses.dataclass(frozen=True)
class Section:
    """The fields of one section of a config, by name."""

    name: str
    meaning: str
    fields: Mapping[str, Field]
    knobs: Knobs | None = None

    def check(self, values: Mapping[str, Any], owner: str = "") -> None:
        """Refuses values that the fields do not allow.

        Args:
          values: by the names of the fields.
          owner: what stands before a field's name in messages, such as "slurm.".

        Raises:
          InputError: naming the field, its value and what is allowed.
        """
        for name, field in self.fields.items():
            if field.allowed:
                field.allowed.check(f"{owner}{name}", values[name])
