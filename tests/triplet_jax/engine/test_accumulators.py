"""Both ways to add up tiles: their gradient is that of jax, and tiles add up to the whole."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.support import cases
from triplet_jax import contrastive, distances, mining, penalties
from triplet_jax.engine import accumulators, all_pairs, batches, picks, rules, tiles

X = jnp.asarray(np.random.default_rng(0).normal(size=(14, 3)), jnp.float32)
Y = np.array([0, 0, 0, 0, 1, 1, 1, 2, 2, 3, 3, 3, 4, 5])
KNOBS = {"margin": jnp.float32(0.4)}
SQUARED = distances.squared_euclidean()


def of_miner(mine, penalize=penalties.squared_hinge, **settings):
    return rules.TripletRule(SQUARED, mine, penalize, jax.random.key(0), **settings)


RULES = {
    "picks": of_miner(mining.semi_hard),
    "picks by another metric": of_miner(mining.batch_hard, mining_metric=distances.manhattan()),
    "random picks": of_miner(mining.boltzmann),
    "all pairs": of_miner(mining.batch_all),
    "all pairs by another metric": of_miner(mining.hard, mining_metric=distances.manhattan()),
    "all pairs and d_pn": of_miner(mining.semi_hard_band, penalties.anchor_swap),
    "a loss of one anchor": rules.AnchorRule(SQUARED, contrastive.pairs, jnp.array([1.0, 0.5])),
}


@functools.cache
def batch_of(name):
    """Compared with itself, sorted by label."""
    mining_metric = getattr(RULES[name], "mining_metric", None)
    return batches.prepare(
        SQUARED,
        X,
        Y,
        references=None,
        reference_labels=None,
        mask=None,
        axis_name=None,
        mining_metric=mining_metric,
    )


@pytest.mark.parametrize(
    "name",
    cases.mostly_slow(RULES, ["picks", "all pairs and d_pn", "a loss of one anchor"]),
)
def test_the_gradient_of_a_tile_is_that_of_its_sums(name):
    rule, batch = RULES[name], batch_of(name)

    @jax.jit
    def swept():
        way = accumulators.of_rule(rule, batch.candidates, KNOBS)
        total, of_anchors = way.add_tile(way.init(), batch.anchors)
        total = way.finish(total)
        return total.sums, (of_anchors, total.of_candidates, total.of_knobs)

    def first(anchors, candidates, knobs):
        tile = batch.anchors._replace(rows=anchors)
        way = accumulators.of_rule(rule, batch.candidates._replace(rows=candidates), knobs)
        found = way.sums_of_tile(len(X), tile)
        return found[0], found

    inputs = (batch.anchors.rows, batch.candidates.rows, KNOBS)
    expected, sums = jax.jit(jax.grad(first, (0, 1, 2), has_aux=True))(*inputs)
    close = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-5)
    found, gradient = swept()
    jax.tree.map(close, found, sums)
    jax.tree.map(close, gradient, expected)
    assert found[0] > 0
    assert all(np.any(x) for x in jax.tree.leaves(gradient))


@pytest.mark.parametrize(
    "name",
    cases.mostly_slow(["picks", "all pairs", "a loss of one anchor"], ["picks", "all pairs"]),
)
def test_two_tiles_add_up_to_one_that_is_measured_at_once(name, monkeypatch):
    batch = batch_of(name)
    way = accumulators.of_rule(RULES[name], batch.candidates, KNOBS)

    @functools.partial(jax.jit, static_argnums=0)
    def swept(*cuts):
        total, rows = way.init(), []
        for start, stop in zip((0, *cuts), (*cuts, len(X)), strict=True):
            tile = jax.tree.map(lambda x, here=slice(start, stop): x[here], batch.anchors)
            total, of_tile = way.add_tile(total, tile)
            rows.append(of_tile)
        return way.finish(total), jnp.concatenate(rows)

    in_two = swept(5)
    monkeypatch.setattr(tiles.Sizes, "measures_in_parts", False)  # as on accelerators
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5), in_two, swept())


def test_a_rule_is_added_up_in_the_way_that_its_answers_need():
    for name, rule in RULES.items():
        way = accumulators.of_rule(rule, batch_of(name).candidates, KNOBS)
        assert isinstance(way, accumulators.Accumulator)
        assert isinstance(way, picks.OfPicks if "picks" in name else all_pairs.OfAllPairs)
