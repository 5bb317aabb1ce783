"""The config of a run that was written to a file.

A run may be older than a field. Such a field gets what the code did before it existed: its
default of today, or what `BEFORE` says where that differs. A field that was replaced since becomes
what has replaced it: `log.tensorboard` is an entry of `log.trackers`.
"""

import json
import pathlib
from collections.abc import Callable
from typing import Any

import ml_collections

from experiments.config import completion, defaults

# By field, what a saved config without it stood for, where that is not its default of today: a
# value, or a function from the saved content, a nested dict, to the value.
BEFORE: dict[str, Any | Callable[[dict], Any]] = {
    # Features were taken as they were; with images the field has no effect.
    "dataset.standardise": lambda content: not _is_of_features(content),
}


# The same for the records in the section `schedules`.
BEFORE_IN_SCHEDULES = {"scale": "linear", "holds": "active_fraction"}


def get_config(path: str) -> ml_collections.ConfigDict:
    """The config in a file.

    Raises:
      OSError: the file cannot be read.
      ValueError, TypeError: it holds no nested dict of values of the fields' types.
      InputError: a part of the user's own that it names cannot be imported.
    """
    try:
        content = json.loads(pathlib.Path(path).read_text())
    except ValueError as error:
        # Not the error of json itself: absl makes another of its class, by the message alone.
        raise ValueError(f"{path} is no JSON: {error}") from error
    return from_content(content)


def from_content(content: dict[str, Any]) -> ml_collections.ConfigDict:
    """The config of what such a file holds.

    Raises:
      ValueError, TypeError: it is no nested dict of values of the fields' types.
      InputError: a part of the user's own that it names cannot be imported.
    """
    config = defaults.get_config()
    _check_sections(content, config)
    content = _with_fields_of_today(_with_tuples(content))
    content.pop("components", None)  # the hashes of the files of the user's own parts
    defaults.add_own_knobs(config, content)
    for field, value in BEFORE.items():
        if not _holds(content, field):
            value = value(content) if callable(value) else value
            config.update_from_flattened_dict({field: value})
    config.update(content)
    return completion.completed(config)


def _with_fields_of_today(content):
    """The content with the fields that have replaced others since, or that schedules lack."""
    records = content.get("schedules")
    if isinstance(records, dict):
        whole = {
            name: BEFORE_IN_SCHEDULES | record if isinstance(record, dict) and record else record
            for name, record in records.items()
        }
        content = content | {"schedules": whole}
    log = dict(content.get("log", {}))
    if "tensorboard" not in log:
        return content
    if not isinstance(log["tensorboard"], bool):
        raise TypeError(f"log.tensorboard={log['tensorboard']!r} must be true or false.")
    before = ("tensorboard",) * log.pop("tensorboard")
    return content | {"log": {"trackers": before} | log}


def _check_sections(content, usual, owner=""):
    if not isinstance(content, dict):
        raise ValueError(f"{owner or 'it'} must be an object with fields, not {content!r}.")
    for name in usual:
        if name in content and isinstance(usual[name], ml_collections.ConfigDict):
            _check_sections(content[name], usual[name], f"{owner}.{name}" if owner else name)


def _is_of_features(content):
    return content.get("dataset", {}).get("name") in ("arrays", "pairs")


def _holds(content, field):
    """Whether nested content has a field, given by its dotted name."""
    for name in field.split("."):
        if not isinstance(content, dict) or name not in content:
            return False
        content = content[name]
    return True


def _with_tuples(content):
    """JSON has no tuples, and configs no lists."""
    if isinstance(content, dict):
        return {name: _with_tuples(value) for name, value in content.items()}
    return tuple(map(_with_tuples, content)) if isinstance(content, list) else content
