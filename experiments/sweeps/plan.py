"""Plans the runs of a sweep, and checks all of them before the first one starts."""

import contextlib
import json
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

import ml_collections

from experiments.config import check as config_checks
from experiments.config import completion, components, defaults, fields, settings
from experiments.run import data_json
from experiments.run.setup import Setup
from experiments.sweeps import remembering, runs, vectorised
from triplet_jax import data, errors
from triplet_jax.runs import files


def plan(
    sweep: ml_collections.ConfigDict,
    workdir: pathlib.Path,
    chosen: Mapping[tuple[str, str], Mapping[str, Any]] | None = None,
) -> list[runs.Run]:
    """Makes all runs, in the order in which they are carried out, each with a checked config.

    Args:
      sweep: its config; see `configs.sweeps.base`.
      workdir: of the sweep.
      chosen: more fields of an arm in a setting, by the names of the setting and the arm.

    Raises:
      InputError: a name is used twice or cannot name a folder, a field is not known, a run's config
        makes no sense, or the engine, the reference, the metric or a seed is not valid.
    """
    check(sweep)
    planned = []
    for setting, in_setting in sweep.settings:
        for arm, of_arm in sweep.arms:
            differences = in_setting | of_arm | dict((chosen or {}).get((setting, arm), {}))
            for seed in sweep.seeds:
                planned.append(run_of(sweep, (setting, arm, seed), differences, workdir))
            check_run(sweep, planned[-1])
    return planned


def check(sweep: ml_collections.ConfigDict) -> None:
    """Refuses a sweep that makes no sense, whatever its arms set.

    Raises:
      InputError: naming the field.
    """
    fields.SWEEP.check(sweep)
    _check_names("arms", sweep.arms)
    _check_names("settings", sweep.settings)
    arms = [name for name, _ in sweep.arms]
    errors.check_known("reference", sweep.reference, arms)
    for arm in sweep.best_of:
        errors.check_known("best_of", arm, arms)
    check_seeds(sweep.seeds)
    check_seeds_differ(sweep)
    _check_slurm(sweep.slurm)


def run_of(
    sweep: ml_collections.ConfigDict,
    names: tuple[str, str, int],
    differences: Mapping[str, Any],
    workdir: pathlib.Path,
) -> runs.Run:
    """Makes a run, whose config is not checked.

    Args:
      sweep: its config.
      names: of the setting and of the arm, and the seed.
      differences: the fields in which it differs from the config `run`, but for the seed.
      workdir: the folder that holds its folder.

    Raises:
      InputError: a field is not known, or does not take its value.
    """
    setting, arm, seed = names
    if twice := sorted(set(differences) & set(sweep.also_seeds)):
        raise errors.InputError(
            f"arm {arm!r} sets {twice[0]}, which each run takes from its seed: leave it out, or"
            " take it out of also_seeds."
        )
    differences = {**differences, **dict.fromkeys(sweep.also_seeds, seed)}
    config = completion.completed(config_of(sweep.run, differences, f"arm {arm!r}"))
    return runs.Run(arm, setting, seed, config, workdir)


def check_run(sweep: ml_collections.ConfigDict, run: runs.Run) -> None:
    """Refuses a run whose config makes no sense, or is not obeyed by the sweep's engine.

    Raises:
      InputError: naming the arm, the setting and the field.
    """
    with _naming(run):
        config_checks.check(run.config)
        check_engine(sweep.engine, run.config)


def check_seeds(seeds: Sequence[int], field: str = "seeds") -> None:
    """Refuses seeds that are equal, negative or too large, and no seeds.

    Args:
      seeds: of runs.
      field: the name of the field that has them.

    Raises:
      InputError: with the seeds.
    """
    if not seeds or len(set(seeds)) < len(seeds):
        raise errors.InputError(f"{field}={tuple(seeds)} must be different, and at least one.")
    if not all(0 <= seed < 2**31 for seed in seeds):
        raise errors.InputError(f"{field}={tuple(seeds)} must be from 0 to 2^31 - 1.")


def check_seeds_differ(config: ml_collections.ConfigDict) -> None:
    """Refuses several seeds that set nothing: their runs would be one and the same.

    Args:
      config: of a sweep or of a study.

    Raises:
      InputError: `also_seeds` is empty.
    """
    if len(config.seeds) > 1 and not config.also_seeds:
        raise errors.InputError(
            f"also_seeds=() sets nothing to the seed, so that the runs of seeds={config.seeds} are"
            " equal: name the fields that the seed sets, such as ('seed',)."
        )


def _check_slurm(c):
    fields.SLURM.check(c, "slurm.")
    if c.grace_seconds >= 60 * c.minutes:
        raise errors.InputError(
            f"slurm.grace_seconds={c.grace_seconds} must be below slurm.minutes={c.minutes}, which"
            f" is {60 * c.minutes} seconds."
        )


