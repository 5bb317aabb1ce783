"""Which fields of a run may change when it goes on, and which did.

Each field declares what it concerns. A field of TRAINING or EXAMPLES may not change, since another
value makes another run; only `train.steps` may grow, if nothing before the old end depends on it. A
field of JUDGING may change, and later scores report it. A field of MACHINE may change and affects
nothing.
"""

import pathlib
from collections.abc import Collection, Mapping
from typing import Any

from experiments.config import fields
from triplet_jax import errors
from triplet_jax.runs import files

FILE = "changes.json"

# Schedules that do not know how long the run is.
_ENDLESS = ("constant", "self_paced")


def different(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """The fields, by their dotted names, whose values differ."""
    return sorted(n for n in before.keys() | now.keys() if before.get(n) != now.get(n))


def refused(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """A line for each change that a run cannot go on with; empty if it can go on.

    Args:
      before: the fields of the run, by their dotted names.
      now: the fields that it is to go on with.
    """
    lines = []
    for name in different(before, now):
        why = ""
        if fields.may_change(name):
            continue
        if name == "train.steps" and now[name] > before[name]:
            reasons = _what_knows_the_end(before)
            if not reasons:
                continue
            why = (
                f"; {' and '.join(reasons)}, so that a longer run differs from its first step on:"
                " train it anew"
            )
        lines.append(f"  {name}: {before.get(name)!r} there, {now.get(name)!r} now{why}")
    return lines


def _what_knows_the_end(values):
    """What depends on the total number of steps, as parts of a sentence."""
    reasons = []
    if values["optimizer.decay"] != "constant":
        reasons.append(
            f"optimizer.decay={values['optimizer.decay']!r} leads the learning rate to 0 at the"
            " last step"
        )
    for name, value in values.items():
        if name.startswith("schedules.") and name.endswith(".kind") and value not in _ENDLESS:
            reasons.append(f"{name}={value!r} moves by the share of all steps")
    return reasons


def note(
    workdir: pathlib.Path, before: Mapping[str, Any], now: Mapping[str, Any], step: int
) -> None:
    """Adds the changes to the run's history, with the step after which they were made.

    Args:
      workdir: of the run.
      before: the fields of the run, by their dotted names.
      now: the fields that it goes on with.
      step: the number of steps that it has taken.
    """
    new = [
        {"step": step, "field": name, "before": before.get(name), "after": now.get(name)}
        for name in different(before, now)
    ]
    # A run that was killed between this file and its config notes the same changes again.
    kept = [change for change in history(workdir) if change not in new]
    files.write_json(workdir / FILE, {"changes": kept + new})


def history(workdir: pathlib.Path) -> list[dict[str, Any]]:
    """The changes since the run began, each with `step`, `field`, `before` and `after`.

    Raises:
      InputError: the file is damaged.
    """
    path = workdir / FILE
    if not path.exists():
        return []
    found = files.read_json(path, "changes")["changes"]
    if not isinstance(found, list) or not all(map(_is_change, found)):
        raise errors.InputError(
            f"{path} is damaged: it holds no list of changes. Put it back as it was, or remove it."
        )
    return found


def _is_change(change):
    if not isinstance(change, dict) or change.keys() != {"step", "field", "before", "after"}:
        return False
    return type(change["step"]) is int and isinstance(change["field"], str)


def last_step_of(workdir: pathlib.Path, names: Collection[str]) -> int:
    """The step after which one of these fields changed last; 0 if none did."""
    return max([change["step"] for change in history(workdir) if change["field"] in names] + [0])
