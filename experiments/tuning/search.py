"""Carries out a study: trial after trial, until there are all of them."""

import pathlib

import ml_collections

from experiments.config import components
from experiments.sweeps import plan, vectorised
from experiments.tuning import outcome, report, studies, training
from experiments.tuning.space import Space
from triplet_jax import errors

# A study whose first trials all fail stops: there is a mistake in its config.
_FIRST = 3


def search(study: ml_collections.ConfigDict, space: Space, workdir: pathlib.Path) -> None:
    """Carries out trials until the study has all of them, and writes what it found.

    Args:
      study: its config.
      space: what it searches.
      workdir: its folder.
    """
    shared = studies.Study(study, space, workdir)
    _check_begun(shared, study, space)
    print(
        f"study   {study.trials} trials by {study.sampler}, {len(shared.records())} of them begun"
    )
    most = study.parallel if study.engine == "vectorised" else 1
    while True:
        _check_first(shared)
        with shared.claim(most) as trials:
            training.train(trials, shared, study)
            if not training.tell(trials, shared, study.metric):
                print("stopped. Run the same command again to go on with the trials.")
                return
            _show(trials, shared, study)
        if not trials:
            break
    running = shared.records("RUNNING")
    if running:
        print(
            f"Other processes still train {len(running)} trials. The last one to end writes what"
            " the study found; if it is killed, run the same command again."
        )
        return
    with studies.alone(workdir):
        report.write(outcome.read(shared, study), space, workdir)


def _check_begun(shared, study, space):
    """Refuses a study whose own parts, or whose data, are not those that its trials began with."""
    begun = []
    for record in shared.records():
        whole = len(record.params) == len(space.parts)  # or its process was killed while it asked
        begun += shared.trial(record).runs if whole else ()
    for run in begun:
        components.check_unchanged(run.folder, run.config)
    if begun and len(shared.records(*studies.ENDED)) < study.trials:
        plan.check_begun(begun, vectorised.dataset(begun[0].config))


def _check_first(shared):
    ended = shared.records(*studies.ENDED)
    if len(ended) >= _FIRST and all(record.state.name == "FAIL" for record in ended):
        error = shared.trial(ended[-1]).error
        raise errors.InputError(
            f"the first {len(ended)} trials of the study failed, the last one so: {error} Correct"
            " the config, and give another --workdir."
        )


def _show(trials, shared, study):
    """Prints how trials ended."""
    ended = {record.number: record for record in shared.records(*studies.ENDED)}
    for count, trial in enumerate(trials, start=len(ended) - len(trials) + 1):
        record = ended[trial.number]
        said = {"PRUNED": "pruned", "FAIL": f"failed: {trial.error}"}.get(record.state.name)
        said = said or f"{study.metric} {record.value:.4f}"
        print(f"{count:4d}/{study.trials}  trial {trial.number}: {said}", flush=True)
