import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.support import calls
from triplet_jax import losses, models, penalties, schedules
from triplet_jax.data import augment, sampling
from triplet_jax.devices import collectives
from triplet_jax.models.pixels import as_floats
from triplet_jax.training import cross_batch_memory, data_parallel, train_state, train_step
from triplet_jax.training.numbers import Numbers

# Not Adam: it turns the rounding of a gradient near zero into a step of full length.
OPTIMIZER = optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(0.1, momentum=0.9))
MOVES = augment.chain(shift=1.0, rotate=10.0, noise_std=0.05)
NOISE = augment.chain(noise_std=0.05)


@functools.cache
def make(norm="batch", miner="semi_hard", averaged=True, augmented=MOVES, **of_encoder):
    settings = {"name": "conv4", "dim": 4, "width": 16, "axis_name": collectives.DEVICES}
    encoder = models.encoder(norm=norm, **settings | of_encoder)
    state = train_state.init_state(
        encoder, OPTIMIZER, jnp.zeros((1, 8, 8, 1)), key=jax.random.key(1), averaged=averaged
    )
    recipe = train_step.Recipe(
        encoder=encoder,
        optimizer=OPTIMIZER,
        loss=functools.partial(losses.triplet_loss, miner=miner),
        augment=augmented,
        average_decay=0.9,
        learning_rate=optax.constant_schedule(0.1),
        key=jax.random.key(2),
        axis_name=collectives.DEVICES,
    )
    return state, recipe


def make_mlp(**settings):
    """Quicker to compile, for what depends on neither the encoder nor the augmentation."""
    return make(name="mlp", **{"norm": "group", "augmented": NOISE} | settings)


def images(n=32, classes=8):
    random = np.random.default_rng(0)
    labels = random.permutation(np.arange(n) % classes)
    pixels = random.integers(0, 256, (classes, 8, 8, 1))[labels] // 2
    return (pixels + random.integers(0, 128, (n, 8, 8, 1))).astype(np.uint8), labels


_lifted = {}


def lifted(recipe, devices):
    """The compiled step, kept for the next test that takes it; a recipe cannot be hashed."""
    if (id(recipe), devices) not in _lifted:
        step = jax.pmap(
            functools.partial(train_step.train_step, recipe=recipe),
            axis_name=collectives.DEVICES,
            in_axes=(None, 0, 0, 0),
            out_axes=(None, None),
            devices=jax.devices()[:devices],
        )
        _lifted[id(recipe), devices] = recipe, step
    return _lifted[id(recipe), devices][1]


def run(recipe, state, devices, steps=3):
    """A few steps on the first so many devices."""
    step = lifted(recipe, devices)
    pixels, labels = images()
    shard = (devices, len(labels) // devices)
    places = np.arange(len(labels)).reshape(shard)
    history = []
    for number in range(steps):
        # Other examples in each step, as a memory takes it, though they look the same.
        of_step = places + number * len(labels) // 2
        inputs = pixels.reshape(*shard, 8, 8, 1)
        state, metrics = step(state, inputs, labels.reshape(shard), of_step)
        state = jax.device_get(state)
        history.append({name: float(value) for name, value in metrics.items()})
    return state, history


@pytest.mark.parametrize(
    ("norm", "miner"),
    [
        ("batch", "semi_hard"),
        pytest.param("batch", "batch_all", marks=pytest.mark.slow),
        pytest.param("group", "random", marks=pytest.mark.slow),
    ],
)
def test_eight_devices_take_the_steps_of_one(norm, miner):
    state, recipe = make(norm, miner)
    one, history_of_one = run(recipe, state, 1)
    eight, history_of_eight = run(recipe, state, 8)
    # Rounding may later change which of two negatives, as far as each other, is mined.
    for number, tolerance in enumerate((1e-4, 1e-2, 1e-2)):
        for name, value in history_of_one[number].items():
            found = history_of_eight[number][name]
            assert found == pytest.approx(value, rel=tolerance, abs=1e-5), (number, name)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-2, atol=1e-3), one, eight)


