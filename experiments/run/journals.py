"""What is written down of a run while it trains: its files of rows, and the screen."""

import contextlib
import pathlib

import ml_collections

from experiments.config import datasets, objective
from experiments.run import changes, collapse
from experiments.run.setup import Setup
from triplet_jax.runs import row_files
from triplet_jax.runs.journal import Journal
from triplet_jax.runs.progress import Progress
from triplet_jax.runs.stopwatch import Stopwatch
from triplet_jax.runs.trackers.background import Trackers


def open_rows(
    config: ml_collections.FrozenConfigDict,
    workdir: pathlib.Path,
    name: str,
    *,
    first_step: int,
    validates: bool,
) -> row_files.RowFile:
    """Opens the file of rows of a name, `metrics`, `timing` or `telemetry`.

    Args:
      config: of the run.
      workdir: of the run.
      name: of the file.
      first_step: the step from which the run goes on; later rows are written again.
      validates: whether the validation split is scored.
    """
    every = {}  # how many steps apart the rows with these names are
    if name == "metrics":
        every["loss"] = config.log.every
        if validates:
            every["validation/map_at_r"] = config.evaluate.every
    elif name == "telemetry" and config.log.telemetry_every:
        every["step"] = config.log.telemetry_every
    since = changes.last_step_of(
        workdir, ("log.every", "log.telemetry_every", "evaluate.every", "train.steps")
    )
    path = workdir / f"{name}.jsonl"
    return row_files.RowFile(path, last_step=first_step, every=every, since=since)


def open_journal(
    run: Setup,
    first_step: int,
    watch: Stopwatch,
    trackers: Trackers,
    resources: contextlib.ExitStack,
    *,
    is_over: bool = False,
) -> Journal:
    """Opens the journal of a run that goes on from `first_step`; `resources` closes it.

    If the run `is_over`, no step is left.
    """
    config, validates = run.config, datasets.can_score(run.config, run.validation)

    def rows(name):
        return open_rows(config, run.workdir, name, first_step=first_step, validates=validates)

    journal = Journal(
        rows=rows("metrics"),
        timing=rows("timing"),
        telemetry=rows("telemetry") if config.log.telemetry_every else None,
        trackers=trackers,
        progress=Progress(
            steps=config.train.steps,
            first_step=first_step,
            batch=config.batch.classes * config.batch.per_class,
            is_over=is_over,
        ),
        collapsed_loss=objective.collapsed_loss(config),
        stopwatch=watch,
        advice=lambda: collapse.advice(config, run.examples),
    )
    resources.callback(journal.close)
    return journal
