"""Runs that start from published weights, or from another run."""

import contextlib
import json
import pickle
import shutil

import jax
import ml_collections
import ml_dtypes
import numpy as np
import PIL.Image
import pytest

from configs import digits
from configs.sweeps import base as sweeps
from experiments.config import completion, datasets
from experiments.run import evaluating, exporting, pretrained, restoring, training
from experiments.run.setup import Setup
from experiments.sweeps import plan, vectorised
from tests.support import programs, tiny_backbone
from triplet_jax import errors
from triplet_jax.models import export

SMALL = {
    "model.name": tiny_backbone.PATH,
    "model.width": tiny_backbone.WIDTH,
    "model.dim": 4,
    "model.freeze": "backbone",
    "batch.per_class": 8,
    "train.steps": 4,
    "evaluate.every": 2,
    "evaluate.episodes": 5,
    "optimizer.decay": "constant",
}


def config(**fields):
    made = digits.get_config("semi_hard")
    named = {name.replace("__", "."): value for name, value in fields.items()}
    made.update_from_flattened_dict(SMALL | named)
    return ml_collections.FrozenConfigDict(completion.completed(made))


def train(workdir, **fields):
    workdir.mkdir(exist_ok=True)
    training.train(config(**fields), workdir)
    return json.loads((workdir / "result.json").read_text())


def state_of(workdir, **fields):
    _, state = restoring.load(workdir, config(**fields), (8, 8, 1)).judged()
    return state


