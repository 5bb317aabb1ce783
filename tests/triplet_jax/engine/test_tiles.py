"""Tiles: each anchor is taken once, in its place, and rows that fill up a tile see nobody."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from triplet_jax import contrastive, distances
from triplet_jax.engine import batches, positive_masks, rules, tiles

LABELS = np.array([2, 0, 1, 1, 0, 2, 2, 0, 1, 7, 0])
X = jnp.asarray(np.random.default_rng(0).normal(size=(len(LABELS), 2)), jnp.float32)
PAIRS = rules.AnchorRule(distances.euclidean(), contrastive.pairs, jnp.ones(2))


def sorted_anchors():
    batch = batches.prepare(
        distances.euclidean(),
        X,
        LABELS,
        references=None,
        reference_labels=None,
        mask=None,
        axis_name=None,
    )
    return tiles.in_label_order(PAIRS, batch)


def test_anchors_stand_in_the_order_of_their_labels():
    order, anchors = sorted_anchors()
    np.testing.assert_array_equal(LABELS[order], np.sort(LABELS))
    np.testing.assert_array_equal(anchors.index, order)


@pytest.mark.parametrize("size", [1, 2, 3, 4, 10, 11, 50])
def test_each_anchor_is_taken_once(size):
    _, anchors = sorted_anchors()
    seen = []

    def step(carry, tile, doubled):
        seen.append(len(tile.index))
        counts = tile.masks.positives + tile.masks.negatives(len(X))
        return carry + jnp.sum(counts), doubled[:, :1] + tile.index[:, None]

    total, rows = jax.jit(lambda: tiles.scan(step, 0, anchors, size, 2.0 * anchors.rows))()
    assert max(seen) <= size
    # A row that only fills up a tile would add to the candidates that are seen.
    assert total == len(X) * (len(X) - 1)
    np.testing.assert_allclose(rows, 2.0 * anchors.rows[:, :1] + anchors.index[:, None])


@pytest.mark.parametrize("positives", [0, 2, 3, 4, 40, 199])
def test_a_tile_has_as_many_slots_as_its_largest_class_needs(positives):
    candidates = 200
    offered = positive_masks.widths(candidates)
    start, itself = jnp.array([7, 0]), jnp.array([7, -1])
    runs = positive_masks.LabelRuns(start, jnp.array([8, positives]), itself)
    width = positive_masks.by_width(lambda width, zero: zero + width, runs.positives, candidates, 0)
    assert width == min(width for width in offered if width >= positives)
    assert len(offered) > 4


@pytest.mark.parametrize("budget", [tiles.OF_PICKS, tiles.OF_ALL_PAIRS])
@pytest.mark.parametrize("candidates", [10, 1_000, 100_000])
def test_parts_stay_within_their_budget(budget, candidates):
    shape = (candidates, 64)
    sizes = tiles.Sizes.of(budget, shape, distances.euclidean())
    assert 64 <= sizes.tile <= max(64, budget.measured // candidates)
    for width in (3, 40, 1_000):
        part = sizes.part(width)
        assert part == 1 or part * width * candidates <= budget.triplets
        assert sizes.part(width, least=8) >= part
    by_coordinate = tiles.Sizes.of(budget, shape, distances.euclidean(), distances.manhattan())
    assert by_coordinate.part(3) <= sizes.part(3)
    assert by_coordinate.tile == max(64, budget.measured // (64 * candidates))