@pytest.mark.parametrize("of_average", [pytest.param(False, marks=pytest.mark.slow), True])
def test_eight_devices_remember_what_one_does(of_average):
    state, recipe = make_mlp()
    state = state.replace(memory=cross_batch_memory.empty(48, 4))

    def with_memory(embeddings, labels, *, key, axis_name, remembered, by_average=None):
        assert (by_average is not None) == of_average
        past, counts = remembered
        of_batch, stats = losses.triplet_loss(embeddings, labels, axis_name=axis_name)
        beyond, _ = losses.triplet_loss(
            embeddings,
            labels,
            references=losses.References(past.embeddings, past.labels, counts, shared=True),
            axis_name=axis_name,
        )
        return of_batch + beyond, stats | {"beyond": beyond}

    recipe = dataclasses.replace(
        recipe, loss=with_memory, memory_start=1, memory_of_average=of_average
    )
    one, history_of_one = run(recipe, state, 1)
    eight, history_of_eight = run(recipe, state, 8)
    assert history_of_one[0]["beyond"] == 0 < history_of_one[1]["beyond"]
    for number, tolerance in enumerate((1e-4, 1e-2, 1e-2)):
        for name in ("loss", "beyond"):
            expected = history_of_one[number][name]
            assert history_of_eight[number][name] == pytest.approx(expected, rel=tolerance)
    np.testing.assert_array_equal(one.memory.places, eight.memory.places)
    np.testing.assert_allclose(one.memory.embeddings, eight.memory.embeddings, atol=1e-2)


@pytest.mark.slow
def test_the_memory_of_an_average_is_what_the_average_sees():
    state, recipe = make_mlp()
    state = state.replace(memory=cross_batch_memory.empty(32, 4))

    def loss(embeddings, labels, *, by_average, remembered, key, axis_name):
        value, stats = losses.triplet_loss(embeddings, labels, axis_name=axis_name)
        return value, stats | {"mean_of_average": by_average.mean()}

    of_average = dataclasses.replace(recipe, loss=loss, memory_of_average=True)
    moved, _ = run(of_average, state, 1, steps=2)
    step_three, [numbers] = run(
        dataclasses.replace(of_average, augment=None),
        moved,
        1,
        steps=1,
    )
    pixels, _ = images()
    encoder = models.encoder("mlp", dim=4, norm="group", width=16)
    inputs = pixels / jnp.float32(255)
    expected = calls.compiled(encoder.apply, moved.variables, inputs, train=False)
    np.testing.assert_allclose(step_three.memory.embeddings, expected, atol=1e-5)
    assert numbers["mean_of_average"] == pytest.approx(float(expected.mean()), abs=1e-5)


@pytest.mark.parametrize("devices", [pytest.param(1, marks=pytest.mark.slow), 4])
def test_micro_batches_take_the_step_of_the_whole_batch(devices):
    # Without statistics of the batch, which a part has of its own.
    state, recipe = make_mlp()
    whole, history = run(recipe, state, devices)
    parts, of_parts = run(dataclasses.replace(recipe, micro_batches=4), state, devices)
    for name, value in history[0].items():
        assert of_parts[0][name] == pytest.approx(value, rel=1e-4, abs=1e-6), name
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-4), whole, parts)


@pytest.mark.slow
def test_dropout_depends_on_neither_devices_nor_parts():
    state, recipe = make_mlp(miner="batch_all", dropout=0.5)
    one, history = run(recipe, state, 1, steps=2)
    parts, of_parts = run(dataclasses.replace(recipe, micro_batches=2), state, 8, steps=2)
    for name, value in history[0].items():
        assert of_parts[0][name] == pytest.approx(value, rel=1e-4, abs=1e-6), name
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-4), one, parts)


def test_dropout_drops_other_features_in_every_step():
    still = optax.sgd(0.0)
    for rate in (0.0, 0.5):
        state, recipe = make_mlp(miner="batch_all", dropout=rate)
        state = state.replace(opt_state=still.init((state.params, {})))
        recipe = dataclasses.replace(recipe, augment=None, optimizer=still)
        _, (first, second) = run(recipe, state, 1, steps=2)
        assert (first["loss"] == second["loss"]) == (rate == 0)


@pytest.mark.slow
def test_running_statistics_are_those_of_one_part_after_the_other():
    state, recipe = make_mlp(norm="batch")
    recipe = dataclasses.replace(recipe, augment=None)
    parts, _ = run(dataclasses.replace(recipe, micro_batches=2), state, 1, steps=1)
    encoder = models.encoder("mlp", dim=4, norm="batch", width=16)
    apply = jax.jit(functools.partial(encoder.apply, train=True, mutable=["batch_stats"]))
    expected, (pixels, _) = state.batch_stats, images()
    for part in np.split(pixels, 2):
        variables = {"params": state.params, "batch_stats": expected}
        _, updates = apply(variables, as_floats(jnp.asarray(part)))
        expected = updates["batch_stats"]
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, rtol=1e-4), parts.batch_stats, expected
    )


