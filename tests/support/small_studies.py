"""Small studies, and an engine that trains nothing."""

import json

from configs import digits
from configs.tune import base
from experiments.tuning import space as spaces
from experiments.tuning import studies, training
from tests.support import small_sweeps

SPACE = (
    ("optimizer.learning_rate", base.between(1e-4, 1e-2, log=True)),
    ("mining.miner", base.one_of("semi_hard", "batch_hard")),
)


def made(**fields):
    """A study of the digits with these fields; `run` is a dict of fields of the run."""
    run = digits.get_config()
    # Tests have 8 devices.
    of_run = small_sweeps.SMALL | {"batch.per_class": 8, "dataset.validation_fraction": 0.2}
    run.update_from_flattened_dict(of_run | fields.pop("run", {}))
    study = base.get_config(run)
    study.space, study.trials, study.engine = SPACE, 6, "here"
    for name, value in fields.items():
        study[name] = value
    return study


def shared(study, workdir):
    """The study as another process of it sees it."""
    workdir.mkdir(exist_ok=True)
    return studies.Study(study, spaces.parse(study.space), workdir)


def score_of(run):
    """What the runs of `put_engine` score on the validation split."""
    return 1 - abs(run.config.optimizer.learning_rate - 3e-3)


def put_engine(monkeypatch, score=score_of, before=lambda run: None):
    """Replaces training by a function of a run, and returns the list of the runs it was given.

    Args:
      monkeypatch: of pytest.
      score: the score of a run on the validation split; it may mark the run as failed. On the
        test split a run scores the opposite.
      before: called with a run before it begins.
    """
    trained = []

    def engine(trials, shared, study):
        for run in (run for trial in trials for run in trial.runs if not run.has_ended):
            before(run)
            trained.append(run)
            run.folder.mkdir(parents=True)
            found = score(run)
            row = {"step": 60, "validation/map_at_r": found, "validation/precision_at_1": found}
            if found is not None:
                (run.folder / "metrics.jsonl").write_text(json.dumps(row) + "\n")
                of_test = {"embedding": {"retrieval": {"map_at_r": -found}}, "trained_steps": 60}
                (run.folder / "result.json").write_text(json.dumps(of_test))

    monkeypatch.setitem(training.ENGINES, "here", engine)
    return trained
