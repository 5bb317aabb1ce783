"""Runs the arms of an experiment over seeds, and compares them.

    python -m experiments.sweep --config=configs/sweeps/schedules.py --workdir=runs/schedules

The same command continues a sweep that was stopped or killed: finished runs stay, and a run that
failed is kept with its error. `--retry` runs those again.
"""

import contextlib
import json
import pathlib
import re
import sys
import time

import ml_collections
import rich.console
import rich.live
import rich.table
from absl import flags

from configs import base
from experiments import (
    build,
    check,
    claim,
    command,
    components,
    engines,
    report,
    runs,
    settings,
    slurm,
    vectorised,
)
from triplet_jax import errors, logging

CONFIG = command.config_file("File of a sweep.")
METRICS = ("map_at_r", "r_precision", "precision_at_1")
METRICS += tuple(f"recall_at_{k}" for k in (1, 2, 4, 8))
CANCEL = flags.DEFINE_bool("cancel", False, "End the jobs of the engine slurm.")
RETRY = flags.DEFINE_bool("retry", False, "Run those again that failed.")


def main() -> None:
    command.required(CONFIG, "a sweep, such as --config=configs/sweeps/schedules.py")
    sweep = CONFIG.value
    workdir = pathlib.Path(command.required(command.WORKDIR, "the folder of the sweep")).absolute()
    planned = plan(sweep, workdir)
    check_data(planned)
    command.make_workdir(str(workdir))
    if CANCEL.value or sweep.engine == "slurm":
        slurm.check()
    if CANCEL.value:
        print(f"cancelled {slurm.cancel(workdir)} jobs")
        return
    with claim.claimed(workdir):
        for run in planned:
            components.check_unchanged(run.folder, run.config)
        remember(sweep, workdir)
        if RETRY.value:
            failed = [run for run in planned if run.state == "failed"]
            slurm.Book(workdir).forget(failed)
            for run in failed:
                run.error_file.unlink()
        carry_out(sweep, planned, workdir)


def carry_out(sweep: ml_collections.ConfigDict, planned: list[runs.Run], workdir) -> None:
    """Does the runs that have not ended, and writes the report once all have."""
    pending = [run for run in planned if not run.has_ended]
    print(
        f"sweep   {len(planned)} runs: {len(sweep.arms)} arms x {len(sweep.settings)} settings x"
        f" {len(sweep.seeds)} seeds; {len(pending)} to do, by the engine {sweep.engine}"
    )
    if sweep.claim:
        print(f"claim   {sweep.claim} ({sweep.source})")
    with Board(planned, sweep.metric) as board:
        engines.ENGINES[sweep.engine](planned, sweep, board.show)
    unfinished = [run for run in planned if not run.has_ended]
    if unfinished:
        print(f"stopped with {len(unfinished)} runs to do. Run the same command again to go on.")
        return
    report.write(workdir)


def plan(sweep: ml_collections.ConfigDict, workdir: pathlib.Path) -> list[runs.Run]:
    """All runs, in the order in which they are to be run, each with its config checked.

    Raises:
      InputError: a name is used twice or is no folder's, a field is not known, a run's config makes
        no sense, or an engine, a reference or a seed is missing.
    """
    errors.check_known("engine", sweep.engine, engines.ENGINES)
    _check_names("arms", sweep.arms)
    _check_names("settings", sweep.settings)
    arms = [name for name, _ in sweep.arms]
    errors.check_known("reference", sweep.reference, arms)
    for arm in sweep.best_of:
        errors.check_known("best_of", arm, arms)
    if not sweep.seeds or len(set(sweep.seeds)) < len(sweep.seeds):
        raise errors.InputError(f"seeds={tuple(sweep.seeds)} must be different, and at least one.")
    errors.check_known("metric", sweep.metric, METRICS)
    if not all(0 <= seed < 2**31 for seed in sweep.seeds):
        raise errors.InputError(f"seeds={tuple(sweep.seeds)} must be from 0 to 2^31 - 1.")
    if sweep.processes < 1:
        raise errors.InputError(f"processes={sweep.processes} must be at least 1.")
    _check_slurm(sweep.slurm)
    planned = []
    for setting, in_setting in sweep.settings:
        for arm, of_arm in sweep.arms:
            for seed in sweep.seeds:
                differences = in_setting | of_arm | dict.fromkeys(sweep.also_seeds, seed)
                config = _config(sweep.run, differences, f"arm {arm!r}")
                planned.append(runs.Run(arm, setting, seed, config, workdir))
            with _naming(planned[-1]):
                check.check(planned[-1].config)
                _check_engine(sweep, planned[-1].config)
    return planned


