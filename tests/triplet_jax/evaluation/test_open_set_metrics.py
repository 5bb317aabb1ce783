"""Open-set identification against every threshold in turn, and against scikit-learn."""

import math

import hypothesis
import hypothesis.extra.numpy
import hypothesis.strategies as st
import numpy as np
import pytest
import sklearn.metrics

from triplet_jax import errors, evaluation

# Of few values, so that there are ties.
DISTANCES = hypothesis.extra.numpy.arrays(
    np.float64, st.integers(0, 12), elements=st.sampled_from([0.0, 0.5, 0.75, 1.0, 2.0, np.inf])
)


def thresholds(known, unknown):
    """One at every distance, and one below all."""
    return [-math.inf, *sorted({d for d in [*known, *unknown] if d < math.inf})]


def shares(known, is_right, unknown, t):
    """FAR and DIR, by counting."""
    right = sum(bool(r) and d <= t for d, r in zip(known, is_right, strict=True))
    return (
        sum(d <= t for d in unknown) / len(unknown) if len(unknown) else math.nan,
        right / len(known) if len(known) else math.nan,
    )


@hypothesis.given(known=DISTANCES, unknown=DISTANCES, seed=st.integers(0, 99))
@hypothesis.settings(max_examples=60)
def test_scores_are_those_of_counting(known, unknown, seed):
    is_right = np.random.default_rng(seed).random(len(known)) < 0.6
    rates = (0.0, 0.1, 0.3, 1.0)
    found = evaluation.open_set(known, is_right, unknown, false_accept_rates=rates, threshold=0.75)
    assert (found["known"], found["unknown"]) == (len(known), len(unknown))
    same = {"nan_ok": True}
    assert found["accuracy"] == pytest.approx(is_right.mean() if len(known) else math.nan, **same)
    far, identified = shares(known, is_right, unknown, 0.75)
    assert found["identified"] == pytest.approx(identified, **same)
    assert found["false_accepts"] == pytest.approx(far, **same)
    if len(known):
        assert found["identified"] + found["misnamed"] + found["rejected"] == pytest.approx(1)
    for rate, name in zip(rates, ("0e0", "1e-1", "3e-1", "1e0"), strict=True):
        allowed = [
            t for t in thresholds(known, unknown) if shares(known, is_right, unknown, t)[0] <= rate
        ]
        far, expected = shares(known, is_right, unknown, max(allowed, default=-math.inf))
        if math.isnan(far):
            expected = math.nan
        assert found[f"dir_at_far_{name}"] == pytest.approx(expected, **same)
        if len(unknown):
            at = evaluation.open_set_threshold(known, is_right, unknown, false_accept_rate=rate)
            assert at.threshold == max(allowed)
            assert at[1:] == pytest.approx((far, expected), **same)
    if len(known) and len(unknown):
        scores = -np.minimum(np.append(known, unknown), 9)
        is_known = np.arange(len(scores)) < len(known)
        area = sklearn.metrics.roc_auc_score(is_known, scores)
        assert found["roc_auc"] == pytest.approx(area)
    else:
        assert math.isnan(found["roc_auc"])


def test_a_probe_without_a_distance_is_never_accepted():
    found = evaluation.open_set([np.nan, 1.0], [True, True], [np.nan, 2.0], threshold=1e9)
    assert found["probes_not_finite"] == 2
    assert found["identified"] == found["false_accepts"] == 0.5
    assert found["dir_at_far_1e-1"] == 0.5


def test_the_classes_of_a_gallery_tell_known_from_unknown():
    """From embeddings to scores: two classes that are known, and a third far from both."""
    random = np.random.default_rng(0)
    centres = {"a": 0.0, "b": 10.0, "nobody": 50.0}
    rows = {name: random.normal(at, 1.0, (40, 3)) for name, at in centres.items()}
    labels = np.repeat(list(rows), 20)
    gallery = np.concatenate([rows["a"][:20], rows["b"][:20]])
    probes = np.concatenate([x[20:] for x in rows.values()])
    found = evaluation.nearest_classes(probes, gallery, labels[:40], neighbours=3)
    is_known = np.isin(labels, found.names)
    distance, is_right = found.distances[:, 0], found.names[found.positions[:, 0]] == labels
    scores = evaluation.open_set(distance[is_known], is_right[is_known], distance[~is_known])
    assert scores["accuracy"] == scores["roc_auc"] == scores["dir_at_far_1e-3"] == 1


@pytest.mark.parametrize(
    "change, message",
    [
        ({"known": [[1.0]]}, r"known has the shape \(1, 1\)"),
        ({"unknown": ["a"]}, "unknown has the shape .*: it must be a list of distances"),
        ({"is_right": [1]}, "is_right has the shape .* dtype int64"),
        ({"is_right": [True, True]}, "one boolean for each of the 1 known probes"),
        ({"false_accept_rates": [1.5]}, r"false_accept_rate=1.5 must be in \[0, 1\]"),
    ],
)
def test_probes_that_do_not_fit_are_refused(change, message):
    given = {"known": [1.0], "is_right": [True], "unknown": [2.0]}
    with pytest.raises(errors.InputError, match=message):
        evaluation.open_set(**(given | change))


def test_no_threshold_is_set_without_unknown_probes():
    with pytest.raises(errors.InputError, match="unknown is empty"):
        evaluation.open_set_threshold([1.0], [True], [], false_accept_rate=0.1)
