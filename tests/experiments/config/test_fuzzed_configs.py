"""Configs at random: each is refused at launch with a message, or makes steps that can be taken.

FUZZ=1000 traces so many, trains as many others for three steps, and gives a tenth of as many to the
program, which has to refuse them, too.
"""

import inspect
import operator
import os
import pathlib

import hypothesis
import hypothesis.strategies as st
import jax
import ml_collections
import numpy as np
import PIL.Image
import pytest
import sklearn.datasets

from configs import base, digits
from experiments.config import (
    augmentations,
    check,
    completion,
    components,
    datasets,
    encoders,
    fields,
    pk_batches,
    stepping,
)
from experiments.config.fields import declaration
from experiments.config.settings import flat, with_numbers
from experiments.run.offline_mining import OfflineMining
from tests.support import limits, prepared, programs
from triplet_jax import contrastive, errors, losses, mining, schedules
from triplet_jax.devices import signals
from triplet_jax.runs import health
from triplet_jax.training import loop, patience, train_state

TRACED = int(os.environ.get("FUZZ", 10))
TRAINED = int(os.environ.get("FUZZ", 1))
STARTED = int(os.environ.get("FUZZ", 10)) // 10
HUGE = 1e30
DEFAULTS = base.get_config()
FIELDS = sorted(flat(DEFAULTS))
FILES = ["", "nowhere"]
PATHS = ["no_such:part", "math:pi", "math:sqrt", "builtins:print", "json:"]
NAMES = {
    name: list(field.allowed.values)
    for name, field in fields.FIELDS.items()
    if isinstance(field.allowed, declaration.OneOf)
} | {
    **{
        field: [*kind.table, *kind.others, *[""] * kind.may_be_empty, *PATHS]
        for field, kind in components.FIELDS.items()
    },
    "dataset.split_by": ["image", "class", "group", "official"],
    "dataset.name": ["digits", "arrays", "folder", "pairs", "omniglot/evil", "omniglot:9.9.9"]
    + ["", "a b", "../x", "omniglot[", "huggingface:evil/x", *PATHS],
    **dict.fromkeys(["dataset.path", "dataset.data_dir", "batch.scores", "offline.table"], FILES),
    **dict.fromkeys(["model.weights", "model.init_from"], FILES),
}
VARIANTS = sorted(base.VARIANTS)
TEXT = st.text(st.characters(codec="ascii", categories=("L", "N", "P")), max_size=5)
WHOLE = st.sampled_from([-1, 0, 1, 2, 3, 8, 10, 64, 2**31 - 1, 2**31])
NUMBERS = st.sampled_from(
    [0.0, 1e-6, 0.1, 0.5, 1.0, 2.0, 8.0, -1.0, HUGE, float("nan"), float("inf")]
)


def values(name):
    """Some that make sense, and some that do not."""
    owner, _, leaf = name.rpartition(".")
    kind = (DEFAULTS[owner] if owner else DEFAULTS).get_type(leaf)
    if name in NAMES:
        return st.sampled_from([*NAMES[name], "no_such_name"])
    if kind is tuple:
        return st.sampled_from([(), (8,), (2, 4), (0,), (-1, 3), ("beta",), ("temperature",)])
    return {bool: st.booleans(), int: WHOLE, float: NUMBERS}.get(kind, TEXT)


def with_knobs():
    """The name of each miner, penalty and loss that has knobs, with one of them."""
    for owner, knobs, table in (
        ("mining.miner", "mining.knobs", mining.MINERS),
        ("loss.penalty", "loss.knobs", losses.PENALTIES),
        ("loss.name", "loss.knobs", contrastive.LOSSES),
    ):
        for name, function in table.items():
            for knob in inspect.signature(function).parameters:
                if f"{knobs}.{knob}" in FIELDS:
                    yield {owner: name}, f"{knobs}.{knob}"


KNOBS = list(with_knobs())
SHARES = st.sampled_from([(), (0.5,), (0.2, 0.8), (0.8, 0.2), (-1.0,), (2.0,)])
ENDS = st.sampled_from([0.0, 0.1, 0.5, 1.0]) | NUMBERS
RECORD = {"start": ENDS, "end": ENDS, "order": st.sampled_from([*schedules.ORDERS, "none"])}
RECORD["kind"] = st.sampled_from([*fields.SCHEDULE.fields["kind"].allowed.values, "none"])
RARE = {"boundaries": SHARES, "levels": SHARES, **dict.fromkeys(("a", "b", "rate"), NUMBERS)}
RARE |= dict.fromkeys(("target", "decay"), NUMBERS)


