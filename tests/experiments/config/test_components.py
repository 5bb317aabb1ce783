"""Parts of the user's own, named by import path, in every program and every engine."""

import json
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import base, digits, saved
from configs.sweeps import base as sweeps
from experiments.config import (
    augmentations,
    check,
    completion,
    components,
    datasets,
    encoders,
    import_paths,
    settings,
)
from experiments.run import config_json, embedders
from experiments.sweeps import plan
from tests.support import calls, programs
from tests.support.own_parts import CODE
from triplet_jax import distances, errors, losses, mining

OWN = {
    "dataset.name": "my_parts:even_digits",
    "loss.metric": "my_parts:canberra",
    "loss.penalty": "my_parts:smooth_hinge",
    "loss.knobs.sharpness": 5.0,
    "mining.miner": "my_parts:nth_band",
    "mining.knobs.band": 0.5,
    "model.name": "my_parts:Patches",
    "augment.own": "my_parts:invert_some",
}
SMALL = {
    "train.steps": 6,
    "evaluate.every": 3,
    "evaluate.episodes": 4,
    "evaluate.ways": 2,
    "log.every": 2,
    "batch.classes": 4,
    "batch.per_class": 4,
    "model.width": 8,
    "model.dim": 8,
}


def config(**differences):
    fields = {name.replace("__", "."): value for name, value in differences.items()}
    return base.with_differences(digits.get_config(), SMALL | fields)


def run(program, place, *given):
    return programs.run(program, *given, folder=place)


def train(place, workdir):
    fields = {name.replace(".", "__"): value for name, value in (SMALL | OWN).items()}
    file = programs.ROOT / "configs" / "digits.py"
    return programs.run("train", f"--workdir={workdir}", folder=place, config=file, **fields)


@pytest.mark.slow
def test_programs_use_every_kind_and_report_code_that_changed(place):
    done = train(place, "run")
    assert done.returncode == 0, done.stderr
    content = json.loads((place / "run" / "config.json").read_text())
    assert set(content["components"]) == {value for value in OWN.values() if ":" in str(value)}
    assert content["mining"]["knobs"]["band"] == 0.5
    (place / "my_parts.py").write_text(CODE + "\n# changed\n")
    done = run("export", place, "--workdir=run", "--output=encoder.jaxexport")
    assert done.returncode == 0, done.stderr
    assert re.search(r"warning: .*my_parts.py is not the file that 'my_parts:Patches'", done.stdout)
    programs.refused(train(place, "run"), "my_parts.py is not the file", "Put the file back")


