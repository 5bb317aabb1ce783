"""What a sweep consists of, and which sweeps make no sense."""

import json

import pytest

from configs import base
from configs.sweeps import contrastive, offline, schedules
from experiments.run import data_json
from experiments.sweeps import plan, vectorised
from tests.support import small_sweeps
from triplet_jax import errors


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"arms": (("one", {}), ("one", {"loss.margin": 0.1}))}, "'one' is there twice"),
        ({"arms": ("one", {})}, r"arms: 'one' is no pair .* a comma after it: \(\(NAME, ...\),\)"),
        ({"arms": (("one", 0.1),)}, r"arms: \('one', 0.1\) is no pair of a name and a dict"),
        ({"settings": ("one", {})}, "settings: 'one' is no pair"),
        ({"arms": (("one", {"loss.margn": 0.1}),)}, "Did you mean 'loss.margin'"),
        ({"arms": (("one", {"loss.margin": "wide"}),)}, "arm 'one'"),
        ({"arms": (("one", {"loss.margin": -1.0}),)}, "arm 'one'.*loss.margin=-1.0 must be"),
        ({"arms": (("a/b", {}),), "reference": "a/b"}, "'a/b' is to name a folder"),
        ({"arms": (("..", {}),), "reference": ".."}, "'..' is to name a folder"),
        ({"arms": (("one", {"seed": 3}),)}, "arm 'one' sets seed, which each run takes"),
        ({"arms": ()}, "arms is empty"),
        ({"reference": "on"}, "reference='on' is not known"),
        ({"best_of": ("three",)}, "best_of='three'"),
        ({"seeds": (0, 0)}, "seeds="),
        ({"seeds": ()}, "seeds="),
        ({"also_seeds": ()}, r"also_seeds=\(\) sets nothing to the seed"),
        ({"metric": "map"}, "metric='map' is not known"),
        ({"seeds": (-1, 0)}, "seeds="),
        ({"arms": (("one", {"dataset.placement": "stream"}),)}, "does not obey dataset.placement"),
        ({"engine": "slurmm"}, "engine='slurmm' is not known"),
        (
            {"slurm": {"minutes": 2, "grace_seconds": 120}},
            "=120 must be below slurm.minutes=2, .*120",
        ),
    ],
)
def test_sweeps_that_make_no_sense_are_refused(tmp_path, fields, message):
    with pytest.raises(errors.InputError, match=message):
        small_sweeps.planned(tmp_path, **fields)


@pytest.mark.parametrize("of", ["data", "files"])
def test_a_sweep_does_not_go_on_with_other_data_than_it_began_with(tmp_path, monkeypatch, of):
    """Or with another file of scores: the runs that are left would learn from something else."""
    planned = small_sweeps.planned(tmp_path)
    files = {"files": {"batch.scores": "a digest"}}
    monkeypatch.setattr(data_json, "of_files", lambda config: files)
    now = data_json.content(vectorised.dataset(planned[0].config)) | files
    planned[0].folder.mkdir(parents=True)
    data_json.remember(planned[0].folder, now)
    plan.check_data(planned)
    path = planned[0].folder / "data.json"
    other = {"files": {"batch.scores": "another"}} if of == "files" else {"fingerprint": "another"}
    path.write_text(json.dumps(now | other))
    with pytest.raises(errors.InputError, match="arm 'one': --workdir=.* holds a run"):
        plan.check_data(planned)
    for run in planned:
        small_sweeps.finish(run, 0.5, 0.5)
    path.write_text(json.dumps(now | other))
    plan.check_data(planned)  # nothing is left to train


@pytest.mark.parametrize("config", [contrastive, offline, schedules])
def test_a_misspelt_data_set_of_a_sweep_is_refused(config):
    with pytest.raises(ValueError, match="'omniglt' is not known; .* digits, omniglot"):
        config.get_config("omniglt")


def test_a_sweep_that_is_older_than_a_field_goes_on(tmp_path):
    sweep = schedules.get_config()
    plan.remember(sweep, tmp_path)
    path = tmp_path / "sweep.json"
    content = json.loads(path.read_text())
    del content["run"]["loss"]["centres"], content["trials"]
    path.write_text(json.dumps(content))
    plan.remember(sweep, tmp_path)
    assert "centres" in json.loads(path.read_text())["run"]["loss"]
    sweep.run.loss.margin += 0.1
    with pytest.raises(errors.InputError, match="holds another sweep: run differ"):
        plan.remember(sweep, tmp_path)


@pytest.mark.parametrize("run", [3, {"loss": {"margin": "wide"}}])
def test_a_sweep_whose_file_is_damaged_is_another(run, tmp_path):
    sweep = schedules.get_config()
    plan.remember(sweep, tmp_path)
    path = tmp_path / "sweep.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"run": run}))
    with pytest.raises(errors.InputError, match="holds another sweep: run differ"):
        plan.remember(sweep, tmp_path)


@pytest.mark.parametrize(
    ("field", "values", "others"),
    [
        ("memory.noise_rate", (0.0, 0.1, 0.2), {"memory.size": 128}),
        (
            "optimizer.proxies_rate",
            (1.0, 3.0, 10.0),
            {"loss.name": "arcface", "loss.metric": "cosine", "loss.proxies": "references"},
        ),
    ],
)
def test_runs_train_apart_from_those_that_lack_a_part_and_with_all_others(
    tmp_path, field, values, others
):
    arms = tuple((f"a{i}", others | {field: value}) for i, value in enumerate(values))
    runs = small_sweeps.planned(tmp_path, arms=arms, reference="a0", seeds=(0, 1))
    found = [[run.arm for run in group] for group in vectorised.groups(runs)]
    assert found == [["a0"] * 2, ["a1"] * 2 + ["a2"] * 2]


def test_arms_do_not_leak_into_each_other(tmp_path):
    runs = small_sweeps.planned(tmp_path)
    margins = {run.arm: run.config.loss.margin for run in runs}
    assert margins == {"one": 0.3, "two": 0.5}
    assert base.get_config().loss.margin == 0.1