def check_pairs(field: str, pairs: Sequence[Any], kind: type = Mapping) -> None:
    """Refuses what is no pair of a name and what it stands for.

    Args:
      field: the name of the field that has them.
      pairs: its value.
      kind: the type of what a name stands for.

    Raises:
      InputError: with the first that is no pair.
    """
    for pair in pairs:
        whole = isinstance(pair, tuple | list) and len(pair) == 2 and isinstance(pair[0], str)
        if not whole or not isinstance(pair[1], kind):
            words = "a list" if kind is Sequence else "a dict"
            raise errors.InputError(
                f"{field}: {pair!r} is no pair of a name and {words}. A single pair has a comma"
                " after it: ((NAME, ...),)."
            )


def _check_names(field, pairs):
    check_pairs(field, pairs)
    seen = set()
    for name, _ in pairs:
        if name in seen:
            raise errors.InputError(f"{field}: {name!r} is there twice; names must differ.")
        seen.add(name)
        cannot = name in (".", "..") or (not name and len(pairs) > 1)
        if cannot or not re.fullmatch(r"[\w.+-]*", name):
            raise errors.InputError(
                f"{field}: {name!r} is to name a folder; use letters, digits and . _ + - only."
            )
    if not seen:
        raise errors.InputError(f"{field} is empty; give pairs of a name and the fields it sets.")


def config_of(
    run: ml_collections.ConfigDict, differences: Mapping[str, Any], owner: str
) -> ml_collections.FrozenConfigDict:
    """The config `run` with some fields set.

    Args:
      run: the config.
      differences: the values by the names of the fields.
      owner: whose they are, in messages.

    Raises:
      InputError: a field is not known, or a value has another type.
    """
    config = run.copy_and_resolve_references()
    named = {field: differences[field] for field in fields.WITH_KNOBS if field in differences}
    try:
        known = settings.flat(defaults.like(defaults.with_differences(config, named)))
        for field in differences:
            if not field.startswith("schedules."):
                errors.check_known("field", field, known)
        defaults.with_differences(config, differences)
    except (TypeError, ValueError, KeyError) as error:
        raise errors.InputError(f"{owner}: {error}") from error
    return ml_collections.FrozenConfigDict(config)


def check_engine(engine: str, config: ml_collections.FrozenConfigDict) -> None:
    """Refuses an engine that does not obey a field of the config.

    Raises:
      InputError: naming the engine and the field.
    """
    ignored = {
        "dataset.placement": config.dataset.placement == "stream",
        "offline.every": config.offline.every > 0,
        "offline.table": bool(config.offline.table),
        "train.patience": config.train.patience > 0,
    }
    if engine in ("processes", "slurm"):
        for complaint in components.known_here_alone(config):
            raise errors.InputError(f"engine={engine!r}: {complaint}")
    for field, asked in ignored.items():
        if engine == "vectorised" and asked:
            raise errors.InputError(
                f"engine='vectorised' does not obey {field}={settings.flat(config)[field]!r}:"
                " choose engine='here' or 'processes'."
            )


def check_data(planned: list[runs.Run]) -> None:
    """Opens the data of every arm, and builds its model.

    Raises:
      InputError: an arm cannot be trained, or runs of it have begun with other data, while others
        have not ended; the message names it.
    """
    different: dict[tuple, list[runs.Run]] = {}
    for run in planned:
        # The noise depends on the seed, and may leave a class too few examples.
        noisy = run.seed if run.config.dataset.label_noise else None
        different.setdefault((run.setting, run.arm, noisy), []).append(run)
    goes_on = not all(run.has_ended for run in planned)
    for alike in different.values():
        run = alike[0]
        with _naming(run):
            setup = Setup(run.config, run.folder, vectorised.dataset(run.config))
            setup.check()
            if goes_on:
                check_begun(alike, setup.everything)


def check_begun(some: Sequence[runs.Run], everything: data.Dataset) -> None:
    """Refuses other data than those of runs that have begun: what is left is compared with them.

    Args:
      some: runs on the same data.
      everything: all examples, as they are now.

    Raises:
      InputError: a run began with other data, or with another file by which batches are drawn.
    """
    begun = [run for run in some if (run.folder / "data.json").exists()]
    now = data_json.content(everything) if begun else {}
    for run in begun:
        data_json.check(run.folder, now | data_json.of_files(run.config))


@contextlib.contextmanager
def _naming(run):
    try:
        yield
    except errors.InputError as error:
        where = f"arm {run.arm!r}" + (f" in setting {run.setting!r}" if run.setting else "")
        raise errors.InputError(f"{where}: {error}") from error


def remember(sweep: ml_collections.ConfigDict, workdir: pathlib.Path) -> None:
    """Writes `sweep.json` of a new sweep, or checks that the folder is of this one.

    Seeds may be added, and what does not touch the runs may change.

    Args:
      sweep: its config.
      workdir: of the sweep.

    Raises:
      InputError: the folder holds another sweep; the message names the fields that differ.
    """
    path = workdir / "sweep.json"
    now = json.loads(sweep.to_json())
    before = remembering.before(
        path, fields.SWEEP, now, needed=("seeds",), grows="seeds", may_change=("slurm",)
    )
    if before is not None:
        now["seeds"] = sorted({*before["seeds"], *now["seeds"]})
    files.write_json(path, now)