@st.composite
def tuned(draw):
    """A knob, with its owner: a number of it, or a schedule."""
    owner, knob = draw(st.sampled_from(KNOBS))
    return owner | draw(scheduled(st.just(knob)) | values(knob).map(lambda x: {knob: x}))


def scheduled(field):
    record = st.fixed_dictionaries({"field": field} | RECORD, optional=RARE)
    return record.map(lambda drawn: {"schedules.own": drawn})


anything = st.lists(st.sampled_from(FIELDS), max_size=3, unique=True).flatmap(
    lambda names: st.fixed_dictionaries({name: values(name) for name in names})
)
differences = st.builds(
    operator.or_,
    anything,
    st.just({}) | tuned() | scheduled(st.sampled_from([*fields.MOVABLE, "seed", "no_such_field"])),
)


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """Fields of data sets: of each kind a small one."""
    folder = tmp_path_factory.mktemp("data")
    bunch = sklearn.datasets.load_digits()
    x, y = (15 * bunch.images[:300, ..., None]).astype(np.uint8), bunch.target[:300]
    np.savez(folder / "arrays.npz", x=x, y=y)
    np.savez(folder / "pairs.npz", x=x, pair=x[:, :, ::-1])
    for i, (pixels, label) in enumerate(zip(x, y, strict=True)):
        (folder / "images" / str(label)).mkdir(parents=True, exist_ok=True)
        PIL.Image.fromarray(pixels[..., 0]).save(folder / "images" / str(label) / f"{i}.png")
    prepared.omniglot(folder, classes=24, images=14)
    small = {"dataset.image_size": 8, "dataset.channels": 1}
    two = {"model.name": "mlp", "model.towers": 2, "batch.per_class": 2}
    of_omniglot = {"dataset.data_dir": str(folder), "dataset.split_by": "official"}
    return {
        "digits": {},
        "arrays": {"dataset.name": "arrays", "dataset.path": str(folder / "arrays.npz")},
        "pairs": {"dataset.name": "pairs", "dataset.path": str(folder / "pairs.npz")} | two,
        "folder": {"dataset.name": "folder", "dataset.path": str(folder / "images")} | small,
        "omniglot": {"dataset.name": "omniglot"} | of_omniglot | small,
    }


def refused_or_built(config):
    """What a step is made of; None where the config is refused with a message."""
    try:
        return built(config)
    except errors.InputError as error:
        assert len(str(error)) > 20
        return None


def built(config):
    config = completion.completed(config)
    check.check(config)
    everything = datasets.dataset(config)
    datasets.check_test(config, everything)
    examples, _ = datasets.training_split(config, everything)
    encoder = encoders.encoder(config, everything.input_shape, everything.pair_shapes)
    augment = augmentations.augmentation(config, everything.input_shape)
    if pk_batches.mines_offline(config):
        OfflineMining(config, pathlib.Path("nowhere"), examples)
    return everything, encoder, augment, pk_batches.class_index(config, examples)


def refused_or_traced(config):
    """A step is traced whole."""
    parts = refused_or_built(config)
    if parts is None:
        return
    everything, encoder, augment, index = parts
    state = jax.eval_shape(lambda: stepping.initial_state(config, encoder, everything.input_shape))
    step = _on_one_device(stepping.step(config, encoder, augment))
    after, metrics = jax.eval_shape(step, state, *_batch(config, everything, index, 0))
    assert metrics["loss"].shape == (1,)
    assert isinstance(after, train_state.TrainState)


def refused_or_trained(config, steps=3):
    """The steps are taken, as a run takes them."""
    parts = refused_or_built(config)
    if parts is None:
        return
    everything, encoder, augment, index = parts
    step = jax.jit(_on_one_device(stepping.step(config, encoder, augment)))

    def take_step(state):
        after = step(state, *_batch(config, everything, index, int(state.step)))
        return jax.tree.map(lambda x: x[0], after)

    after = loop.train(
        stepping.initial_state(config, encoder, everything.input_shape),
        take_step,
        schedule=loop.Schedule(steps, log_every=1, telemetry_every=1, evaluate_every=steps),
        score=lambda state: {},
        score_name="map_at_r",
        save=lambda *saved: None,
        journal=None,
        stop=signals.Stop(),
        patience=patience.Patience(0),
    )
    assert after.step == steps


