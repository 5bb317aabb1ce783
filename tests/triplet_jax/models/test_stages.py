"""Freezing: which parameters stay, what the frozen part computes, and what is refused."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from triplet_jax import errors, models
from triplet_jax.models import layers, stages


class Staged(nn.Module):
    """Two dense stages with batch normalisation, of which the leading ones may be frozen."""

    frozen: int = 0
    axis_name: str | None = None

    def stages(self):
        return {"low": ("low", "low_norm"), "high": ("high", "high_norm")}

    @nn.compact
    def __call__(self, x, train):
        for number, name in enumerate(("low", "high")):
            norm = layers.make_norm("batch", train=train and number >= self.frozen, axis_name=None)
            x = nn.relu(norm(name=f"{name}_norm")(nn.Dense(4, name=name)(x)))
        return x


def _slopes(encoder, key):
    x = jax.random.normal(key, (6, 3))
    variables = jax.jit(encoder.init)(key, x)

    def loss(params):
        stopped = variables | {"params": stages.stop_frozen(encoder, params)}
        found, after = encoder.apply(stopped, x, train=True, mutable=["batch_stats"])
        return found[:, 0].sum(), after

    slopes, after = jax.jit(jax.grad(loss, has_aux=True))(variables["params"])
    before = variables["batch_stats"]["backbone"]
    moved = {
        name: not all(map(np.array_equal, *map(jax.tree.leaves, (before[name], now))))
        for name, now in after["batch_stats"]["backbone"].items()
    }
    return slopes, moved


@pytest.mark.parametrize(
    ("freeze", "still"),
    [
        pytest.param("", (), marks=pytest.mark.slow),
        ("low", ("low",)),
        pytest.param("high", ("low", "high"), marks=pytest.mark.slow),
        ("backbone", ("low", "high")),
    ],
)
def test_a_frozen_stage_has_no_gradient_and_keeps_its_statistics(freeze, still, key):
    slopes, moved = _slopes(models.encoder(Staged, dim=5, freeze=freeze), key)
    for name in ("low", "high"):
        group = slopes["backbone"]
        learns = any(x.any() for x in jax.tree.leaves((group[name], group[f"{name}_norm"])))
        assert learns == (name not in still)
        assert moved[f"{name}_norm"] == (name not in still)
    assert slopes["Dense_0"]["kernel"].any()


def test_a_frozen_backbone_embeds_in_training_as_in_evaluation(key):
    encoder = models.encoder("conv4", dim=4, width=4, freeze="backbone")
    x = jax.random.normal(key, (3, 8, 8, 1))
    variables = jax.jit(encoder.init)(key, x)
    trained, _ = encoder.apply(variables, x, train=True, mutable=["batch_stats"])
    np.testing.assert_array_equal(trained, encoder.apply(variables, x))


def test_fixed_statistics_are_used_in_training_and_the_weights_still_learn(key):
    slopes, moved = _slopes(models.encoder(Staged, dim=5, fixed_statistics=True), key)
    assert not any(moved.values())
    assert slopes["backbone"]["low"]["kernel"].any()


def test_places_count_the_stages_after_a_parameter(key):
    first = models.encoder(Staged, dim=5, freeze="low")
    towers = models.TwoTowers(first, models.encoder("mlp", dim=5, width=4, depth=1))
    params = towers.init(key, jnp.zeros((2, 3)))["params"]
    places = stages.map_places(lambda place: place, towers, params)
    assert places["first"]["backbone"]["low"]["kernel"] == (1, True)
    assert places["first"]["backbone"]["high_norm"]["scale"] == (0, False)
    assert places["first"]["Dense_0"]["kernel"] == (None, False)
    assert places["second"]["backbone"]["Dense_0"]["kernel"] == (0, False)
    stray = {"first": {"backbone": {"middle": {"kernel": jnp.zeros(1)}}}}
    with pytest.raises(ValueError, match="'middle' belongs to no stage of .*Staged"):
        stages.map_places(lambda place: place, towers, stray)


def test_both_towers_are_frozen_as_a_whole():
    towers = models.TwoTowers(*(models.encoder("mlp", dim=5, width=w, depth=1) for w in (4, 6)))
    found = stages.frozen_whole(towers)
    assert found.first.frozen and found.second.frozen
    assert (found.first.backbone.width, found.second.backbone.width) == (4, 6)
    assert not towers.first.frozen


def test_the_head_alone_gives_the_same_embedding_from_kept_features(key):
    encoder = models.encoder("mlp", dim=4, width=8)
    x = jax.random.normal(key, (3, 5))
    variables = jax.jit(encoder.init)(key, x)
    params = {part: variables[part]["backbone"] for part in ("params", "batch_stats")}
    features = encoder.backbone.apply(params, x, False)
    np.testing.assert_array_equal(
        encoder.apply(variables, features, from_features=True), encoder.apply(variables, x)
    )


class Unaware(nn.Module):
    """Two stages, but no way to say that the first is frozen."""

    def stages(self):
        return {"low": ("low",), "high": ("high",)}

    @nn.compact
    def __call__(self, x, train):
        return nn.Dense(4, name="high")(nn.Dense(4, name="low")(x))


@pytest.mark.parametrize(
    "backbone", [Unaware, lambda **settings: Unaware(), lambda: Staged(), lambda **_: Staged()]
)
def test_a_backbone_that_cannot_freeze_a_stage_is_refused(backbone):
    with pytest.raises(errors.InputError, match="freeze='low'.*no attribute `frozen`.*'backbone'"):
        models.encoder(backbone, dim=4, freeze="low")
    assert models.encoder(backbone, dim=4, freeze="backbone").frozen


def test_an_unknown_stage_is_refused_with_the_stages_there_are():
    with pytest.raises(errors.InputError, match="freeze='layer9'.*backbone, high, low"):
        models.encoder(Staged, dim=4, freeze="layer9")
    with pytest.raises(errors.InputError, match="depths=3 is no setting of the backbone 'mlp'"):
        models.encoder("mlp", dim=4, depths=3)
