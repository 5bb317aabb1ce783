"""Configs made of the defaults of all fields, and configs that differ from them in some.

`configs.base` offers these functions to config files.
"""

from collections.abc import Mapping
from typing import Any

import ml_collections
from ml_collections import config_dict

from experiments.config import fields, import_paths
from experiments.config.fields import declaration
from triplet_jax import errors


def get_config() -> ml_collections.ConfigDict:
    """A config with every field at its default."""
    config = ml_collections.ConfigDict()
    for section in fields.SECTIONS:
        made = of_section(section)
        if section.name:
            config[section.name] = made
        else:
            config.update(made)
    config.schedules = ml_collections.ConfigDict()
    return config


def of_section(section: fields.Section) -> ml_collections.ConfigDict:
    """The defaults of the fields of a section; a number that is not set has its type."""
    made = ml_collections.ConfigDict()
    for name, field in section.fields.items():
        unset = field.default is None
        made[name] = config_dict.placeholder(field.type) if unset else field.default
    if section.knobs:
        made.knobs = ml_collections.ConfigDict()
        for name, kind in section.knobs.types().items():
            made.knobs[name] = config_dict.placeholder(kind)
    return made


def schedule(field: str, **differences) -> ml_collections.ConfigDict:
    """A schedule of one numeric field, for `config.schedules.NAME`.

    Args:
      field: a number that may move, such as "mining.knobs.hardness" or "loss.margin": a field of
        `fields.MOVABLE`, or a knob.
      differences: from the defaults of `fields.SCHEDULE`.
    """
    record = of_section(fields.SCHEDULE)
    record.field = field
    record.update(differences)
    return record


def like(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    """The defaults of all fields that this config may have: with the knobs of its own parts."""
    return add_own_knobs(get_config(), config)


def add_own_knobs(
    config: ml_collections.ConfigDict, named_by: Mapping[str, Any] | None = None
) -> ml_collections.ConfigDict:
    """Adds a field for every number of the miners and losses of the user's own.

    Args:
      config: the config to add them to.
      named_by: the config that names those parts by their import paths; None for the same one.

    Raises:
      InputError: one of them cannot be imported.
    """
    names = config if named_by is None else named_by
    for field, section in fields.WITH_KNOBS.items():
        try:
            name = names[section][field.rpartition(".")[2]]
        except (KeyError, TypeError):  # of a damaged file, which is reported elsewhere
            continue
        if import_paths.is_path(name):
            try:
                function = import_paths.function(name)
            except errors.InputError as error:
                raise errors.InputError(f"{field}={error}") from error
            with config.unlocked():
                _add_knobs(config[section].knobs, declaration.numbers(function))
    return config


def _add_knobs(knobs, numbers):
    for name, value in numbers.items():
        if name not in knobs:
            knobs[name] = config_dict.placeholder(type(value))


def with_differences(
    config: ml_collections.ConfigDict, differences: Mapping[str, Any]
) -> ml_collections.ConfigDict:
    """The config with some fields set; a name under "schedules." may be new, or a mapping."""
    parts = {name: value for name, value in differences.items() if name in fields.WITH_KNOBS}
    config.update_from_flattened_dict(parts)
    add_own_knobs(config)
    for field, value in differences.items():
        owner, _, name = field.rpartition(".")
        if owner == "schedules":
            with config.unlocked():
                config.schedules[name] = schedule(**value)
        else:
            config.update_from_flattened_dict({field: value})
    return config
