"""A run's config and data may change where nothing depends on it, and are refused elsewhere."""

import functools
import json
import pathlib
import shutil

import ml_collections
import numpy as np
import pytest

from configs import base, digits, saved
from experiments.config import completion, datasets
from experiments.run import (
    changes,
    config_json,
    data_json,
    evaluating,
    example_difficulty,
    exporting,
    setup,
    training,
)
from triplet_jax import errors
from triplet_jax.models import export
from triplet_jax.runs import files, row_files
from triplet_jax.runs.checkpoint import Checkpoints

# Reading a damaged file leaves callbacks of tensorstore behind that complain on their own.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

OLD_RUNS = pathlib.Path(__file__).parents[2] / "support" / "old_runs"
TINY = {
    "model.name": "mlp",
    "model.width": 8,
    "model.dim": 4,
    "train.steps": 20,
    "evaluate.every": 10,
    "evaluate.episodes": 10,
    "optimizer.decay": "constant",
    "batch.per_class": 4,
    "augment.shift": 0.0,
    "augment.rotate": 0.0,
    "augment.scale": 0.0,
    "log.telemetry_every": 5,
}


def config(**differences):
    own = digits.get_config("semi_hard")
    named = {name.replace("__", "."): value for name, value in differences.items()}
    made = base.with_differences(own, TINY | named)
    return ml_collections.FrozenConfigDict(completion.completed(made))


def train(fields, workdir):
    workdir.mkdir(exist_ok=True)
    training.train(ml_collections.FrozenConfigDict(fields), workdir)