def assert_has_the_weights(state, tensors=None):
    tensors = tiny_backbone.tensors() if tensors is None else tensors
    params, statistics = state.params["backbone"], state.batch_stats["backbone"]
    kernel = params["conv"]["kernel"].transpose(3, 2, 0, 1)
    np.testing.assert_array_equal(kernel, tensors["conv.weight"])
    np.testing.assert_array_equal(params["bn"]["scale"], tensors["bn.weight"])
    np.testing.assert_array_equal(statistics["bn"]["var"], tensors["bn.running_var"])


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A finished run from a file of weights, which is gone by now, and what it wrote."""
    folder = tmp_path_factory.mktemp("pretrained")
    weights = tiny_backbone.write(folder / "tiny.safetensors", license="mit")
    with (folder / "said.txt").open("w") as said, contextlib.redirect_stdout(said):
        result = train(folder / "run", model__weights=str(weights))
    weights.unlink()
    return folder / "run", str(weights), result


@pytest.fixture
def copied(trained, tmp_path):
    workdir, weights, _ = trained
    shutil.copytree(workdir, tmp_path / "run")
    return tmp_path / "run", weights


def test_the_run_starts_from_the_weights_and_says_where_they_came_from(trained):
    workdir, weights, result = trained
    assert_has_the_weights(state_of(workdir, model__weights=weights))
    record = {
        "source": weights,
        "sha256": result["weights"]["sha256"],
        "licence": "mit",
        "layout": "tiny",
        "arrays": 6,
        "left_out": ["bn.num_batches_tracked", "fc.weight"],
    }
    assert result["weights"] == json.loads((workdir / pretrained.FILE).read_text()) == record


def test_the_weights_see_grey_images_in_three_channels_as_they_expect(trained, tmp_path):
    workdir, weights, _ = trained
    run = restoring.load(workdir, config(model__weights=weights), (8, 8, 1))
    _, state = run.judged()
    x = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 1), np.uint8)
    plain = run.encoder.clone(statistics=None)
    scaled = np.repeat(x / np.float32(127.5) - 1, 3, axis=-1)
    expected = plain.apply(state.variables, jax.numpy.asarray(scaled))
    np.testing.assert_allclose(run.embed_with(state, x), expected, rtol=1e-5, atol=1e-5)
    exporting.export_encoder(workdir, tmp_path / "one.jaxexport")
    exported = export.load(tmp_path / "one.jaxexport").call(x)
    np.testing.assert_allclose(exported, expected, rtol=1e-5, atol=1e-5)


def test_a_saved_run_needs_the_file_no_more(copied, capsys):
    workdir, weights = copied
    before = json.loads((workdir / "result.json").read_text())
    after = evaluating.evaluate_folder(workdir)
    assert after["embedding"] == before["embedding"] and after["weights"] == before["weights"]
    longer = train(workdir, model__weights=weights, train__steps=6)
    assert longer["trained_steps"] == 6 and longer["weights"] == before["weights"]
    said = capsys.readouterr().out
    assert "left out" not in said and "warning" not in said


@pytest.mark.parametrize(
    "program",
    ["embed", *(pytest.param(name, marks=pytest.mark.slow) for name in ("search", "explore"))],
)
def test_programs_need_the_file_of_weights_no_more(program, trained, tmp_path):
    folder = tmp_path / "images" / "0"
    folder.mkdir(parents=True)
    PIL.Image.new("L", (8, 8), 200).save(folder / "a.png")
    flags = {
        "embed": (f"--images={folder.parent}", f"--output={tmp_path / 'one.npz'}"),
        "search": (f"--gallery={folder.parent}", f"--query={folder}"),
        "explore": (),
    }
    done = programs.run(program, f"--workdir={trained[0]}", *flags[program])
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_a_run_goes_on_with_its_own_weights_beside_another_file(copied, tmp_path, capsys):
    workdir, weights = copied
    other = tiny_backbone.write(tmp_path / "tiny.safetensors", tiny_backbone.tensors(seed=1))
    fields = {"model__weights": str(other), "train__steps": 6}
    saved = json.loads((workdir / "config.json").read_text())
    saved["model"]["weights"] = str(other)
    for path in [workdir / "config.json", *workdir.glob("checkpoints/*/config/metadata")]:
        path.write_text(path.read_text().replace(json.dumps(weights), json.dumps(str(other))))
    train(workdir, **fields)
    assert "is another file than when this run began" in capsys.readouterr().out
    assert_has_the_weights(state_of(workdir, **fields))


def test_weights_that_were_replaced_are_noted_and_those_that_are_gone_are_not(tmp_path):
    weights = tiny_backbone.write(tmp_path / "tiny.safetensors")
    made = config(model__weights=str(weights))
    assert pretrained.note(tmp_path, made) == ""  # the run has no record
    digest = pretrained.files.sha256(weights)
    pretrained.remember(tmp_path, {"sha256": digest})
    assert pretrained.note(tmp_path, made) == ""
    tiny_backbone.write(weights, tiny_backbone.tensors(seed=1))
    assert pretrained.note(tmp_path, made).startswith(
        f"warning: model.weights={str(weights)!r} is another file than when this run began."
    )
    weights.unlink()
    assert pretrained.note(tmp_path, made) == ""


def test_a_run_without_checkpoints_is_refused_with_other_weights(copied, tmp_path):
    workdir, _ = copied
    shutil.rmtree(workdir / "checkpoints")
    weights = tmp_path / "tiny.safetensors"
    text = (workdir / "config.json").read_text()
    saved = json.loads(text)
    (workdir / "config.json").write_text(
        text.replace(json.dumps(saved["model"]["weights"]), json.dumps(str(weights)))
    )
    tiny_backbone.write(weights, tiny_backbone.tensors(seed=1))
    with pytest.raises(errors.InputError, match="began with other weights"):
        train(workdir, model__weights=str(weights))


def test_a_new_run_says_once_what_was_left_out(trained):
    said = (trained[0].parent / "said.txt").read_text()
    assert said.count("left out on purpose: bn.num_batches_tracked, fc.weight") == 1
    assert "licence mit" in said


def test_many_names_that_end_alike_are_counted_together():
    names = [f"bn{i}.num_batches_tracked" for i in range(1, 5)] + ["fc.bias", "fc.weight"]
    record = {"source": "w", "arrays": 9, "layout": "timm", "licence": "mit", "left_out": names}
    said = pretrained.describe(record)
    assert said.endswith("on purpose: 4 x *.num_batches_tracked, fc.bias, fc.weight")


# -- files that do not fit ---------------------------------------------------------------


def given(workdir, **fields):
    made = config(**fields)
    run = Setup(made, workdir, datasets.dataset(made))
    return pretrained.given(made, run.encoder, (8, 8, 1))


def without(name):
    return {n: x for n, x in tiny_backbone.tensors().items() if n != name}


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        (without("bn.running_var"), ("1 of 6 arrays are missing", "bn.running_var")),
        (
            without("conv.bias") | {"conv.offset": np.zeros(6, np.float32)},
            ("conv.bias", "1 arrays have no place", "conv.offset"),
        ),
        (
            {"conv.weight": tiny_backbone.tensors()["conv.weight"].transpose(3, 2, 1, 0)},
            ("conv.weight [4, 4, 3, 6], for params/conv/kernel [4, 4, 3, 6]",),
        ),
        ({"bn.bias": np.zeros(6, np.int32)}, ("are no float32, float16 or bfloat16", "bn.bias")),
        ({"other.weight": np.zeros(3, np.float32)}, ("other.weight",)),
    ],
)
def test_weights_that_do_not_fit_are_refused_by_name(arrays, words, tmp_path):
    if len(arrays) == 1:
        arrays = tiny_backbone.tensors() | arrays
    weights = tiny_backbone.write(tmp_path / "tiny.safetensors", arrays)
    with pytest.raises(errors.InputError) as refused:
        given(tmp_path, model__weights=str(weights))
    assert str(refused.value).startswith(f"model.weights={str(weights)!r}: ")
    for word in words:
        assert word in str(refused.value)


@pytest.mark.parametrize("kind", [np.float16, ml_dtypes.bfloat16])
def test_weights_of_half_precision_are_read(kind, tmp_path):
    halves = {
        name: x.astype(kind) if x.dtype == np.float32 else x
        for name, x in tiny_backbone.tensors().items()
    }
    weights = tiny_backbone.write(tmp_path / "tiny.safetensors", halves)
    found = given(tmp_path, model__weights=str(weights)).variables["params"]["backbone"]["bn"]
    expected = halves["bn.weight"].astype(np.float32)
    np.testing.assert_array_equal(found["scale"], expected)
    assert found["scale"].dtype == np.float32


def test_files_that_cannot_be_read_are_refused_before_anything_is_written(tmp_path):
    whole = tiny_backbone.write(tmp_path / "tiny.safetensors").read_bytes()
    cases = {
        "cut.safetensors": (whole[:-5], "damaged, cut off"),
        "torch.pth": (pickle.dumps({}), "python -m experiments.convert --input="),
        "none.safetensors": (None, "is no file"),
    }
    for name, (content, words) in cases.items():
        if content is not None:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(errors.InputError, match=words) as refused:
            train(tmp_path / "run", model__weights=str(tmp_path / name))
        assert str(refused.value).startswith("model.weights=")
    assert not list((tmp_path / "run").iterdir())


def test_weights_are_looked_for_before_the_data(tmp_path):
    (tmp_path / "run").mkdir()
    for field in ("weights", "init_from"):
        fields = {"dataset__name": "folder", "dataset__path": str(tmp_path / "none")}
        with pytest.raises(errors.InputError, match=f"^model.{field}="):
            train(tmp_path / "run", **fields, **{f"model__{field}": "nowhere"})


def test_the_program_refuses_weights_of_another_family(tmp_path):
    weights = tiny_backbone.write(tmp_path / "tiny.safetensors")
    fields = {"model__weights": weights, "model__width": 64, "model__stem": "3x3"}
    done = programs.run("train", f"--workdir={tmp_path}", model__name="resnet18", **fields)
    programs.refused(done, f"model.weights='{weights}': ", "conv1.weight", "by the names of torch")


def test_backbones_without_published_weights_are_refused(tmp_path):
    weights = tiny_backbone.write(tmp_path / "tiny.safetensors")
    with pytest.raises(errors.InputError, match="without published weights"):
        given(tmp_path, model__name="mlp", model__weights=str(weights), model__freeze="")
    with pytest.raises(errors.InputError, match="model.norm='group' has no published weights"):
        given(
            tmp_path,
            model__name="resnet18",
            model__norm="group",
            model__weights=str(weights),
        )


def test_a_lost_hub_says_what_trains_without_it(monkeypatch):
    def lost(weights):
        raise errors.LostError(f"the Hub cannot be reached for {weights}.")

    monkeypatch.setattr(pretrained.weight_files, "find", lost)
    with pytest.raises(errors.LostError, match="for hf://a/b. docs/pretrained.md says.*folder.py"):
        pretrained.find(config(model__weights="hf://a/b"))


# -- another run -------------------------------------------------------------------------


@pytest.mark.slow
def test_a_run_starts_from_the_best_encoder_of_another(trained, tmp_path, capsys):
    workdir, weights, _ = trained
    other = tmp_path / "other"
    shutil.copytree(workdir, other)
    fields = {"model__init_from": str(other), "optimizer__learning_rate": 1e-30}
    result = train(tmp_path / "run", **fields)
    assert "with its head" in capsys.readouterr().out
    assert result["weights"]["source"] == str(other)
    assert result["weights"]["weights"]["source"] == weights
    assert result["weights"]["licence"] == "mit"
    shutil.rmtree(other)  # it is needed no more
    evaluating.evaluate_folder(tmp_path / "run")
    before = state_of(workdir, model__weights=weights)
    after = state_of(tmp_path / "run", **fields)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-7), before.variables, after.variables
    )


def test_a_head_of_another_shape_is_new(trained, tmp_path):
    found = given(tmp_path, model__init_from=str(trained[0]), model__dim=5)
    assert pretrained.describe(found.record) == (
        f"{trained[0]} at step {found.record['step']}, licence mit; {found.record['head']}"
    )
    assert found.record["head"] == "the head is new, as its shape differs: Dense_0"
    assert found.variables["params"].keys() == {"backbone"}
    assert found.variables["batch_stats"].keys() == {"backbone"}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"model__width": 7}, "set model.width=6"),
        ({"model__name": "conv4", "model__freeze": ""}, "set model.name='tests.support.tiny"),
        ({"model__pixels": "unit"}, "set model.pixels='auto'"),
    ],
)
def test_runs_of_another_architecture_are_refused(trained, fields, message, tmp_path):
    with pytest.raises(errors.InputError, match=message) as refused:
        given(tmp_path, model__init_from=str(trained[0]), **fields)
    assert str(refused.value).startswith("model.init_from=")


def test_a_folder_without_a_trained_run_is_refused(trained, tmp_path):
    with pytest.raises(errors.InputError, match="model.init_from=.*has no config.json"):
        given(tmp_path, model__init_from=str(tmp_path))
    shutil.copy(trained[0] / "config.json", tmp_path)
    shutil.copy(trained[0] / "data.json", tmp_path)
    with pytest.raises(errors.InputError, match="holds no checkpoint"):
        given(tmp_path, model__init_from=str(tmp_path))


# -- several processes, and sweeps ---------------------------------------------------------


@pytest.mark.slow
def test_several_processes_start_from_the_weights(tmp_path):
    weights = tiny_backbone.write(tmp_path / "tiny.safetensors")

    def started(workdir, **fields):
        named = {name.replace(".", "__"): value for name, value in SMALL.items()} | fields
        given = programs.arguments("train", f"--workdir={workdir}", **named)
        for process in programs.start_together([4, 4], given):
            said = process.communicate()
            assert process.returncode == 0, said

    # In a folder of their own, so that no other test has kept the features that these share.
    kept = tmp_path / "features"
    started(tmp_path / "one", model__weights=weights, model__features_dir=kept)
    assert any(kept.iterdir())
    assert_has_the_weights(state_of(tmp_path / "one", model__weights=str(weights)))
    started(tmp_path / "two", model__init_from=tmp_path / "one")
    assert_has_the_weights(state_of(tmp_path / "two", model__init_from=str(tmp_path / "one")))


@pytest.mark.slow
def test_runs_that_are_trained_together_start_from_the_weights(tmp_path):
    weights = tiny_backbone.write(tmp_path / "tiny.safetensors")
    run = ml_collections.ConfigDict(config(model__weights=str(weights)).to_dict())
    sweep = sweeps.get_config(run)
    sweep.arms, sweep.reference = (("one", {}), ("two", {"loss.margin": 0.4})), "one"
    sweep.seeds, sweep.claim = (0,), "None."
    planned = plan.plan(sweep, tmp_path / "sweep")
    vectorised.train_all(planned, sweep, lambda: None)
    weights.unlink()
    for one in planned:
        result = json.loads((one.folder / "result.json").read_text())
        assert result["weights"]["arrays"] == 6
        _, state = restoring.load(one.folder, one.config, (8, 8, 1)).judged()
        assert_has_the_weights(state)
