"""Early stopping: when a run ends, that it stays ended, and what is refused at launch."""

import dataclasses
import json

import ml_collections
import pytest

from experiments.config import datasets
from experiments.run import early_stopping, training
from experiments.sweeps import runs
from tests.support import configs, programs
from triplet_jax import errors
from triplet_jax.runs import row_files
from triplet_jax.training import loop
from triplet_jax.training.patience import Patience


def _config(**fields):
    made = configs.config(**{name.replace(".", "__"): x for name, x in programs.TINY.items()})
    made.update_from_flattened_dict(
        {
            "model.name": "mlp",
            # Without learning, no score is better than the first.
            "optimizer.learning_rate": 1e-12,
            "optimizer.decay": "constant",
            "evaluate.every": 5,
            "train.patience": 2,
        }
        | fields
    )
    return ml_collections.FrozenConfigDict(made)


@pytest.mark.slow
def test_a_run_ends_once_its_score_does_not_rise_and_stays_ended(tmp_path, capsys, monkeypatch):
    config = _config()
    training.train(config, tmp_path)
    assert "stopped early at step 15 of 240" in capsys.readouterr().out
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["trained_steps"] == 15
    assert result["checkpoint_step"] in (5, 10, 15)

    def none_left(*_, **__):
        raise AssertionError("a step was taken after the end")

    monkeypatch.setattr(loop, "_finite_rows", none_left)
    training.train(config, tmp_path)
    assert row_files.read_rows(tmp_path / "metrics.jsonl")[-1]["step"] == 15
    # A run that goes on from step 10 has the patience that it had there.
    assert early_stopping.at(tmp_path, config, 10).since == 1


def test_a_sweep_knows_a_run_that_ended_early(tmp_path):
    run = runs.Run(arm="a", setting="", seed=0, config=_config(), workdir=tmp_path)
    run.folder.mkdir(parents=True)
    (run.folder / "result.json").write_text(json.dumps({"trained_steps": 15}))
    rows = [{"step": step, "validation/map_at_r": 0.5} for step in (5, 10, 15)]
    (run.folder / "metrics.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert run.state == "done"
    assert dataclasses.replace(run, config=_config(**{"train.patience": 3})).state != "done"


def test_patience_counts_from_the_first_of_equal_scores():
    patience = Patience(2)
    for score, over in ((0.3, False), (None, False), (0.5, False), (0.5, False), (0.4, True)):
        patience.note(score)
        assert patience.is_over == over
    assert not Patience(0, since=100).is_over


def test_patience_without_a_validation_score_is_refused():
    config = _config(**{"dataset.validation_fraction": 0.0})
    with pytest.raises(errors.InputError, match=r"train.patience=2 .*none of 1797 .*patience=0"):
        datasets.check_patience(config, datasets.dataset(config))