def _check_slurm(c):
    least = dict.fromkeys(("minutes", "nodes", "tasks_per_node", "cpus_per_task", "parallel"), 1)
    for name, smallest in (
        least | {"gpus_per_node": 0, "memory_gb": 0, "grace_seconds": 0}
    ).items():
        if c[name] < smallest:
            raise errors.InputError(f"slurm.{name}={c[name]} must be at least {smallest}.")
    if c.grace_seconds >= 60 * c.minutes:
        raise errors.InputError(
            f"slurm.grace_seconds={c.grace_seconds} must be below slurm.minutes={c.minutes}, which"
            f" is {60 * c.minutes} seconds."
        )


def _check_names(field, pairs):
    seen = set()
    for name, _ in pairs:
        if name in seen:
            raise errors.InputError(f"{field}: {name!r} is there twice; names must differ.")
        seen.add(name)
        if not re.fullmatch(r"[\w.+-]*", name) or (not name and len(pairs) > 1):
            raise errors.InputError(
                f"{field}: {name!r} is to be a folder; use letters, digits and . _ + - only."
            )
    if not seen:
        raise errors.InputError(f"{field} is empty; give pairs of a name and the fields it sets.")


def _config(run, differences, owner):
    config = run.copy_and_resolve_references()
    named = {field: differences[field] for field in base.WITH_KNOBS if field in differences}
    try:
        known = settings.flat(base.like(base.with_differences(config, named)))
        for field in differences:
            if not field.startswith("schedules."):
                errors.check_known("field", field, known)
        base.with_differences(config, differences)
    except (TypeError, ValueError, KeyError) as error:
        raise errors.InputError(f"{owner}: {error}") from error
    return ml_collections.FrozenConfigDict(config)


def _check_engine(sweep, config):
    ignored = {
        "dataset.placement": config.dataset.placement == "stream",
        "log.tensorboard": config.log.tensorboard,
        "offline.every": config.offline.every > 0,
        "offline.table": bool(config.offline.table),
    }
    if sweep.engine in ("processes", "slurm"):
        for complaint in components.known_here_alone(config):
            raise errors.InputError(f"engine={sweep.engine!r}: {complaint}")
    for field, asked in ignored.items():
        if sweep.engine == "vectorised" and asked:
            raise errors.InputError(
                f"engine='vectorised' does not obey {field}={settings.flat(config)[field]!r}:"
                " choose engine='here' or 'processes'."
            )


def check_data(planned: list[runs.Run]) -> None:
    """Opens what every arm is to train on.

    Raises:
      InputError: naming the arm, and why it cannot be trained.
    """
    # Noise depends on the seed, and may leave a class too few examples.
    different = {
        (run.setting, run.arm, run.seed if run.config.dataset.label_noise else None): run
        for run in reversed(planned)
    }
    for run in different.values():
        with _naming(run):
            everything = vectorised.dataset(run.config)
            build.check_test(run.config, everything)
            build.training_split(run.config, everything)
            build.encoder(run.config, everything.input_shape, everything.pair_shapes)
            build.augmentation(run.config, everything.input_shape)