def test_code_is_never_taken_from_the_folder_of_a_run(place, monkeypatch):
    (place / "run" / "checkpoints").mkdir(parents=True)
    made = config(mining__miner="my_parts:nth_band")
    (place / "run" / "config.json").write_text(made.to_json())
    del sys.modules["my_parts"]
    (place / "my_parts.py").unlink()
    (place / "run" / "my_parts.py").write_text("raise SystemExit('it was run')")
    with pytest.raises(errors.InputError, match="there is no module 'my_parts'"):
        config_json.read(place / "run")
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path != str(place)])
    monkeypatch.chdir(place / "run")
    with pytest.raises(errors.InputError, match="is .*run/my_parts.py, in the folder of a run"):
        config_json.read(place / "run")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("my_parts:nth_band", "train.steps=0 must be"),
        pytest.param(
            "my_parts:nth_bend",
            "my_parts.py has no 'nth_bend'. Did you mean 'nth_band'",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_programs_run_where_other_files_have_the_names_of_the_clone(place, name, said):
    """Configs are those of the clone, and the parts that they name those of the user."""
    trap = "raise SystemExit('it was run')"
    (place / "configs.py").write_text(trap)
    (place / "experiments").mkdir()
    (place / "experiments" / "train.py").write_text(trap)
    config = "configs/digits.py:batch_hard"
    command = [sys.executable, "-m", "experiments.train", f"--config={config}", "--workdir=run"]
    flags = [f"--config.mining.miner={name}", "--config.train.steps=0"]
    done = subprocess.run(
        [*command, *flags],
        cwd=place,
        env=programs.environment() | {"PYTHONPATH": str(programs.ROOT)},
        capture_output=True,
        text=True,
        timeout=programs.TIMEOUT,
    )
    programs.refused(done, said)


SWEEP = """
from configs import digits
from configs.sweeps import base


def get_config():
    run = digits.get_config()
    run.update_from_flattened_dict({small!r})
    run.log.telemetry_every = 0
    run.model.name = "mlp"
    sweep = base.get_config(run)
    sweep.arms = (("own", {{
        "mining.miner": "my_parts:nth_band",
        "loss.average": "valid",
        "schedules.band": {{"field": "mining.knobs.band", "start": 2.0, "end": 0.5}},
    }}),)
    sweep.reference = "own"
    sweep.seeds = (0,)
    sweep.processes = 1
    return sweep
"""


@pytest.fixture
def a_sweep(place):
    (place / "small.py").write_text(SWEEP.format(small=SMALL))

    def train(engine):
        workdir = f"--workdir={engine}"
        done = run("sweep", place, "--config=small.py", workdir, f"--config.engine={engine}")
        assert done.returncode == 0, done.stderr
        folder = place / engine / "runs" / "own" / "seed0"
        assert (folder / "result.json").exists(), (folder / "error.txt").read_text()
        lines = (folder / "metrics.jsonl").read_text().splitlines()
        return [json.loads(line) for line in lines]

    return train


@pytest.mark.slow
def test_a_process_of_a_sweep_knows_ones_own_miner_outside_of_the_repository(place, a_sweep):
    rows = a_sweep("processes")
    assert [row["step"] for row in rows] == [2, 3, 4, 6, 6]
    moved = [row["schedule/mining.knobs.band"] for row in rows if "loss" in row]
    assert moved == sorted(moved, reverse=True)
    assert moved[0] < 2.0
    (place / "my_parts.py").write_text(CODE + "\n")
    done = run("sweep", place, "--config=small.py", "--workdir=processes")
    programs.refused(done, "my_parts.py is not the file")


@pytest.mark.slow
@pytest.mark.slow
def test_engines_agree_on_a_miner_of_ones_own(a_sweep):
    for a, b in zip(a_sweep("processes"), a_sweep("vectorised"), strict=True):
        assert set(a) == set(b)
        np.testing.assert_allclose([a[k] for k in sorted(a)], [b[k] for k in sorted(a)], rtol=1e-4)


def test_a_config_that_names_a_part_has_its_knobs(place):
    made = config(mining__miner="my_parts:nth_band", mining__knobs__nth=2)
    assert made.mining.knobs.get_type("band") is float
    assert made.mining.knobs.get_type("nth") is int
    check.check(made)
    with pytest.raises(errors.InputError, match="has no knob 'width'; its knobs are band, nth"):
        check.check(config(mining__miner="my_parts:nth_band", mining__knobs__width=0.1))
    path = place / "config.json"
    path.write_text(made.to_json())
    again = saved.get_config(str(path))
    assert again.mining.knobs.to_dict() == made.mining.knobs.to_dict()
    assert again.mining.knobs.get_type("nth") is int
    schedule = base.schedule("mining.knobs.nth", start=1, end=3, a=1.0)
    made.schedules.of_nth = schedule
    check.check(made)
    moved = settings.moving(made)(jnp.int32(6), {})
    assert (moved["mining.knobs.nth"], moved["mining.knobs.nth"].dtype) == (3, jnp.int32)


def test_the_miner_and_the_metric_of_the_documentation_give_what_they_say(place):
    miner, metric = map(import_paths.function, ("my_parts:nth_band", "my_parts:canberra"))
    d_p, d_n = np.array([0.3, 0.9]), np.array([0.2, 0.5, 0.8, 0.95, 2.5])
    is_negative = np.array([True, True, True, True, False])
    mined = miner(d_p, np.ones(2, bool), d_n, is_negative, band=0.6, nth=2)
    np.testing.assert_allclose(mined.d_an, [0.8, 0.95])  # the second has one within its band
    np.testing.assert_array_equal(mined.weight, [True, True])
    a, b = np.random.default_rng(0).normal(size=(2, 4, 3))
    wanted = [[np.sum(abs(x - y) / (abs(x) + abs(y))) for y in b] for x in a]
    np.testing.assert_allclose(
        distances.pairwise(jnp.asarray(a), jnp.asarray(b), metric), wanted, rtol=1e-5
    )
    slope = jax.grad(lambda x: distances.pairwise(x, x, metric).sum())(jnp.asarray(a))
    assert np.isfinite(slope).all()
    labels = np.array([0, 0, 1, 1])
    value, _ = calls.compiled(losses.triplet_loss, a, labels, miner="batch_all", metric=metric)
    d = np.array([[np.sum(abs(x - y) / np.maximum(abs(x) + abs(y), 1e-9)) for y in a] for x in a])
    terms = [
        max(0.0, d[i, p] - d[i, n] + 0.2)
        for i in range(4)
        for p in range(4)
        for n in range(4)
        if p != i and labels[p] == labels[i] != labels[n]
    ]
    np.testing.assert_allclose(value, np.mean([t for t in terms if t > 0]), rtol=1e-5)


BAD = """
import json as named_like_a_function
from triplet_jax import mining

number = 3
def two(a, b): return a
def fails(d_ap, d_an, margin): return d_ap @ nothing
def short(d_ap, d_an, margin): return d_ap.sum()
def matrix(a, b, c, d): return mining.Triplets(a[:, None, None], c, d)
def text(*given, **named): return "text"
def bigger(key, image): return image[:2]
"""


@pytest.mark.parametrize(
    ("field", "name", "words"),
    [
        ("mining.miner", "no_module:x", r"there is no module 'no_module', neither in the working"),
        ("mining.miner", "bad_parts.sub:x", r"there is no module 'bad_parts.sub'"),
        ("mining.miner", "bad_parts:tow", r"bad_parts.py has no 'tow'. Did you mean 'two'"),
        ("mining.miner", "bad_parts:number", "is a int in .*bad_parts.py, and no function"),
        ("mining.miner", "bad_parts:two", "fails: TypeError: .*A miner is .to_positives"),
        ("mining.second", "bad_parts:matrix", "returns Triplets of .* and not mining.Triplets"),
        ("memory.miner", "bad_parts:text", "returns a str, and not mining.Triplets"),
        ("mining.miner", "broken:x", r"cannot be imported: SyntaxError: .*broken.py, line 2"),
        ("mining.miner", "needs:x", r"No module named 'not_installed' .*needs.py, line 1"),
        ("loss.penalty", "bad_parts:fails", r"NameError: name 'nothing' .*bad_parts.py, line 7"),
        ("loss.penalty", "bad_parts:short", r"returns an array of shape \[\], and not one value"),
        ("loss.name", "bad_parts:text", "returns a str, and not contrastive.Terms"),
        ("loss.metric", "bad_parts:text", "returns a str, and not a distances.Metric"),
        ("mining.miner", "nth_band", "is not known.*A miner of your own is named by its import"),
        ("model.name", "own_net", "is not known.*A backbone of your own is named by its import"),
        ("loss.metric", "builtins:print", "and not a distances.Metric"),
        ("model.name", "no_module:x", "there is no module 'no_module'"),
    ],
)
def test_a_part_that_does_not_fit_is_refused_with_what_is_expected(field, name, words, place):
    (place / "bad_parts.py").write_text(BAD)
    (place / "broken.py").write_text("x = 1\ndef x(:\n")
    (place / "needs.py").write_text("import not_installed\n")
    made = digits.get_config().copy_and_resolve_references()
    made.update_from_flattened_dict({field: name})
    with pytest.raises(errors.InputError, match=f"(?s)^{field}=.*{words}") as refused:
        check.check(made)
    assert "\n" not in str(refused.value)


def test_a_miner_that_one_process_knows_is_reported(place, monkeypatch):
    monkeypatch.setitem(mining.MINERS, "mine", import_paths.function("my_parts:nth_band"))
    assert not components.known_here_alone(config(mining__miner="quantile", model__name="resnet18"))
    (complaint,) = components.known_here_alone(config(mining__miner="mine"))
    assert "mining.miner='mine' is known to this process alone" in complaint
    assert "such as 'my_parts:mine'" in complaint
    made = sweeps.get_config(config())
    made.arms, made.reference = (("own", {"mining.miner": "mine"}),), "own"
    assert len(plan.plan(made, place)) == 5
    made.engine = "processes"
    with pytest.raises(errors.InputError, match="arm 'own': engine='processes': mining.miner='mi"):
        plan.plan(made, place)


def test_parts_whose_input_is_known_late_are_tried_out_before_training(place):
    (place / "bad_parts.py").write_text(BAD)
    with pytest.raises(errors.InputError, match="model.name=.*and not a flax module that gives"):
        encoders.encoder(config(model__name="bad_parts:text"), (8, 8, 1))
    with pytest.raises(errors.InputError, match=r"augment.own=.*of shape \[2, 8, 1\], and not an"):
        augmentations.augmentation(config(augment__own="bad_parts:bigger"), (8, 8, 1))
    with pytest.raises(errors.InputError, match="dataset.name=.*and not a data.Dataset"):
        datasets.dataset(config(dataset__name="bad_parts:text"))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("labels=made.labels[:5]", "arrays of different lengths: {'inputs': 891, 'labels': 5"),
        ("split=np.full(len(made), 'dev')", r"the splits \['dev'\]; allowed: train, validation"),
    ],
)
def test_a_data_set_that_does_not_hold_together_is_refused(change, words, place):
    (place / "odd_parts.py").write_text(
        "import dataclasses, my_parts\nimport numpy as np\n"
        "def odd(fields):\n"
        "    made = my_parts.even_digits(fields)\n"
        f"    return dataclasses.replace(made, {change})\n"
    )
    with pytest.raises(errors.InputError, match=f"dataset.name='odd_parts:odd' returns .*{words}"):
        datasets.dataset(config(dataset__name="odd_parts:odd"))


