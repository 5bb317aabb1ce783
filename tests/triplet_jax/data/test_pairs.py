"""Two encoders on pairs: the loss between them, and the data they are given."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from configs import digits
from configs import pairs as pairs_config
from experiments.config import augmentations, check, encoders, objective
from tests.support import oracles
from triplet_jax import data, errors, evaluation, models
from triplet_jax.data import sampling
from triplet_jax.devices import collectives
from triplet_jax.training import train_state, train_step

DIM = 5
SPLIT = {"held_out": data.HeldOut(0.25, 0.25, seed=0)}


def config(variant="clip", **fields):
    made = pairs_config.get_config(variant)
    made.update_from_flattened_dict({k.replace("__", "."): v for k, v in fields.items()})
    return made


def spread(seed, rows, dim=DIM):
    return np.random.default_rng(seed).normal(size=(rows, dim)).astype(np.float32)


def shuffled_pairs(rows):
    """Labels of rows that take turns, each pair with another."""
    return np.random.default_rng(7).permutation(rows // 2).repeat(2)


# -- the loss


def clip(x, temperature, same_tower=False):
    """Radford et al. 2021: two cross entropies of cosines, by rows and by columns.

    With `same_tower` each sum is also over the other rows of the row's own encoder.
    """
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    first, second = unit[0::2], unit[1::2]

    def entropy(mine, others):
        between, within = (np.exp(mine @ to.T / temperature) for to in (others, mine))
        others_of_mine = within.sum(axis=1) - np.diag(within)
        return -np.log(np.diag(between) / (between.sum(axis=1) + same_tower * others_of_mine))

    return {"loss": (entropy(first, second).mean() + entropy(second, first).mean()) / 2}


def between(made, x, labels, axis_name=None):
    return objective.loss(made)(x, labels, key=jax.random.key(0), axis_name=axis_name)


@pytest.mark.parametrize(("temperature", "same_tower"), [(0.07, False), (0.5, True)])
def test_the_loss_is_that_of_clip(temperature, same_tower):
    made = config(loss__knobs__temperature=temperature, loss__same_tower=same_tower)
    check.check(made)
    x = spread(0, 12)
    run = jax.jit(jax.value_and_grad(functools.partial(between, made), has_aux=True))
    (loss, stats), gradient = run(x, shuffled_pairs(12))
    of_clip = functools.partial(clip, temperature=temperature, same_tower=same_tower)
    np.testing.assert_allclose(loss, of_clip(x.astype(np.float64))["loss"], rtol=1e-5)
    expected = oracles.slope(of_clip, x)["loss"]
    np.testing.assert_allclose(gradient, expected, rtol=1e-3, atol=1e-4)
    counts = (12, 120) if same_tower else (6, 30)
    assert (stats["num_positive_pairs"], stats["num_negative_pairs"]) == counts


@pytest.mark.oracle
@pytest.mark.filterwarnings("ignore")
def test_the_loss_is_that_of_two_cross_entropies_of_torch():
    torch = pytest.importorskip("torch", reason="make oracle installs it")
    made, x = config(loss__knobs__temperature=0.07), spread(1, 32)
    run = jax.jit(jax.value_and_grad(functools.partial(between, made), has_aux=True))
    (loss, _), gradient = run(x, shuffled_pairs(32))
    leaf = torch.tensor(x, dtype=torch.float64, requires_grad=True)
    first, second = (torch.nn.functional.normalize(leaf[i::2]) for i in (0, 1))
    logits, truth = first @ second.T / 0.07, torch.arange(16)
    entropy = torch.nn.functional.cross_entropy
    expected = (entropy(logits, truth) + entropy(logits.T, truth)) / 2
    expected.backward()
    np.testing.assert_allclose(loss, expected.item(), rtol=1e-5)
    np.testing.assert_allclose(gradient, leaf.grad.numpy(), rtol=1e-3, atol=1e-5)


def test_any_miner_takes_its_triplets_between_the_two():
    made, x, labels = config("batch_hard"), spread(2, 12), shuffled_pairs(12)
    loss, _ = jax.jit(functools.partial(between, made))(x, labels)
    expected = []
    for mine, others in ((0, 1), (1, 0)):
        given = x[mine::2], labels[mine::2], x[others::2], labels[others::2]
        rows, y, refs, ref_labels = given
        mined = oracles.mine(rows, y, "batch_hard", refs=refs, ref_labels=ref_labels)
        means, *_ = oracles.loss_of(rows, mined, margin=made.loss.margin, refs=refs)
        expected.append(means["active"])
    np.testing.assert_allclose(loss, np.mean(expected), rtol=1e-5)


def test_a_second_miner_has_its_share():
    x, labels = spread(2, 12), shuffled_pairs(12)
    one, two, both = (
        float(jax.jit(functools.partial(between, made))(x, labels)[0])
        for made in (
            config("batch_hard"),
            config("batch_all"),
            config("batch_hard", mining__second="batch_all", mining__mix=0.25),
        )
    )
    assert both == pytest.approx(0.75 * one + 0.25 * two, rel=1e-5)


@pytest.mark.parametrize(
    ("variant", "same_tower"),
    [
        pytest.param("clip", False, marks=pytest.mark.slow),
        ("clip", True),
        pytest.param("batch_all", False, marks=pytest.mark.slow),
    ],
)
def test_eight_devices_have_the_loss_of_one(variant, same_tower):
    made = config(variant, loss__same_tower=same_tower)
    x, labels = spread(3, 32), shuffled_pairs(32)
    both = functools.partial(jax.value_and_grad, has_aux=True)
    (whole, stats), gradient = jax.jit(both(functools.partial(between, made)))(x, labels)
    of_device = both(functools.partial(between, made, axis_name="devices"))
    (loss, their_stats), of_x = jax.pmap(of_device, axis_name="devices")(
        x.reshape(8, 4, DIM), labels.reshape(8, 4)
    )
    np.testing.assert_allclose(loss, np.full(8, whole), rtol=1e-5)
    # Of the global loss, once for every device: the step takes the mean.
    np.testing.assert_allclose(of_x.reshape(32, DIM) / 8, gradient, rtol=1e-3, atol=1e-5)
    for name, number in stats.items():
        np.testing.assert_allclose(their_stats[name], np.full(8, number), rtol=1e-5)


# -- the encoders


def make_towers(norm="batch", axis_name=None):
    first, second = (
        models.encoder("mlp", dim=DIM, norm=norm, width=8, axis_name=axis_name) for _ in range(2)
    )
    return models.TwoTowers(first, second, ((2, 3, 1), (4,)))


def packed(seed, pairs):
    """Rows as `data.pairs` makes them of images of 2 x 3 pixels and of 4 features."""
    x = spread(seed, 2 * pairs, dim=7)
    x[1::2, 4:] = 0
    x[:, -1] = np.arange(2 * pairs) % 2
    return jnp.asarray(x)


@functools.cache
def towers_with_weights():
    towers = make_towers()
    return towers, jax.jit(towers.init)(jax.random.key(0), packed(0, 1)[:1])


def alone(towers, variables, which, x, **how):
    mine = {name: tree[which] for name, tree in variables.items()}
    return getattr(towers, which).apply(mine, x, **how)


def test_each_encoder_sees_its_own_rows_as_they_were():
    towers, variables = towers_with_weights()
    x = packed(1, 6)
    views = {"first": x[0::2, :6].reshape(6, 2, 3, 1), "second": x[1::2, :4]}
    together, updates = towers.apply(variables, x, train=True, mutable=["batch_stats"])
    for turn, (which, view) in enumerate(views.items()):
        expected, stats = alone(towers, variables, which, view, train=True, mutable=["batch_stats"])
        np.testing.assert_allclose(together[turn::2], expected, atol=1e-6)
        # Statistics of its rows alone.
        jax.tree.map(
            np.testing.assert_array_equal, updates["batch_stats"][which], stats["batch_stats"]
        )


def test_in_evaluation_a_row_finds_its_encoder_wherever_it_stands():
    towers, variables = towers_with_weights()
    x = packed(2, 4)
    order = np.array([3, 0, 0, 5, 6, 1])
    found = jax.jit(towers.apply)(variables, x[order])
    expected = np.zeros((8, DIM), np.float32)
    expected[0::2] = alone(towers, variables, "first", x[0::2, :6].reshape(4, 2, 3, 1))
    expected[1::2] = alone(towers, variables, "second", x[1::2, :4])
    np.testing.assert_allclose(found, expected[order], atol=1e-6)


def test_the_encoders_share_no_parameters():
    _, variables = towers_with_weights()
    heads = [variables["params"][which]["Dense_0"]["kernel"] for which in ("first", "second")]
    assert heads[0].shape == heads[1].shape
    assert not np.array_equal(*heads)
    x = packed(3, 6)

    def of_each(params):
        moved = variables | {"params": params}
        embeddings, _ = make_towers().apply(moved, x, train=True, mutable=["batch_stats"])
        return jnp.stack([jnp.sum(embeddings[i::2] * spread(4, 6)) for i in (0, 1)])

    slopes = jax.jit(jax.jacrev(of_each))(variables["params"])
    for row, which in enumerate(("first", "second")):
        for leaf in jax.tree.leaves(slopes[which]):
            assert leaf[row].any() and not leaf[1 - row].any()


def test_of_ordinary_inputs_the_first_encoder_is_the_embedding():
    made = digits.get_config("clip")
    made.model.update({"name": "mlp", "width": 8})
    towers = encoders.encoder(made, (8, 8, 1))
    x = jax.random.uniform(jax.random.key(0), (3, 8, 8, 1))
    variables = jax.jit(towers.init)(jax.random.key(1), x[:1])
    found = jax.jit(functools.partial(towers.apply, train=False))(variables, x)
    np.testing.assert_allclose(found, alone(towers, variables, "first", x), atol=1e-6)
    assert set(variables["params"]) == {"first", "second"}


@pytest.mark.slow
def test_eight_devices_take_the_steps_of_one():
    towers = make_towers("batch", collectives.DEVICES)
    optimizer = optax.sgd(0.1)
    recipe = train_step.Recipe(
        encoder=towers,
        optimizer=optimizer,
        loss=objective.loss(config(loss__knobs__temperature=0.5)),
        learning_rate=optax.constant_schedule(0.1),
        key=jax.random.key(2),
        axis_name=collectives.DEVICES,
    )
    x, labels = packed(5, 16), shuffled_pairs(32)
    after, losses = [], []
    for devices in (1, 8):
        lifted = jax.pmap(
            functools.partial(train_step.train_step, recipe=recipe),
            axis_name=collectives.DEVICES,
            in_axes=(None, 0, 0, 0),
            out_axes=(None, None),
            devices=jax.devices()[:devices],
        )
        shard = (devices, 32 // devices)
        state = train_state.init_state(
            towers, optimizer, x[:1], key=jax.random.key(1), averaged=False
        )
        for _ in range(2):
            places = np.arange(32).reshape(shard)
            state, metrics = lifted(state, x.reshape(*shard, 7), labels.reshape(shard), places)
            state = jax.device_get(state)
        after.append((state.params, state.batch_stats))
        losses.append(float(metrics["loss"]))
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-4), *after)


# -- the data


def save(tmp_path, **arrays):
    path = tmp_path / "pairs.npz"
    np.savez(path, **arrays)
    return str(path)


def test_pairs_are_examples_in_turns_that_no_split_tears_apart(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (20, 2, 3, 1), dtype=np.uint8)
    features = spread(0, 20, dim=4).astype(np.float64)
    found = data.pairs(save(tmp_path, x=pixels, pair=features), **SPLIT)
    assert found.pair_shapes == ((2, 3, 1), (4,))
    assert found.inputs.shape == (40, 7)
    assert found.inputs.dtype == np.float32
    np.testing.assert_allclose(found.inputs[0::2, :6], pixels.reshape(20, 6) / 255, rtol=1e-6)
    np.testing.assert_allclose(found.inputs[1::2, :4], features, rtol=1e-6)
    assert not found.inputs[1::2, 4:6].any()
    np.testing.assert_array_equal(found.inputs[:, -1], np.arange(40) % 2)
    np.testing.assert_array_equal(found.labels, np.arange(40) // 2)
    np.testing.assert_array_equal(found.split[0::2], found.split[1::2])
    assert [(found.split == split).sum() for split in data.SPLITS] == [20, 10, 10]
    assert found.only("test").pair_shapes == found.pair_shapes


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": np.ones((4, 2)), "y": np.zeros(4, int)}, r"lacks \['pair'\]"),
        ({"x": np.ones((4, 2)), "pair": np.ones((3, 2))}, "x has 4 rows and pair has 3"),
        ({"x": np.ones((4, 2)), "pair": np.ones((4, 2), int)}, "pair has shape .4, 2. and dtype"),
        ({"x": np.ones((4, 2, 2, 2), np.uint8), "pair": np.ones((4, 2))}, "x has shape"),
        ({"x": np.ones((2, 2)), "pair": np.array([[1.0], [np.nan]])}, "of pair have.*row 1"),
        ({"x": np.array([{}, {}]), "pair": np.ones((2, 2))}, "cannot be read"),
    ],
)
def test_arrays_that_are_no_pairs_are_refused(arrays, message, tmp_path):
    with pytest.raises(errors.InputError, match=message):
        data.pairs(save(tmp_path, **arrays), **SPLIT)


@pytest.mark.parametrize("xp", [np, jnp])
def test_a_batch_has_whole_pairs_in_their_order(xp):
    """The encoders take turns by place, so that the sampler must keep it."""
    index = sampling.class_index(np.arange(60) // 2)
    index = jax.tree.map(xp.asarray, index)
    draw = functools.partial(sampling.pk_batch, xp, classes=8, per_class=2)
    draw = jax.jit(draw) if xp is jnp else draw
    for step in range(20):
        batch = np.asarray(draw(index, 3, step))
        np.testing.assert_array_equal(batch[0::2] % 2, 0)
        np.testing.assert_array_equal(batch[1::2], batch[0::2] + 1)


# -- configs


@pytest.mark.parametrize("variant", ["clip", "semi_hard", "supcon", "multi_similarity", "lifted"])
def test_any_loss_compares_the_two(variant):
    check.check(config(variant))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"model__towers": 1}, "model.towers=1 does not go with dataset.name='pairs'.*to 2"),
        ({"dataset__name": "digits", "model__towers": 3}, "model.towers=3 must be"),
        ({"model__second": "conv5"}, "model.second='conv5'"),
        ({"batch__per_class": 4}, "batch.per_class=4 does not go with model.towers=2.*to 2"),
        ({"memory__size": 1024}, "memory.size=1024 does not go with model.towers=2.*to 0"),
        ({"memory__miner": "batch_hard"}, "memory.miner='batch_hard' has no effect"),
        ({"dataset__label_noise": 0.2}, "dataset.label_noise=0.2 does not go"),
        ({"dataset__turns_as_classes": True}, "turns_as_classes=True does not go.*to False"),
        ({"batch__order": "random"}, "batch.order='random' does not go.*to 'easy'"),
        ({"batch__scores": "some.npz"}, "batch.scores='some.npz' does not go"),
        ({"batch__classes": 12}, "12 gives 3 rows to each of 8 parts.*a multiple of 8"),
        ({"train__micro_batches": 3, "batch__classes": 12}, "1 rows to each of 24 parts.*of 24"),
        ({"loss__proxies": "references", "loss__num_classes": 9}, "loss.proxies='references' does"),
    ],
)
def test_what_two_encoders_cannot_do_is_refused(fields, message):
    with pytest.raises(errors.InputError, match=message):
        check.check(config(**fields))


def test_views_of_images_are_no_pairs_of_a_file():
    with pytest.raises(errors.InputError, match="images_as_classes=True does not go"):
        check.check(config("simclr"))


def test_a_batch_of_moving_size_is_refused():
    made = config()
    made.schedules.one = digits.base.schedule("batch.classes", start=64, end=128)
    with pytest.raises(errors.InputError, match="A schedule of batch.classes does not go"):
        check.check(made)


def test_a_second_backbone_needs_a_second_encoder():
    made = digits.get_config()
    made.model.second = "mlp"
    with pytest.raises(errors.InputError, match="model.second='mlp' has no effect"):
        check.check(made)


def test_a_backbone_that_does_not_suit_its_array_is_refused():
    shapes = ((8, 8, 1), (4,))
    for name, second, message in (
        ("conv4", "", "model.second='conv4' needs images.*shape .4,.. Set model.second='mlp'"),
        ("mlp", "conv4", "model.second='conv4' needs images"),
    ):
        with pytest.raises(errors.InputError, match=message):
            encoders.encoder(config(model__name=name, model__second=second), (65,), shapes)
    with pytest.raises(errors.InputError, match="model.name='conv4' needs images"):
        encoders.encoder(config(model__name="conv4"), (65,), shapes[::-1])
    built = encoders.encoder(config(model__name="conv4", model__second="mlp"), (65,), shapes)
    assert built.shapes == shapes


def test_augmentation_of_pairs_is_refused():
    with pytest.raises(errors.InputError, match="augment changes images"):
        augmentations.augmentation(config(augment__crop=1), (65,))


# -- evaluation


def test_retrieval_goes_both_ways_between_the_two():
    first = np.array([[0.0], [1.0], [2.0], [9.0]], np.float32)
    second = np.array([[0.1], [1.6], [1.9], [9.0]], np.float32)
    found = evaluation.retrieval_of_pairs(first, second, ks=(1, 2))
    # 1.6 is nearer to 2 than to 1, and 1 is nearer to 1.6 than to 0.1.
    assert found["first_to_second"]["recall_at_1"] == 1.0
    assert found["second_to_first"]["recall_at_1"] == 0.75
    assert found["second_to_first"]["recall_at_2"] == 1.0
    mean = found["retrieval"]
    assert mean["recall_at_1"] == mean["map_at_r"] == mean["precision_at_1"] == 0.875
    assert mean["queries"] == 4