@contextlib.contextmanager
def _naming(run):
    try:
        yield
    except errors.InputError as error:
        where = f"arm {run.arm!r}" + (f" in setting {run.setting!r}" if run.setting else "")
        raise errors.InputError(f"{where}: {error}") from error


def remember(sweep: ml_collections.ConfigDict, workdir: pathlib.Path) -> None:
    """Writes what the sweep is, or refuses a folder of another one. Seeds may be added.

    Raises:
      InputError: naming what differs.
    """
    path = workdir / "sweep.json"
    now = json.loads(sweep.to_json())
    if path.exists():
        before = logging.read_json(path, "seeds")
        may_change = (
            "metric",
            "seeds",
            "engine",
            "processes",
            "slurm",
            "claim",
            "source",
            "best_of",
        )
        different = [
            name
            for name in sorted(now.keys() | before.keys())
            if now.get(name) != before.get(name) and name not in may_change
        ]
        if different:
            raise errors.InputError(
                f"--workdir={workdir} holds another sweep: {', '.join(different)} differ. Give"
                " another --workdir, or the same sweep to go on; only seeds may be added."
            )
        now["seeds"] = sorted({*before["seeds"], *now["seeds"]})
    logging.write_json(path, now)


class Board:
    """All runs at a glance: a live table in a terminal, else a line for each run that ends."""

    def __init__(self, planned: list[runs.Run], metric: str):
        self._planned, self._metric = planned, metric
        self._started = time.monotonic()
        self._before = {run.folder for run in planned if run.has_ended}
        self._told = set(self._before)
        # Fixed, since an engine may send what a run prints elsewhere.
        self._console = rich.console.Console(file=sys.stdout)
        self._live = None

    def __enter__(self):
        if self._console.is_terminal:
            self._live = rich.live.Live(
                get_renderable=self._table, console=self._console, refresh_per_second=1
            )
            self._live.start()
        return self

    def __exit__(self, *_):
        self.show()
        if self._live:
            self._live.stop()

    def show(self) -> None:
        """Tells of the runs that ended since the last call."""
        if self._live:
            return
        for run in self._planned:
            if run.folder not in self._told and run.has_ended:
                self._told.add(run.folder)
                print(f"{self._count()}  {run.name}: {self._cell(run)}{self._eta()}", flush=True)

    def _count(self):
        ended = sum(run.has_ended for run in self._planned)
        return f"{ended:4d}/{len(self._planned)}"

    def _eta(self):
        """From the steps that were taken since the start."""
        taken, left = 0, 0
        for run in self._planned:
            if run.folder in self._before:
                continue
            steps = run.config.train.steps
            at = steps if run.has_ended else run.last_step
            taken, left = taken + at, left + steps - at
        seconds = (time.monotonic() - self._started) * left / max(taken, 1)
        return f"  ETA {seconds:,.0f} s" if taken and left else ""

    def _cell(self, run):
        state = run.state
        if state == "done":
            return f"{self._metric} {run.score(self._metric):.4f}"
        if state == "failed":
            return f"failed: {run.error_file.read_text().splitlines()[-1]}"
        step = run.last_step
        return f"{step}/{run.config.train.steps}" if step else "waiting"

    def _table(self):
        seeds = sorted({run.seed for run in self._planned})
        table = rich.table.Table(
            "setting", "arm", *map(str, seeds), caption=f"{self._count()} runs{self._eta()}"
        )
        rows: dict[tuple[str, str], dict[int, str]] = {}
        for run in self._planned:
            cell = self._cell(run).removeprefix(f"{self._metric} ")
            rows.setdefault((run.setting, run.arm), {})[run.seed] = cell[:16]
        for (setting, arm), cells in rows.items():
            table.add_row(setting, arm, *(cells.get(seed, "") for seed in seeds))
        return table


if __name__ == "__main__":
    command.run(
        main, again="Run the same command again to go on with the runs that have not ended."
    )