def test_what_a_data_set_of_ones_own_refuses_is_said_as_it_is(place):
    (place / "strict.py").write_text(
        "from triplet_jax import errors\n"
        "def strict(fields):\n    raise errors.InputError('seed=3 is taken.')\n"
    )
    with pytest.raises(errors.InputError, match="^dataset.split_seed=3 is taken.$"):
        datasets.dataset(config(dataset__name="strict:strict"))


def test_a_program_that_reads_a_run_warns_of_parts_that_changed(place, capsys):
    made = config(mining__miner="my_parts:nth_band")
    path, before = place / "config.json", {"my_parts:nth_band": "0" * 64}
    path.write_text(json.dumps({"components": before}))
    components.warn_of_changes(place, made)
    said = capsys.readouterr().out
    assert said.startswith(f"warning: {place / 'my_parts.py'} is not the file that 'my_parts:nth_b")
    assert said.endswith("What follows is by the code as it is now.\n")
    with pytest.raises(errors.InputError, match="holds a run of other code.*Put the file back"):
        components.check_unchanged(place, made)
    path.write_text(json.dumps({"components": ["my_parts:nth_band"]}))
    with pytest.raises(errors.InputError, match=r"config.json is damaged: components=\["):
        components.warn_of_changes(place, made)


def test_images_are_embedded_as_a_data_set_of_ones_own_has_them(place):
    form = embedders.image_form(config(dataset__name="my_parts:even_digits"), place)
    assert (form.size, form.channels) == (8, 1)
    (place / "of_files.py").write_text(
        "import my_parts\nimport dataclasses\nfrom triplet_jax.data import images\n"
        "def files(fields):\n"
        "    form = images.ImageForm(size=20, channels=3, invert=True)\n"
        "    made = my_parts.even_digits(fields)\n"
        "    read = images.Images(['x.png'] * len(made), form)\n"
        "    return dataclasses.replace(made, inputs=read)\n"
    )
    form = embedders.image_form(config(dataset__name="of_files:files"), place)
    assert (form.size, form.channels, form.invert) == (20, 3, True)


def test_an_augmentation_of_ones_own_comes_after_the_others(place):
    image = jnp.full((8, 8, 1), 0.25)
    alone = augmentations.augmentation(
        config(
            augment__own="my_parts:invert_some",
            augment__shift=0.0,
            augment__rotate=0.0,
            augment__scale=0.0,
        ),
        (8, 8, 1),
    )
    seen = {float(alone(jax.random.key(i), image)[0, 0, 0]) for i in range(20)}
    assert seen == {0.25, 0.75}
    made = completion.completed(config(augment__own="my_parts:invert_some"))
    both = augmentations.augmentation(made, (8, 8, 1))
    seen = {round(float(both(jax.random.key(i), image)[4, 4, 0]), 5) for i in range(20)}
    assert seen == {0.25, 0.75}