@pytest.mark.slow
def test_micro_batches_need_less_memory():
    state, recipe = make(norm="group")
    pixels, labels = (np.concatenate([x] * 16) for x in images())
    shapes = state, jnp.asarray(pixels), jnp.asarray(labels), jnp.arange(len(labels))

    def scratch(micro_batches):
        parts = dataclasses.replace(recipe, micro_batches=micro_batches, axis_name=None)
        one = functools.partial(train_step.train_step, recipe=parts)
        return jax.jit(one).lower(*shapes).compile().memory_analysis().temp_size_in_bytes

    assert scratch(4) < 0.7 * scratch(1)


def test_the_first_step_has_the_gradient_of_the_global_loss():
    state, recipe = make_mlp()
    recipe = dataclasses.replace(recipe, augment=None, optimizer=optax.sgd(1.0))
    state = state.replace(opt_state=optax.sgd(1.0).init((state.params, {})))
    after, _ = run(recipe, state, 8, steps=1)
    pixels, labels = images()
    encoder = models.encoder("mlp", dim=4, norm="group", width=16)

    def loss(params):
        embeddings = encoder.apply({"params": params}, as_floats(jnp.asarray(pixels)))
        return losses.triplet_loss(embeddings, labels)[0]

    slope = calls.compiled(jax.grad(loss), state.params)
    expected = jax.tree.map(lambda p, g: p - g, state.params, slope)
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5),
        after.params,
        expected,
    )


@pytest.mark.slow
def test_training_lowers_the_loss_and_counts_its_steps():
    state, recipe = make(miner="batch_all")
    after, history = run(recipe, state, 1, steps=30)
    assert int(after.step) == 30
    assert history[-1]["loss"] < 0.5 * history[0]["loss"]


def test_the_average_follows_the_parameters():
    state, recipe = make()
    after, _ = run(recipe, state, 1, steps=1)
    expected = jax.tree.map(lambda old, new: 0.9 * old + 0.1 * new, state.params, after.params)
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6),
        after.average,
        expected,
    )
    assert after.variables["params"] is after.average
    plain, _ = make(averaged=False)
    assert plain.variables["params"] is plain.params