def features(path, *, relabelled=None, added=0):
    """An .npz file of 80 examples of 10 classes."""
    random = np.random.default_rng(0)
    y = np.repeat(np.arange(10), 8)
    x = random.normal(size=(80, 5)).astype(np.float32) + y[:, None]
    if relabelled is not None:
        y[relabelled] = (y[relabelled] + 1) % 10
    x, y = np.concatenate([x, x[:added] + 1]), np.concatenate([y, y[:added]])
    np.savez(path, x=x, y=y)
    return str(path)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of 20 steps on an .npz file, whose data and folder the tests copy."""
    folder = tmp_path_factory.mktemp("trained")
    fields = {"dataset__name": "arrays", "dataset__path": features(folder / "data.npz")}
    train(config(**fields), folder / "run")
    return folder


@pytest.fixture
def copied(trained, tmp_path):
    return shutil.copytree(trained / "run", tmp_path / "run")


@pytest.fixture
def without_config(copied):
    """As of a run whose checkpoints are too old to carry a config."""
    for folder in (copied / "checkpoints").glob("*/config"):
        shutil.rmtree(folder)
    return copied


def edit(workdir, field, value):
    path = workdir / "config.json"
    content = json.loads(path.read_text())
    *owners, name = field.split(".")
    functools.reduce(lambda c, owner: c[owner], owners, content)[name] = value
    path.write_text(json.dumps(content))


def state_of(workdir, step):
    """What stands for every bit of a state."""
    path = workdir / "checkpoints" / str(step) / "digest" / "metadata"
    return json.loads(path.read_text())["sha256"]


# -- what may change ---------------------------------------------------------------------


@pytest.mark.slow
def test_what_cannot_change_a_run_may_change_and_leaves_every_bit(tmp_path):
    """Of a run that is made longer at a constant rate, too."""
    train(config(train__steps=30, evaluate__every=15), tmp_path / "left_alone")
    disturbed = tmp_path / "disturbed"
    train(config(), disturbed)
    others = {
        "train__steps": 30,
        "evaluate__every": 3,
        "evaluate__ways": 3,
        "evaluate__episodes": 12,
        "evaluate__checkpoint": "last",
        "log__every": 7,
        "log__telemetry_every": 0,
        "log__telemetry_per_anchor": True,
        "dataset__workers": 0,
    }
    train(config(**others), disturbed)
    assert state_of(disturbed, 30) == state_of(tmp_path / "left_alone", 30)
    assert config_json.read(disturbed) == config(**others)
    result = json.loads((disturbed / "result.json").read_text())
    noted = {change["field"]: (change["before"], change["after"]) for change in result["changes"]}
    assert noted["evaluate.every"] == (10, 3)
    assert noted["log.telemetry_every"] == (5, 0)
    assert {change["step"] for change in result["changes"]} == {20}
    assert len(noted) == len(others)
    assert result["embedding"]["few_shot_1"]["episodes"] == 12
    rows = [
        row["step"] for row in row_files.read_rows(disturbed / "metrics.jsonl") if "loss" in row
    ]
    assert rows == [10, 20, 21, 28, 30]


@pytest.mark.slow
def test_other_intervals_are_not_taken_for_lost_rows(tmp_path, capsys):
    train(config(), tmp_path)
    train(config(train__steps=30, log__every=4, evaluate__every=7), tmp_path)
    train(config(train__steps=30, log__every=4, evaluate__every=7), tmp_path)
    assert "damaged" not in capsys.readouterr().out
    assert len(changes.history(tmp_path)) == 3  # the last changes nothing


@pytest.mark.parametrize(
    ("made", "differences", "words"),
    [
        ({}, {"model__dim": 8}, "model.dim: 4 there, 8 now"),
        ({}, {"loss__margin": 0.5}, "loss.margin: 0.3 there, 0.5 now"),
        ({}, {"train__steps": 10}, "train.steps: 20 there, 10 now"),
        ({"optimizer__decay": "cosine"}, {"train__steps": 30}, "optimizer.decay='cosine' leads"),
        (
            {"schedules.margin": {"field": "loss.margin", "kind": "linear"}},
            {"train__steps": 30},
            "schedules.margin.kind='linear' moves by the share of all steps",
        ),
    ],
)
def test_what_makes_another_run_is_refused_by_field(made, differences, words, tmp_path):
    config_json.remember(tmp_path, config(**made))
    config_json.remember(tmp_path, config(**made, evaluate__episodes=99, log__every=1))
    with pytest.raises(errors.InputError, match=words) as refused:
        config_json.remember(tmp_path, config(**made, **differences, log__every=1))
    assert "log.every" not in str(refused.value)
    assert config_json.read(tmp_path) == config(**made)


def test_a_schedule_that_does_not_know_the_end_lets_a_run_go_on(tmp_path):
    record_of = {"field": "mining.knobs.hardness", "kind": "self_paced"}
    paced = {"schedules.own": record_of, "mining__miner": "quantile"}
    config_json.remember(tmp_path, config(**paced))
    config_json.remember(tmp_path, config(**paced, train__steps=30))


# -- the data ----------------------------------------------------------------------------


@pytest.mark.slow
def test_moved_data_are_found_by_their_mark(trained, copied, tmp_path):
    own = config_json.read(copied)
    moved = shutil.copy(trained / "data.npz", tmp_path / "moved.npz")
    edit(copied, "dataset.path", "gone.npz")
    with pytest.raises(errors.InputError, match="gone.npz.*give --data=PATH"):
        evaluating.evaluate_folder(copied)
    before = json.loads((trained / "run" / "result.json").read_text())
    found = evaluating.evaluate_folder(copied, str(moved))
    assert found["embedding"] == before["embedding"]
    changed = ml_collections.ConfigDict(own.to_dict())
    changed.dataset.path = str(moved)
    train(changed, copied)  # which goes on
    assert config_json.read(copied).dataset.path == str(moved)


def of_split(trained, split):
    everything = data_json.open_data(trained / "run", config_json.read(trained / "run"))
    return np.flatnonzero(everything.split == split)[0]


@pytest.mark.slow
@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_data_that_were_relabelled_are_refused_by_every_program(split, trained, copied, tmp_path):
    others = features(tmp_path / "others.npz", relabelled=of_split(trained, split))
    own = config_json.read(copied)
    with pytest.raises(errors.InputError, match=f"run on other data.*{split}"):
        data_json.open_data(copied, own, others)
    changed = ml_collections.ConfigDict(own.to_dict())
    changed.dataset.path = others
    with pytest.raises(errors.InputError, match="run on other data"):
        train(changed, copied)


def test_data_with_more_examples_are_refused(copied, tmp_path):
    with pytest.raises(errors.InputError, match="run on other data"):
        evaluating.evaluate_folder(copied, features(tmp_path / "more.npz", added=10))


def test_embeddings_of_other_labels_are_not_used(trained, copied, tmp_path):
    """Of a run that is too old to have marks of all splits."""
    own = config_json.read(copied)
    others = features(tmp_path / "others.npz", relabelled=of_split(trained, "test"))
    (copied / "data.json").unlink()
    everything = data_json.open_data(copied, own, others)
    with pytest.raises(errors.InputError, match="of other examples, or of other labels"):
        example_difficulty.of_run(copied, own, everything, groups=3)
    right = data_json.open_data(copied, own)
    assert len(data_json.embeddings(copied, right)) == len(right) == 80


def test_digits_have_no_other_place(tmp_path):
    with pytest.raises(errors.InputError, match="--data=elsewhere has no effect"):
        data_json.open_data(tmp_path, config(), "elsewhere")


def test_export_needs_no_data(copied, tmp_path):
    edit(copied, "dataset.path", "gone.npz")
    done = exporting.export_encoder(copied, tmp_path / "one.jaxexport")
    assert (done.shape, done.dtype) == ((5,), np.float32)
    call = export.load(tmp_path / "one.jaxexport").call
    assert call(np.ones((3, 5), np.float32)).shape == (3, 4)


# -- edited files ------------------------------------------------------------------------

SENSELESS = {
    "dataset.image_size": [0, -3, 30000, "8", None, 1.5, True],
    "dataset.channels": [7, 0],
    "dataset.split_seed": [-1],
    "seed": [10**20, -1, None, "x", True],
    "evaluate.ways": [-1, 1],
    "schedules": [{"x": 1}, {"x": {}}, {"x": None}, 3, None],
    "model.dropout": [2, "a", None],
    "dataset.test_fraction": [5, -0.5, float("nan")],
    "loss.nested_dims": [[99], ["a"], [[2]], 4, None],
    "evaluate.checkpoint": ["nope", None, 3],
    "evaluate.episodes": [0, 10**9],
    "optimizer.name": ["sdg", None, ["adam"]],
    "optimizer.learning_rate": [-1.0, 0, "fast"],
    "loss.learned": [[None], "beta", {"beta": 1}],
    "mining.knobs.beta": ["a", [], float("inf")],
    "model": [None, 3, []],
    "model.widht": [3],
}


@pytest.mark.parametrize(
    ("field", "value"), [(field, value) for field, some in SENSELESS.items() for value in some]
)
def test_a_senseless_saved_config_is_refused_by_field(field, value, tmp_path):
    files.write_json(tmp_path / "config.json", json.loads(config().to_json()))
    config_json.read(tmp_path)
    edit(tmp_path, field, value)
    with pytest.raises(errors.InputError) as refused:
        config_json.read(tmp_path)
    assert str(tmp_path / "config.json") in str(refused.value)
    assert field.rpartition(".")[2].replace("widht", "model.widht") in str(refused.value)


def test_a_run_of_more_devices_is_read_on_one(tmp_path, monkeypatch):
    config_json.remember(tmp_path, config(batch__classes=5, batch__per_class=3))
    assert config_json.read(tmp_path).batch.classes == 5  # 15 rows, 8 devices here
    config_json.remember(tmp_path / ".", config(batch__classes=5, batch__per_class=3))


EDITED = {
    "model.dim": 8,
    "model.width": 65536,
    "model.normalize": False,
    "model.norm": "group",
    "optimizer.average_decay": 0.9,
    "optimizer.name": "sgd",
    "loss.margin": 0.7,
}


@pytest.mark.parametrize("field", EDITED)
def test_a_config_that_was_edited_after_a_checkpoint_is_refused_by_field(field, copied, tmp_path):
    edit(copied, field, EDITED[field])
    for use in (
        evaluating.evaluate_folder,
        lambda w: exporting.export_encoder(w, tmp_path / "one.jaxexport"),
    ):
        with pytest.raises(errors.InputError, match="belongs to another config") as refused:
            use(copied)
        assert f"{field}: " in str(refused.value)
        assert f"{EDITED[field]!r} in the config" in str(refused.value)
    with pytest.raises(errors.InputError, match=f"{field}: "):
        train(config_json.read(copied), copied)
    assert not (copied / "damaged_checkpoints").exists()


@pytest.mark.parametrize("field", ["model.dim", "model.width", "optimizer.average_decay"])
def test_arrays_that_do_not_fit_an_edited_config_are_named(field, without_config):
    edit(without_config, field, EDITED[field])
    with pytest.raises(errors.InputError, match="of another model or optimizer.*\n.*there, .*now"):
        evaluating.evaluate_folder(without_config)
    with pytest.raises(errors.InputError, match="of another model or optimizer"):
        train(config_json.read(without_config), without_config)
    assert not (without_config / "damaged_checkpoints").exists()


def test_what_only_judges_may_be_edited(copied):
    edit(copied, "evaluate.checkpoint", "last")
    edit(copied, "log.every", 3)
    assert evaluating.evaluate_folder(copied)["protocol"]["checkpoint"] == "step 20, the last"


# -- runs of the code before -------------------------------------------------------------


@pytest.fixture
def old(tmp_path):
    """A run of 20 steps, by code that kept no marks of all splits and no config in checkpoints."""
    shutil.unpack_archive(OLD_RUNS / "before_marks.zip", tmp_path / "old")
    return tmp_path / "old"


def test_a_run_of_the_code_before_is_evaluated_and_exported(old, tmp_path):
    before = json.loads((old / "result.json").read_text())
    found = evaluating.evaluate_folder(old)
    for metric, value in before["embedding"]["retrieval"].items():
        assert found["embedding"]["retrieval"][metric] == pytest.approx(value, abs=0.01), metric
    done = exporting.export_encoder(old, tmp_path / "one.jaxexport")
    assert (done.step, done.shape) == (found["checkpoint_step"], (8, 8, 1))


def test_a_run_of_the_code_before_goes_on(old):
    before = json.loads((old / "result.json").read_text())
    shutil.rmtree(old / "checkpoints" / "20")
    own = saved.get_config(str(old / "config.json"))
    train(own, old)
    assert Checkpoints(old / "checkpoints", read_only=True).steps == [10, 20]
    after = json.loads((old / "result.json").read_text())
    found, was = (r["embedding"]["retrieval"]["map_at_r"] for r in (after, before))
    assert found == pytest.approx(was, abs=0.01)
    own.train.steps = 30  # at a constant rate
    train(own, old)
    assert json.loads((old / "result.json").read_text())["trained_steps"] == 30


@pytest.mark.slow
def test_a_run_whose_memory_was_no_field_of_its_state_goes_on(tmp_path):
    """Its folder holds steps 10 and 20; step 20 is taken away, and trained again."""
    shutil.unpack_archive(OLD_RUNS / "with_memory.zip", tmp_path)
    own = saved.get_config(str(tmp_path / "config.json"))
    run = setup.Setup(own, tmp_path, datasets.dataset(own))

    def last():
        checkpoints = Checkpoints(tmp_path / "checkpoints", read_only=True)
        return checkpoints.restore(20, run.initial_state())

    expected = last()
    shutil.rmtree(tmp_path / "checkpoints" / "20")
    train(own, tmp_path)
    found = last()
    assert found.step == 20
    # A ring of 40 of the 640 rows that were drawn.
    np.testing.assert_array_equal(found.memory.places, expected.memory.places)
    np.testing.assert_array_equal(found.memory.labels, expected.memory.labels)
    np.testing.assert_allclose(found.memory.embeddings, expected.memory.embeddings, atol=0.05)
