"""The file that says what a folder of many runs is of, and whether the folder may go on with it."""

import json
import pathlib
from collections.abc import Collection
from typing import Any

from experiments.config import saved_configs
from experiments.config.fields import declaration
from triplet_jax import errors
from triplet_jax.runs import files


def before(
    path: pathlib.Path,
    section: declaration.Section,
    now: dict[str, Any],
    *,
    needed: Collection[str],
    grows: str,
    may_change: Collection[str] = (),
) -> dict[str, Any] | None:
    """What the file of a folder holds; None where there is no file yet.

    Fields of `section` may change if they do not concern what is learned. The config `run` may be
    older than some of its fields.

    Args:
      path: the file, such as sweep.json.
      section: the fields, beside `run`.
      now: what the folder is to go on with.
      needed: the names that the file must hold.
      grows: the field that may be added to, for messages.
      may_change: the names of others that may change.

    Raises:
      InputError: the file is damaged, or the folder is of something else.
    """
    if not path.exists():
        return None
    held = files.read_json(path, *needed)
    if different := _different(section, held, now, may_change):
        raise errors.InputError(
            f"--workdir={path.parent} holds another {path.stem}: {', '.join(different)} differ."
            f" Give another --workdir, or the same {path.stem} to go on; only {grows} may be added."
        )
    return held


def _different(section, before, now, may_change):
    """The fields that differ, and may not."""
    free = {"run", *may_change} | {
        name for name, field in section.fields.items() if field.may_change
    }
    names = sorted((now.keys() | before.keys()) - free)
    # A file may be older than some of the fields.
    defaults = {name: field.default for name, field in section.fields.items()}
    held = json.loads(json.dumps(defaults)) | before
    found = [name for name in names if now.get(name) != held.get(name)]
    runs = [_as_today(content.get("run")) for content in (now, before)]
    return found + ["run"] * (runs[0] != runs[1])


def _as_today(run):
    """A config, also one that was written before it had some fields."""
    try:
        return json.loads(saved_configs.from_content(run).to_json())
    except (ValueError, TypeError, AttributeError):  # damaged, so that it is like no other
        return run
