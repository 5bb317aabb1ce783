"""Trains the trials that a process has claimed, and tells the study how they ended."""

import contextlib
from collections.abc import Callable, Sequence

import jax
import ml_collections

from experiments.sweeps import executors, vectorised
from experiments.tuning.studies import Study
from experiments.tuning.trials import Trial, check
from triplet_jax import errors
from triplet_jax.runs import health

# Errors of one trial. Others, such as those of a full disk, end the process, and the trial goes on
# when the study does.
_OF_A_TRIAL = (errors.InputError, health.NotFiniteError, jax.errors.JaxRuntimeError)

Engine = Callable[[Sequence[Trial], Study, ml_collections.ConfigDict], None]
"""`(trials, shared, study)`; trains to the end, or until somebody asks to stop."""


def here(trials: Sequence[Trial], shared: Study, study: ml_collections.ConfigDict) -> None:
    """Trains one run after the other; a trial that the pruner gives up ends early."""
    for trial in trials:

        def goes_on(step, scores, number=trial.number):
            if shared.report(number, step, scores[study.metric]):
                return True
            shared.tell_pruned(number)
            return False

        for run in trial.runs:
            if run.has_ended or trial.error:
                continue
            with _failing([run]):
                executors.train_here(run, None if study.pruner == "none" else goes_on)
            if not run.has_ended:
                return


def together(trials: Sequence[Trial], shared: Study, study: ml_collections.ConfigDict) -> None:
    """Trains the runs that differ only in numbers in one compiled step."""
    planned = [run for trial in trials for run in trial.runs]
    for members in vectorised.groups(planned):
        with _failing(members):
            vectorised.train_all(members, study, lambda: None)
        if not all(run.has_ended for run in members):
            return


def train(trials: Sequence[Trial], shared: Study, study: ml_collections.ConfigDict) -> None:
    """Trains trials by the engine of the study; a config that makes no sense fails its trial.

    The corners of the space have passed, but not every point in between.
    """
    for trial in trials:
        if not trial.is_done:
            with _failing(trial.runs):
                check(study, trial.runs[0].config)
    ENGINES[study.engine](trials, shared, study)


def tell(trials: Sequence[Trial], shared: Study, metric: str) -> bool:
    """Tells the study how trials ended; whether all have."""
    for trial in trials:
        if trial.error:
            shared.tell_failed(trial.number)
        elif trial.is_done:
            shared.tell(trial.number, trial.value(metric))
    running = {record.number for record in shared.records("RUNNING")}
    return not running & {trial.number for trial in trials}


ENGINES: dict[str, Engine] = {"here": here, "vectorised": together}


@contextlib.contextmanager
def _failing(planned):
    """Marks the runs that have not ended as failed where the block raises an error of theirs."""
    try:
        yield
    except _OF_A_TRIAL as error:
        for run in planned:
            if not run.has_ended:
                run.fail(str(error))
