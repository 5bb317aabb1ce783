"""Classes of every size: each of the widths that a compiled program offers."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.support import cases, oracles
from triplet_jax import losses
from triplet_jax.engine import positive_masks

N = 240


def sized(*sizes):
    """Labels of classes of these sizes, and singletons, in disorder."""
    labels = np.repeat(np.arange(len(sizes)), sizes)
    rest = np.arange(N - len(labels)) + 1000
    return np.random.default_rng(0).permutation(np.concatenate([labels, rest]))


LABELLINGS = {
    "pairs": np.arange(N) // 2,
    "one_huge_class": sized(180, 2, 2, 5, 9),
    "every_width": sized(2, 3, 4, 5, 8, 9, 20, 21, 41, 42),
    "all_but_one": sized(N - 1),
    "one_class": np.zeros(N, int),
    "all_different": np.arange(N),
}


def brute_force(x, y):
    """The count of batch_all, and what semi_hard and batch_hard pick, in float64."""
    d = oracles.pairwise(x, x, "euclidean")
    same = y[:, None] == y[None, :]
    positive = same & ~np.eye(N, dtype=bool)
    any_pair = positive.any(1) & ~same.all(1)
    hard_p = np.where(positive, d, -np.inf).max(1)[any_pair]
    hard_n = np.where(same, np.inf, d).min(1)[any_pair]
    semi_hard = [
        (d[a, p], beyond.min())
        for a, p in np.argwhere(positive)
        if len(beyond := d[a, ~same[a] & (d[a] > d[a, p])])
    ]
    pairs = positive[:, :, None] & ~same[:, None, :]
    d_ap, d_an = (np.broadcast_to(x, pairs.shape) for x in (d[:, :, None], d[:, None, :]))
    return {
        "batch_hard": (hard_p, hard_n),
        "semi_hard": tuple(np.array(semi_hard).reshape(-1, 2).T),
        "batch_all": (d_ap[pairs], d_an[pairs]),
    }


@functools.cache
def program(miner, platform, tile_size=None):
    run = functools.partial(losses.triplet_loss, miner=miner, average="valid", tile_size=tile_size)
    return jax.jit(jax.value_and_grad(run, has_aux=True))


@pytest.mark.parametrize(
    ("miner", "platform"),
    cases.mostly_slow(
        [(m, p) for m in ("batch_hard", "semi_hard", "batch_all") for p in ("cpu", "gpu")],
        [("batch_all", "cpu")],
    ),
)
def test_classes_of_any_size_agree_with_brute_force(miner, platform, monkeypatch):
    # Whose widths and tiles are others; they compile here, too.
    monkeypatch.setattr(jax, "default_backend", lambda: platform)
    x = np.random.default_rng(3).normal(size=(N, 5)).astype(np.float32)
    for labels in LABELLINGS.values():
        d_ap, d_an = map(np.asarray, brute_force(x, labels)[miner])
        (loss, stats), gradient = program(miner, platform)(x, labels)
        (tiled, tiled_stats), tiled_gradient = program(miner, platform, 7)(x, labels)
        values = np.maximum(d_ap - d_an + 0.2, 0)
        assert stats["num_valid"] == tiled_stats["num_valid"] == len(values)
        assert stats["num_active"] == tiled_stats["num_active"]
        assert float(stats["num_active"]) == pytest.approx((values > 0).sum(), abs=2)
        expected = values.mean() if len(values) else 0.0
        assert [float(loss), float(tiled)] == pytest.approx([expected] * 2, rel=1e-4)
        np.testing.assert_allclose(gradient, tiled_gradient, rtol=1e-3, atol=1e-6)
        assert np.any(gradient) == (expected > 0)


def test_the_labellings_need_every_width():
    offered = positive_masks.widths(N)
    sizes = {int((y == label).sum()) - 1 for y in LABELLINGS.values() for label in y}
    for low, high in zip([0, *offered], offered, strict=False):
        assert any(low < size <= high for size in sizes)


@pytest.mark.parametrize("n", [1, 2, 3, 20, 41, 240, 1000, 100_000])
def test_widths_rise_and_suffice(n):
    offered = positive_masks.widths(n)
    assert offered[-1] == n
    assert all(a < b for a, b in zip(offered, offered[1:], strict=False))
    assert len(offered) < 16


def test_widths_suit_usual_classes_and_none_is_nearly_all_candidates():
    assert positive_masks.widths(148) == [3, 7, 19, 40, 93, 148]
    assert positive_masks.widths(139) == [3, 7, 19, 40, 139]


@pytest.mark.parametrize("width", [3, 8, 12])
def test_places_are_the_positives_and_no_others(width):
    labels = np.array([5, 1, 5, 1, 5, 7, 5, 2, 9])
    ordered = np.argsort(labels, kind="stable")
    itself = np.argsort(ordered)
    own = positive_masks.label_runs(
        jnp.asarray(labels), jnp.asarray(labels[ordered]), jnp.asarray(itself)
    )
    # An anchor that is no candidate, and one whose label nobody has.
    others = positive_masks.label_runs(
        jnp.array([5, 6]), jnp.asarray(labels[ordered]), jnp.array([-1, -1])
    )
    for runs, rows in ((own, enumerate(labels)), (others, [(None, 5), (None, 6)])):
        places, holds = map(np.asarray, runs.places(width))
        is_negative = np.asarray(runs.is_negative(len(labels)))
        for row, (anchor, label) in enumerate(rows):
            expected = [c for c in range(9) if labels[c] == label and c != anchor]
            if len(expected) <= width:
                assert sorted(ordered[places[row][holds[row]]]) == expected
            assert runs.positives[row] == len(expected)
            assert list(np.where(is_negative[row])[0]) == list(
                np.where(labels[ordered] != label)[0]
            )
