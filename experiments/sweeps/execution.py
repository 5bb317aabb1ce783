"""Carries out a sweep: its trials, the runs that have not ended, and the report once all have."""

import pathlib
from collections.abc import Sequence

import ml_collections

from experiments.run import tracking
from experiments.sweeps import arm_trials, executors, report, runs
from experiments.sweeps.board import Board


def carry_out(
    sweep: ml_collections.ConfigDict, planned: list[runs.Run], workdir: pathlib.Path
) -> None:
    """Carries out the runs that have not ended, and writes the report once all have."""
    _say("sweep", sweep, planned, f"{len(sweep.seeds)} seeds")
    if sweep.claim:
        source = f" ({sweep.source})" if sweep.source else ""
        print(f"claim   {sweep.claim}{source}")
    if _train(sweep, planned, Board(planned, sweep.metric)):
        written = report.write(workdir)
        tracking.show_report(sweep.run.log.trackers, workdir, written)


def choose(
    sweep: ml_collections.ConfigDict, trials: Sequence[arm_trials.Trial]
) -> dict[tuple[str, str], dict] | None:
    """Carries out the trials that have not ended, and chooses among them.

    Returns:
      The fields of the best trial of each arm in each setting, by the names of the setting and the
      arm; None where somebody asked to stop.

    Raises:
      InputError: all trials of an arm failed.
    """
    planned = [run for trial in trials for run in trial.runs]
    each = max(len(tried) for _, tried in sweep.trials)
    _say("trials", sweep, planned, f"{each} trials x {len(sweep.trial_seeds)} seeds")
    if not _train(sweep, planned, Board(planned, sweep.metric, of_validation=True)):
        return None
    best = arm_trials.chosen(trials, sweep.metric)
    return {names: dict(trial.fields) for names, trial in best.items()}


def _say(what, sweep, planned, of_each):
    pending = [run for run in planned if not run.has_ended]
    print(
        f"{what:7} {len(planned)} runs: {len(sweep.arms)} arms x {len(sweep.settings)} settings x"
        f" {of_each}; {len(pending)} to do, by the engine {sweep.engine}"
    )


def _train(sweep, planned, board):
    """Trains the runs that have not ended; whether none is left."""
    with board:
        executors.ENGINES[sweep.engine](planned, sweep, board.show)
    unfinished = [run for run in planned if not run.has_ended]
    if unfinished:
        print(f"stopped with {len(unfinished)} runs to do. Run the same command again to go on.")
    return not unfinished
