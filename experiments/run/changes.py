"""What of a config may change when a run goes on, and what changed in this one.

Every field of `configs.base` is of one of three kinds:

- MACHINE: where the data are, how they are loaded, what is written down. It leaves every bit of the
  run as it was, and may change.
- JUDGING: which checkpoints are made, which of them counts, and how it is scored. It leaves
  training as it was, and may change; evaluations then say so.
- TRAINING: everything else. Another value is another run, and is refused. `train.steps` may grow
  where nothing before the old end depends on it.
"""

import pathlib
from collections.abc import Collection, Mapping
from typing import Any

from triplet_jax import errors
from triplet_jax.runs import files

MACHINE, JUDGING, TRAINING = "machine", "judging", "training"

# Sections that are of one kind as a whole; a field of any other section has a line of its own.
SECTIONS = dict.fromkeys(
    ("augment", "batch", "loss", "memory", "mining", "model", "offline", "optimizer", "schedules"),
    TRAINING,
)
FIELDS = {
    "seed": TRAINING,
    "dataset.name": TRAINING,
    "dataset.path": MACHINE,  # the mark of the data decides whether they are the same
    "dataset.data_dir": MACHINE,
    "dataset.image_feature": TRAINING,
    "dataset.label_feature": TRAINING,
    "dataset.train_split": TRAINING,
    "dataset.validation_split": TRAINING,
    "dataset.test_split": TRAINING,
    "dataset.image_size": TRAINING,
    "dataset.channels": TRAINING,
    "dataset.invert": TRAINING,
    "dataset.fit": TRAINING,
    "dataset.background": TRAINING,
    "dataset.max_pixels": MACHINE,  # the mark of the data decides whether they are the same
    "dataset.class_level": TRAINING,
    "dataset.split_by": TRAINING,
    "dataset.test_fraction": TRAINING,
    "dataset.validation_fraction": TRAINING,
    "dataset.split_seed": TRAINING,
    "dataset.turns_as_classes": TRAINING,
    "dataset.images_as_classes": TRAINING,
    "dataset.bad_images": TRAINING,
    "dataset.standardise": TRAINING,
    "dataset.placement": TRAINING,  # another compiled program, which may round otherwise
    "dataset.workers": MACHINE,
    "dataset.label_noise": TRAINING,
    "dataset.noise_kind": TRAINING,
    "dataset.noise_seed": TRAINING,
    "dataset.drop_noisy": TRAINING,
    "train.steps": TRAINING,
    "train.micro_batches": TRAINING,
    "evaluate.every": JUDGING,
    "evaluate.batch": JUDGING,  # another rounding of the embeddings
    "evaluate.ways": JUDGING,
    "evaluate.episodes": JUDGING,
    "evaluate.checkpoint": JUDGING,
    "log.every": MACHINE,
    "log.tensorboard": MACHINE,
    "log.telemetry_every": MACHINE,
    "log.telemetry_per_anchor": MACHINE,
}
FILE = "changes.json"

# Schedules that do not know how long the run is.
_ENDLESS = ("constant", "self_paced")


def kind(field: str) -> str:
    """Of a field, by its dotted name; TRAINING for one that this code does not know."""
    return FIELDS.get(field) or SECTIONS.get(field.partition(".")[0], TRAINING)


def different(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """The fields, by their dotted names, whose values differ."""
    return sorted(n for n in before.keys() | now.keys() if before.get(n) != now.get(n))


def refused(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """A line for each field that a run cannot go on with, and none where it can.

    Args:
      before: the fields of the run, by their dotted names.
      now: those that it is to go on with.
    """
    lines = []
    for name in different(before, now):
        why = ""
        if kind(name) != TRAINING:
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


def _what_knows_the_end(fields):
    """What depends on how many steps there are in all, as parts of a sentence."""
    reasons = []
    if fields["optimizer.decay"] != "constant":
        reasons.append(
            f"optimizer.decay={fields['optimizer.decay']!r} leads the learning rate to 0 at the"
            " last step"
        )
    for name, value in fields.items():
        if name.startswith("schedules.") and name.endswith(".kind") and value not in _ENDLESS:
            reasons.append(f"{name}={value!r} moves by the share of all steps")
    return reasons


def note(
    workdir: pathlib.Path, before: Mapping[str, Any], now: Mapping[str, Any], step: int
) -> None:
    """Adds to the run's history what changed, and after which step.

    Args:
      workdir: of the run.
      before: the fields of the run, by their dotted names.
      now: those that it goes on with.
      step: the steps that it has taken.
    """
    new = [
        {"step": step, "field": name, "before": before.get(name), "after": now.get(name)}
        for name in different(before, now)
    ]
    # A run that was killed between this file and its config notes the same changes again.
    kept = [change for change in history(workdir) if change not in new]
    files.write_json(workdir / FILE, {"changes": kept + new})


def history(workdir: pathlib.Path) -> list[dict[str, Any]]:
    """What changed while the run was trained: `step`, `field`, `before` and `after` of each.

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


def last_step_of(workdir: pathlib.Path, fields: Collection[str]) -> int:
    """The steps that were taken when one of these fields changed last; 0 where none did."""
    return max([change["step"] for change in history(workdir) if change["field"] in fields] + [0])