@pytest.mark.slow
def test_data_on_the_device_give_the_batches_of_the_sampler():
    state, recipe = make_mlp()
    step = functools.partial(train_step.train_step, recipe=recipe)
    devices = jax.local_device_count()
    pixels, labels = images(64)
    index = sampling.class_index(labels)
    settings = {"classes": 4, "per_class": 4}

    def draw(index, inputs, state):
        return sampling.pk_batch(jnp, index, 5, state.step, **settings)

    resident = data_parallel.resident(data_parallel.drawing(step, draw, devices=devices))
    streamed = data_parallel.streamed(step)
    index = jax.tree.map(jnp.asarray, index)
    held = data_parallel.replicate((index, jnp.asarray(pixels), jnp.asarray(labels)))
    # Two copies, since a step gives its state away.
    ours, theirs = data_parallel.replicate(state), data_parallel.replicate(state)
    for number in range(3):
        ours, found = resident(ours, held, np.arange(devices))
        picked = sampling.pk_batch(np, index, 5, number, **settings)
        shard = (devices, 16 // devices)
        theirs, expected = streamed(
            theirs,
            pixels[picked].reshape(*shard, 8, 8, 1),
            labels[picked].reshape(shard),
            picked.reshape(shard),
        )
        assert float(found["loss"]) == pytest.approx(float(expected["loss"]), rel=1e-5)


def test_metrics_name_what_a_collapse_shows():
    state, recipe = make()
    _, history = run(recipe, state, 1, steps=1)
    row = history[0]
    assert row["embedding_norm"] == pytest.approx(1, abs=1e-4)
    assert 0 < row["embedding_spread"] <= 1
    assert row["grad_norm"] > 0


def test_a_number_of_the_loss_is_learned():
    state, recipe = make_mlp(miner="batch_hard")

    def loss(embeddings, labels, *, beta, **settings):
        penalty = functools.partial(penalties.margin_based, beta=beta)
        return losses.triplet_loss(embeddings, labels, penalty=penalty, **settings)

    learned = {"beta": jnp.float32(5.0)}
    state = state.replace(learned=learned, opt_state=optax.adam(1e-3).init((state.params, learned)))
    recipe = dataclasses.replace(recipe, loss=loss, optimizer=optax.adam(1e-3))
    after, history = run(recipe, state, 8, steps=3)
    # No distance is as long as 5, so the boundary comes nearer, by 1e-3 a step of Adam.
    assert float(after.learned["beta"]) == pytest.approx(5.0 - 3e-3, abs=1e-5)
    assert history[1]["learned_beta"] == pytest.approx(5.0 - 1e-3, abs=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_a_number_that_must_be_positive_is_learned_by_its_logarithm(sign):
    state, recipe = make_mlp(averaged=False)
    learned = {"temperature": jnp.float32(0.5)}

    def loss(embeddings, labels, *, temperature, **settings):
        return sign * temperature + 0.0 * jnp.sum(embeddings), {}

    def history(rate):
        optimizer = optax.sgd(rate)
        started = state.replace(learned=learned, opt_state=optimizer.init((state.params, learned)))
        of_rate = dataclasses.replace(recipe, loss=loss, optimizer=optimizer, positive=learned)
        _, rows = run(of_rate, started, 1, steps=3)
        return [row["learned_temperature"] for row in rows]

    # The slope in the logarithm is the temperature itself.
    first, second, third = history(0.1)
    expected = 0.5 * np.exp(-sign * 0.1 * 0.5)
    assert (first, second) == pytest.approx((0.5, expected), rel=1e-5)
    assert third == pytest.approx(expected * np.exp(-sign * 0.1 * expected), rel=1e-5)
    assert history(1e6)[1:] == pytest.approx([1e-4 if sign > 0 else 1e4] * 2)


def test_scheduled_numbers_reach_the_loss_and_the_log_and_are_compiled_once():
    state, recipe = make_mlp(miner="batch_all")
    traces = []

    def moving(at, pace):
        traces.append(1)
        moved = {"margin": 0.1 * (1.0 + at)} | {f: p.fraction for f, p in pace.items()}
        return Numbers({"margin": 0.5}, moved)

    def loss(embeddings, labels, *, numbers, **settings):
        return losses.triplet_loss(embeddings, labels, margin=numbers["margin"], **settings)

    def next_pace(pace, stats):
        active = stats["active_fraction"]
        return {
            field: schedules.next_pace(p, active, target=0.0, rate=0.5, decay=0.0)
            for field, p in pace.items()
        }

    state = state.replace(pace={"mix": schedules.first_pace(target=0.0, b=0.75)})
    recipe = dataclasses.replace(recipe, numbers=moving, loss=loss, next_pace=next_pace)
    after, history = run(recipe, state, 8, steps=4)
    assert len(traces) == 1
    assert [row["schedule/margin"] for row in history] == pytest.approx([0.1, 0.2, 0.3, 0.4])
    active = [row["active_fraction"] for row in history]
    expected = [0.75]
    for share in active:
        expected.append(max(0.0, expected[-1] - 0.5 * share))
    assert [row["schedule/mix"] for row in history] == pytest.approx(expected[:-1], abs=1e-5)
    assert float(after.pace["mix"].fraction) == pytest.approx(expected[-1], abs=1e-5)


@pytest.mark.parametrize("micro_batches", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_the_share_of_rows_that_carry_the_gradient_paces_a_number(micro_batches):
    """Of the batch's rows, those of the first half alone have a gradient, of one length."""
    state, recipe = make_mlp(averaged=False)

    def loss(embeddings, labels, *, axis_name, numbers, **settings):
        # Eight rows of each device if there is one, one row of two if there are eight.
        rows = jnp.arange(len(embeddings)) < len(embeddings) // 2
        value = 1e-3 * jnp.sum(jnp.where(rows, embeddings[:, 0], 0.0))
        return collectives.total(value, axis_name), {}

    def numbers(step, pace):
        return Numbers({}, {"mix": pace["mix"].fraction})

    def next_pace(pace, stats):
        share = stats["gradient_share"]
        return {"mix": schedules.next_pace(pace["mix"], share, target=0.25, rate=0.2, decay=0.0)}

    state = state.replace(pace={"mix": schedules.first_pace(target=0.25, b=0.5)})
    recipe = dataclasses.replace(
        recipe,
        numbers=numbers,
        loss=loss,
        next_pace=next_pace,
        measures_gradient_share=True,
        micro_batches=micro_batches,
    )
    for devices in (1, 8):
        after, (row,) = run(recipe, state, devices, steps=1)
        assert row["gradient_share"] == pytest.approx(0.5)
        assert float(after.pace["mix"].fraction) == pytest.approx(0.5 - 0.2 * 0.25)
