"""The study that several processes share: which trials there are, who works on which, how they end.

Optuna keeps it in a journal, a file to which processes append, on a network's file system too. Who
works on a trial is told by a lock of the trial's folder, which the system releases when a process
is killed. A trial that Optuna calls running, and whose folder nobody holds, was left by such a
process, and is continued: it keeps its number and its point, and goes on from its checkpoint.
"""

import contextlib
import pathlib
import types
from collections.abc import Iterator

import ml_collections
import numpy as np

from experiments.run import lock
from experiments.tuning import trials
from experiments.tuning.space import Space
from experiments.tuning.trials import Trial
from triplet_jax import errors

JOURNAL = "optuna.journal"
NAME = "study"
"""The name of the study in its journal."""
ENDED = ("COMPLETE", "PRUNED", "FAIL")
"""The states of a trial that has ended, as Optuna calls them."""
BEGUN = ("RUNNING", *ENDED)

# The seconds that a process waits for others to choose their trials.
_PATIENCE_SECONDS = 120.0
_BATCH = "asked with"


def optuna() -> types.ModuleType:
    """The package.

    Raises:
      InputError: it is not installed; the message names the extra.
    """
    try:
        import optuna
    except ImportError as error:
        raise errors.InputError(
            f"experiments.tune needs optuna, which cannot be imported ({error}): pip install"
            " 'triplet_jax[tune]', or in a clone pip install -e '.[tune]'."
        ) from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def alone(workdir: pathlib.Path) -> contextlib.AbstractContextManager[None]:
    """Keeps the other processes of a study from choosing trials, and from writing its files."""
    return lock.claimed(workdir, patience=_PATIENCE_SECONDS)


class Study:
    """A study in a folder, as one of its processes sees it.

    Args:
      study: its config.
      space: what it searches.
      workdir: its folder, which exists.
    """

    def __init__(self, study: ml_collections.ConfigDict, space: Space, workdir: pathlib.Path):
        self._optuna = optuna()
        self._study, self._space, self._workdir = study, space, workdir
        self._storage = _storage(self._optuna, workdir)
        with alone(workdir):
            self._records = self._optuna.create_study(
                storage=self._storage,
                study_name=NAME,
                direction="maximize",
                pruner=_pruner(self._optuna, study),
                load_if_exists=True,
            )
            point = space.of_run(study.run)
            if point is not None and not self._records.trials:
                self._records.enqueue_trial(point)

    def records(self, *states: str) -> list:
        """Optuna's records of all trials that have begun, or of those in these states."""
        found = self._records.get_trials(deepcopy=False)
        return [one for one in found if one.state.name in (states or BEGUN)]

    # -- who works on what ---------------------------------------------------------------

    @contextlib.contextmanager
    def claim(self, most: int) -> Iterator[list[Trial]]:
        """Trials for this process until the block ends; none where no more are to be begun.

        They are those that a process which was killed had asked for, of which some may have ended,
        or at most `most` new ones.
        """
        with contextlib.ExitStack() as claims:
            with alone(self._workdir):
                numbers = self._left_over(claims) or self._new(most, claims)
            yield [self.trial(one) for one in self.records() if one.number in numbers]

    def _left_over(self, claims):
        """The numbers of trials that were asked for together, if nobody works on them."""
        for record in self.records("RUNNING"):
            first = record.user_attrs.get(_BATCH, record.number)
            if lock.is_claimed(trials.folder(self._workdir, first)):
                continue
            self._hold(first, claims)
            if _BATCH not in record.user_attrs:  # the process was killed while it asked
                self._complete(self._live(record), first)
            return [r.number for r in self.records() if r.user_attrs.get(_BATCH) == first]
        return []

    def _new(self, most, claims):
        begun = len(self.records())
        numbers: list[int] = []
        for number in range(begun, min(begun + most, self._study.trials)):
            # A sampler of its own for each trial: as many processes as there are, killed or not,
            # draw different trials, and the same ones in each study.
            self._records.sampler = self._sampler(number)
            trial = self._records.ask()
            if not numbers:
                self._hold(trial.number, claims)
            numbers.append(trial.number)
            self._complete(trial, numbers[0])
        return numbers

    def _hold(self, first, claims):
        folder = trials.folder(self._workdir, first)
        folder.mkdir(parents=True, exist_ok=True)
        claims.enter_context(lock.claimed(folder))

    def _complete(self, trial, first):
        self._space.suggest(trial)
        trial.set_user_attr(_BATCH, first)

    def _sampler(self, number):
        seeds = np.random.SeedSequence([self._study.sampler_seed, number])
        seed = int(seeds.generate_state(1)[0])
        if self._study.sampler == "random":
            return self._optuna.samplers.RandomSampler(seed=seed)
        startup = self._study.startup
        # Trials that others work on count as bad ones, so that processes do not crowd.
        return self._optuna.samplers.TPESampler(
            seed=seed, n_startup_trials=startup, constant_liar=True
        )

    def trial(self, record) -> Trial:
        """The trial of a record of Optuna."""
        point, number = record.params, record.number
        return trials.trial_at(self._study, self._space, point, number, self._workdir)

    def _live(self, record):
        """Optuna's handle of a trial that runs, also of one that another process began."""
        self._records.sampler = self._sampler(record.number)
        study_id = self._storage.get_study_id_from_name(NAME)
        trial_id = self._storage.get_trial_id_from_study_id_trial_number(study_id, record.number)
        return self._optuna.trial.Trial(self._records, trial_id)

    # -- how they end --------------------------------------------------------------------

    def report(self, number: int, step: int, score: float) -> bool:
        """Takes the score of a running trial after a step; whether the trial is to go on."""
        record = next(one for one in self.records("RUNNING") if one.number == number)
        trial = self._live(record)
        if step not in record.intermediate_values:
            trial.report(score, step)
        return not trial.should_prune()

    def tell(self, number: int, value: float) -> None:
        """Ends a trial with its score."""
        self._tell(number, values=value)

    def tell_pruned(self, number: int) -> None:
        """Ends a trial that the pruner gave up."""
        self._tell(number, state=self._optuna.trial.TrialState.PRUNED)

    def tell_failed(self, number: int) -> None:
        """Ends a trial that broke."""
        self._tell(number, state=self._optuna.trial.TrialState.FAIL)

    def _tell(self, number, **ending):
        self._records.tell(number, skip_if_finished=True, **ending)


def _storage(optuna, workdir):
    from optuna.storages import journal

    path = str(workdir / JOURNAL)
    backend = journal.JournalFileBackend(path, lock_obj=journal.JournalFileOpenLock(path))
    return optuna.storages.JournalStorage(backend)


def _pruner(optuna, study):
    c = study.run
    if study.pruner == "median":
        return optuna.pruners.MedianPruner(n_startup_trials=study.startup)
    if study.pruner == "hyperband":
        return optuna.pruners.HyperbandPruner(
            min_resource=c.evaluate.every, max_resource=c.train.steps
        )
    return optuna.pruners.NopPruner()
