"""Every field of a config, of a sweep and of a study, declared once, by section.

Everything else that concerns single fields is derived from here: the defaults (`config.defaults`),
the checks (`config.check`), what may change when a run goes on (`run.changes`), and docs/fields.md,
which `python -m experiments.config.fields` writes.
"""

from experiments.config.fields import (
    augment,
    batch,
    dataset,
    evaluate,
    log,
    loss,
    memory,
    mining,
    model,
    offline,
    optimizer,
    schedules,
    sweep,
    train,
    tune,
)
from experiments.config.fields.declaration import (
    FINITE,
    TRAINING,
    Each,
    Field,
    OneOf,
    Part,
    Range,
    Section,
    at_least,
)

TOP = Section(
    "",
    "",
    {"seed": Field(0, "The seed of the initial weights and of everything drawn.", at_least(0))},
)
SECTIONS = (
    TOP,
    dataset.SECTION,
    batch.SECTION,
    offline.SECTION,
    augment.SECTION,
    model.SECTION,
    mining.SECTION,
    loss.SECTION,
    memory.SECTION,
    optimizer.SECTION,
    train.SECTION,
    evaluate.SECTION,
    log.SECTION,
)
SCHEDULE = schedules.SECTION
"""The fields of one schedule; a config has as many schedules as it likes."""
SWEEP, SLURM = sweep.SECTION, sweep.SLURM
TUNE = tune.SECTION

FIELDS = {
    f"{section.name}.{name}".removeprefix("."): field
    for section in SECTIONS
    for name, field in section.fields.items()
}
"""All fields but the knobs, by their dotted names."""
KNOBS = {
    f"{section.name}.knobs.{name}": knob
    for section in SECTIONS
    if section.knobs
    for name, knob in section.knobs.described.items()
}
"""The knobs of the library's miners and losses, by their dotted names."""
MOVABLE = tuple(name for name, field in FIELDS.items() if field.moves)
"""The numbers outside of the knobs that a schedule may move."""

# The fields that name a miner or a loss, by the section of its knobs.
WITH_KNOBS = {"mining.miner": "mining", "loss.penalty": "loss", "loss.name": "loss"}


def is_knob(name: str) -> bool:
    """Whether a field is a number of the miner or of the loss, of the user's own too."""
    return name.startswith(("mining.knobs.", "loss.knobs."))


def allowed(name: str) -> Range | Each | OneOf | Part | None:
    """The values that a field may have; None for all of its type. Every knob is finite."""
    if name in FIELDS:
        return FIELDS[name].allowed
    if name in KNOBS:
        return KNOBS[name].allowed
    return FINITE if is_knob(name) else None


def concerns(name: str) -> str:
    """What a field concerns; TRAINING for an unknown one."""
    return FIELDS[name].concerns if name in FIELDS else TRAINING


def may_change(name: str) -> bool:
    """Whether a run may go on with another value of a field; no for an unknown one."""
    return name in FIELDS and FIELDS[name].may_change
