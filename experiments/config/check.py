"""Refuses configs that make no sense: of a launch, and of a run that was saved.

What a single field may be is declared in `fields`, and checked here. Rules between fields are here,
and in `check_batches`, `check_losses` and `check_schedules`.
"""

from collections.abc import Mapping

import ml_collections

from experiments.config import (
    check_batches,
    check_losses,
    check_schedules,
    column_pairs,
    components,
    defaults,
    fields,
    settings,
)
from experiments.config.fields import declaration
from triplet_jax import errors


def check(config: ml_collections.ConfigDict) -> None:
    """Refuses a config that makes no sense, or not on this machine.

    Raises:
      InputError: naming the field, its value and what is allowed.
    """
    check_anywhere(config)
    check_batches.check_machine(config)


def check_anywhere(config: ml_collections.ConfigDict) -> None:
    """Refuses a config that makes no sense on any machine, such as one that somebody edited.

    A run of eight devices passes on a machine of one, and so does one whose input files are gone.

    Raises:
      InputError: naming the field, its value and what is allowed.
    """
    _check_types(config)
    _check_values(settings.flat(config))
    components.check(config)
    check_schedules.check(config)
    _check_data(config)
    check_batches.check(config)
    _check_idle(config)
    _check_steps(config)
    check_losses.check(config)


# -- single fields, by what they declare -------------------------------------------------


def _check_types(config):
    """Refuses what a file can hold in place of a value: null, a number for a text, a bare section.

    `ml_collections` takes None for any field, and True for a number.
    """
    _check_section("", config, defaults.like(config))
    for name, record in config.schedules.items():
        if not isinstance(record, _SECTIONS):
            raise errors.InputError(
                f"schedules.{name}={record!r} must be a section of fields; make it with"
                " configs.base.schedule(field, ...)."
            )
        _check_section(f"schedules.{name}.", record, defaults.schedule(""))


_SECTIONS = (ml_collections.ConfigDict, ml_collections.FrozenConfigDict)
_KINDS = {
    bool: ((bool,), "true or false"),
    int: ((int,), "a whole number"),
    float: ((int, float), "a number"),
    str: ((str,), "text"),
    tuple: ((tuple,), "a list"),
}


def _check_section(prefix, section, usual):
    # Unknown knobs and fields of schedules are refused where those are looked at.
    if not prefix.endswith(".knobs.") and not prefix.startswith("schedules."):
        known = [f"{prefix}{name}" for name in usual]
        for name in section:
            errors.check_known("config field", f"{prefix}{name}", known)
    for name in usual:
        if name not in section:  # of a schedule, where that is reported
            continue
        value, field, kind = section[name], f"{prefix}{name}", usual.get_type(name)
        if isinstance(usual[name], ml_collections.ConfigDict):
            if not isinstance(value, _SECTIONS):
                raise errors.InputError(f"{field}={value!r} must be a section of fields.")
            _check_section(f"{field}.", value, usual[name])
            continue
        kinds, words = _KINDS[kind]
        may_be_none = usual[name] is None and value is None
        right = isinstance(value, kinds) and isinstance(value, bool) == (kind is bool)
        if not (right or may_be_none):
            raise errors.InputError(f"{field}={value!r} must be {words}.")
        if kind is tuple and not all(isinstance(x, str | int | float) for x in value):
            raise errors.InputError(f"{field}={value!r} must be a list of texts or numbers.")


def _check_values(values: Mapping[str, object]) -> None:
    """Refuses values that their fields do not allow; `components` looks at the parts of a run."""
    for name, value in values.items():
        allowed = fields.allowed(name)
        if value is not None and allowed and not isinstance(allowed, declaration.Part):
            allowed.check(name, value)


def _check_idle(config):
    """Refuses fields that are set, or that a schedule moves, where they have no effect."""
    values = settings.flat(config)
    moved = settings.scheduled(config)
    for name, field in fields.FIELDS.items():
        is_set = values[name] != field.default
        for condition in field.when if is_set or name in moved else ():
            failing = condition.failing(values)
            if failing:
                what = f"{name}={values[name]!r}" if is_set else f"A schedule of {name}"
                raise errors.InputError(
                    f"{what} has no effect with {failing}: it needs {condition.needs}. Set that, or"
                    " leave this out."
                )


# -- rules between fields ----------------------------------------------------------------


def _check_data(config):
    c = config.dataset
    if c.test_fraction + c.validation_fraction >= 1:
        raise errors.InputError(
            f"dataset.test_fraction={c.test_fraction} and dataset.validation_fraction="
            f"{c.validation_fraction} leave nothing to train on; together they must be below 1."
        )
    column_pairs.parse("dataset.ignore_columns", c.ignore_columns)
    if c.ignore_columns and config.evaluate.ignore_group:
        raise errors.InputError(
            f"dataset.ignore_columns={c.ignore_columns} says which references a query leaves out:"
            f" add {c.group_column!r} to it, and set evaluate.ignore_group=False."
        )


def _check_steps(config):
    """Refuses what begins, or is still warming up, when training ends."""
    values, steps = settings.flat(config), config.train.steps
    for field in ("memory.start", "offline.every", "optimizer.backbone_start"):
        if values[field] >= steps:
            raise errors.InputError(
                f"{field}={values[field]} is not reached within train.steps={steps}: make it"
                " smaller, or train for longer."
            )
    if config.optimizer.warmup_steps >= steps:
        raise errors.InputError(
            f"optimizer.warmup_steps={config.optimizer.warmup_steps} must be below"
            f" train.steps={steps}."
        )