def _on_one_device(step):
    return jax.vmap(step, in_axes=(None, 0, 0, 0), axis_name="devices")


def _batch(config, everything, index, step):
    """What one device, which is all there is, is given of a step."""
    examples, _ = datasets.training_split(config, everything)
    # What moves is computed of all steps, and the most that a config may have take too long.
    steps = {"train.steps": min(config.train.steps, 1000)}
    positions = pk_batches.draw_on_host(with_numbers(config, steps), index)(step)
    assert positions.shape == (config.batch.classes * config.batch.per_class,)
    batch = examples.inputs[positions], examples.labels[positions], positions
    if not isinstance(examples.inputs, np.ndarray):
        batch = np.stack(list(batch[0])), *batch[1:]
    return jax.tree.map(lambda x: np.asarray(x)[None], batch)


@pytest.fixture(scope="module", autouse=True)
def one_device():
    """What is traced does not depend on how many there are, but what is refused does."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jax, "device_count", lambda: 1)
        yield


def at_random(examples):
    """A test of so many configs."""
    settings = hypothesis.settings(
        max_examples=examples,
        deadline=None,
        derandomize="FUZZ" not in os.environ,  # new ones where somebody asks for them
        suppress_health_check=[
            hypothesis.HealthCheck.too_slow,
            hypothesis.HealthCheck.filter_too_much,
            hypothesis.HealthCheck.function_scoped_fixture,
        ],
    )
    # Digits as often as all others together.
    source = st.just("digits") | st.sampled_from(["arrays", "pairs", "folder", "omniglot"])
    given = hypothesis.given(
        differences=differences, variant=st.sampled_from(VARIANTS), source=source
    )
    return lambda test: settings(given(test))


def refused_by_command_line_or(take, differences, variant):
    config = digits.get_config(variant)
    try:
        base.with_differences(config, differences)
    except (TypeError, ValueError):  # as the command line refuses it
        return None
    with limits.fails_after(600):
        return take(ml_collections.FrozenConfigDict(config))


@at_random(TRACED)
def test_a_config_is_refused_or_makes_a_step(differences, variant, source, sources):
    refused_by_command_line_or(refused_or_traced, sources[source] | differences, variant)


@pytest.mark.slow
@at_random(TRAINED)
def test_a_config_is_refused_or_trains(differences, variant, source, sources):
    try:
        refused_by_command_line_or(refused_or_trained, sources[source] | differences, variant)
    except health.NotFiniteError:
        drawn = [*differences.values(), *differences.get("schedules.own", {}).values()]
        assert HUGE in drawn, "no number of it explains that"


@pytest.mark.slow
@at_random(STARTED)
@hypothesis.example(differences={"dataset.name": "a b"}, variant="semi_hard", source="digits")
def test_what_is_refused_is_refused_by_the_program(differences, variant, source, sources, tmp_path):
    given = programs.TINY | sources[source] | differences
    # No flag makes a schedule.
    given = {name: value for name, value in given.items() if name != "schedules.own"}
    if refused_by_command_line_or(refused_or_built, given, variant) is None:
        config = f"configs/digits.py:{variant}"
        done = programs.run("train", f"--workdir={tmp_path / 'run'}", config=config, **given)
        programs.refused(done)


@pytest.mark.parametrize(
    ("differences", "message"),
    [
        ({"augment.crop": 2**31 - 1}, "augment.crop=2147483647 may leave nothing"),
        ({"augment.crop": 8}, "set it below 8"),
        ({"memory.size": 2**31}, "memory.size=2147483648 must be .* at most 16777216"),
        ({"model.dim": 2**31}, "model.dim=2147483648 must be .* at most 65536"),
        ({"log.every": 10**400}, "must be .* at most 2147483647"),
    ],
)
def test_what_was_found_at_random_stays_refused(differences, message):
    config = digits.get_config("anchor_swap")
    base.with_differences(config, differences)
    with pytest.raises(errors.InputError, match=message):
        built(ml_collections.FrozenConfigDict(config))
