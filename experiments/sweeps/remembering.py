"""The file that says what a folder of many runs is of, and whether the folder may go on with it."""

import json
from collections.abc import Collection
from typing import Any

from experiments.config import saved_configs
from experiments.config.fields import declaration


def different(
    section: declaration.Section,
    before: dict[str, Any],
    now: dict[str, Any],
    may_change: Collection[str] = (),
) -> list[str]:
    """The fields that differ, and may not.

    Fields of `section` may change if they do not concern what is learned. The config `run` may be
    older than some of its fields.

    Args:
      section: the fields, beside `run`.
      before: what the file holds.
      now: what the folder is to go on with.
      may_change: the names of others that may change.
    """
    free = {"run", *may_change} | {
        name for name, field in section.fields.items() if field.concerns != declaration.TRAINING
    }
    names = sorted((now.keys() | before.keys()) - free)
    found = [name for name in names if now.get(name) != before.get(name)]
    runs = [_as_today(content.get("run")) for content in (now, before)]
    return found + ["run"] * (runs[0] != runs[1])


def _as_today(run):
    """A config, also one that was written before it had some fields."""
    try:
        return json.loads(saved_configs.from_content(run).to_json())
    except (ValueError, TypeError, AttributeError):  # damaged, so that it is like no other
        return run
