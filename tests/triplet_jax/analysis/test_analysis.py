"""Numbers of `analysis`, against scikit-learn and against definitions written out."""

import json

import matplotlib
import numpy as np
import pandas as pd
import pytest
import scipy.stats
import sklearn.cluster
import sklearn.metrics
from hypothesis import given
from hypothesis import strategies as st

from triplet_jax import errors, evaluation
from triplet_jax.analysis import (
    classes,
    geometry,
    interactive,
    plots,
    projection,
    queries,
    run,
    suspects,
    training_plots,
)

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402


@pytest.fixture
def blobs():
    """Five classes of 12 points, near enough to touch, of which two touch most."""
    random = np.random.default_rng(0)
    centres = np.array([[0, 0, 0], [2, 0, 0], [0, 6, 0], [0, 0, 7], [9, 9, 0]], np.float64)
    labels = np.repeat(np.arange(5), 12)
    x = centres[labels] + random.normal(size=(60, 3))
    return x.astype(np.float32), labels


# -- geometry ----------------------------------------------------------------------------


@given(st.integers(0, 1000), st.integers(2, 30), st.integers(1, 6))
def test_alignment_and_uniformity_are_their_definitions(seed, n, dim):
    random = np.random.default_rng(seed)
    x = random.normal(size=(n, dim))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    labels = random.integers(3, size=n)
    squared = [
        (np.sum((x[i] - x[j]) ** 2), labels[i] == labels[j]) for i in range(n) for j in range(i)
    ]
    same = [d for d, is_same in squared if is_same]
    expected = np.mean(same) if same else np.nan
    np.testing.assert_allclose(geometry.alignment(x, labels), expected, rtol=1e-5, atol=1e-9)
    expected = np.log(np.mean([np.exp(-2 * d) for d, _ in squared]))
    np.testing.assert_allclose(geometry.uniformity(x, tile=7), expected, rtol=1e-6, atol=1e-9)


def test_uniformity_in_one_point_is_0_and_of_one_example_unknown():
    assert geometry.uniformity(np.ones((5, 3))) == 0
    assert np.isnan(geometry.uniformity(np.ones((1, 3))))


def test_the_spectrum_is_that_of_the_covariance_and_its_rank_counts_dimensions():
    random = np.random.default_rng(0)
    x = random.normal(size=(40, 6)) * np.array([5, 3, 1, 0.5, 0.1, 0.01])
    x = x.astype(np.float32).astype(np.float64)
    expected = np.sort(np.linalg.eigvalsh(np.cov(x.T)))[::-1]
    np.testing.assert_allclose(geometry.spectrum(x), expected / expected.sum(), rtol=1e-8)
    line = np.outer(np.arange(10.0), [1, 2, 3])
    np.testing.assert_allclose(geometry.effective_rank(line), 1, atol=1e-6)
    cube = np.array(np.meshgrid(*[[-1.0, 1.0]] * 3)).reshape(3, -1).T
    np.testing.assert_allclose(geometry.effective_rank(cube), 3)
    assert geometry.effective_rank(np.ones((4, 3))) == 1
    assert len(geometry.spectrum(random.normal(size=(3, 8)))) == 8


def test_hubness_is_the_skewness_of_occurrences(blobs):
    x, _ = blobs
    d = np.linalg.norm(x[:, None] - x[None], axis=2)
    np.fill_diagonal(d, np.inf)
    expected = np.bincount(np.argsort(d, axis=1)[:, :5].reshape(-1), minlength=60)
    np.testing.assert_array_equal(geometry.occurrences(x, neighbours=5), expected)
    np.testing.assert_allclose(geometry.hubness(x, neighbours=5), scipy.stats.skew(expected))
    ring = np.stack([np.cos(np.arange(8) * np.pi / 4), np.sin(np.arange(8) * np.pi / 4)], axis=1)
    assert abs(geometry.hubness(ring, neighbours=7)) == 0


@given(st.integers(0, 1000))
def test_cka_is_its_definition_and_ignores_rotation_and_scale(seed):
    random = np.random.default_rng(seed)
    a, b = random.normal(size=(20, 4)), random.normal(size=(20, 7))
    centre = np.eye(20) - 1 / 20
    k, m = centre @ a @ a.T @ centre, centre @ b @ b.T @ centre
    expected = np.sum(k * m) / np.sqrt(np.sum(k * k) * np.sum(m * m))
    np.testing.assert_allclose(geometry.cka(a, b), expected)
    rotation, _ = np.linalg.qr(random.normal(size=(4, 4)))
    np.testing.assert_allclose(geometry.cka(a, 3 * a @ rotation + 5), 1)
    assert np.isnan(geometry.cka(a, np.ones((20, 2))))
    with pytest.raises(errors.InputError, match="20 and 19"):
        geometry.cka(a, b[:19])


# -- classes -----------------------------------------------------------------------------


def test_statistics_of_classes_are_their_definitions(blobs):
    x, labels = blobs
    names = ("a", "b", "c", "d", "e")
    order = np.random.default_rng(1).permutation(60)
    table = classes.statistics(x[order], labels[order], names)
    assert list(table.name) == list(names)
    assert list(table.examples) == [12] * 5
    silhouettes = sklearn.metrics.silhouette_samples(x, labels)
    d = np.linalg.norm(x[:, None] - x[None], axis=2)
    np.fill_diagonal(d, np.inf)
    nearest = labels[d.argmin(axis=1)]
    centres = np.stack([x[labels == c].mean(axis=0) for c in range(5)])
    for c, row in table.iterrows():
        of_class = labels == c
        np.testing.assert_allclose(row.silhouette, silhouettes[of_class].mean(), rtol=1e-5)
        np.testing.assert_allclose(row.precision_at_1, np.mean(nearest[of_class] == c), rtol=1e-5)
        spread = np.sqrt(np.mean(np.sum((x[of_class] - centres[c]) ** 2, axis=1)))
        np.testing.assert_allclose(row.spread, spread, rtol=1e-5)
        apart = np.linalg.norm(centres - centres[c], axis=1)
        apart[c] = np.inf
        assert row.nearest == names[apart.argmin()]
        np.testing.assert_allclose(row.to_nearest, apart.min(), rtol=1e-5)
    weighted = np.average(table.map_at_r, weights=table.examples)
    np.testing.assert_allclose(weighted, evaluation.retrieval(x, labels)["map_at_r"], rtol=1e-5)


def test_classes_of_one_example_have_a_silhouette_of_0_and_no_map():
    x = np.arange(12, dtype=np.float32).reshape(6, 2)
    table = classes.statistics(x, np.array([4, 4, 4, 9, 9, 7]))
    assert list(table.name) == ["4", "7", "9"]
    alone = table[table.label == 7].iloc[0]
    assert alone.silhouette == 0
    assert np.isnan(alone.map_at_r)
    assert (classes.statistics(x, np.arange(6)).silhouette == 0).all()
    with pytest.raises(errors.InputError, match="only one class"):
        classes.statistics(x, np.zeros(6, int))


def test_confusion_counts_nearest_neighbours(blobs):
    x, labels = blobs
    d = np.linalg.norm(x[:, None] - x[None], axis=2)
    np.fill_diagonal(d, np.inf)
    expected = sklearn.metrics.confusion_matrix(labels, labels[d.argmin(axis=1)], normalize="true")
    table = classes.confusion(x, labels)
    np.testing.assert_allclose(table, expected)
    pairs = classes.most_confused(table, pairs=3)
    assert set(pairs.iloc[0][["class", "other"]]) == {"0", "1"}
    np.testing.assert_allclose(pairs.share.iloc[0], (expected[0, 1] + expected[1, 0]) / 2)
    assert pairs.share.is_monotonic_decreasing


@pytest.mark.parametrize("method", classes.METHODS)
def test_clusters_and_their_agreement(blobs, method):
    x, labels = blobs
    found = classes.clusters(x, 5, method=method)
    assert set(found) == set(range(5))
    agreement = evaluation.agreement(labels, found)
    assert agreement["nmi"] == sklearn.metrics.normalized_mutual_info_score(labels, found) > 0.7
    assert agreement["ami"] == sklearn.metrics.adjusted_mutual_info_score(labels, found)
    with pytest.raises(errors.InputError, match=r"in \[1, 60\]"):
        classes.clusters(x, 61)
    with pytest.raises(errors.InputError, match="kmeans"):
        classes.clusters(x, 2, method="k-means")


def test_the_tree_joins_the_nearest_classes_first(blobs):
    x, labels = blobs
    tree = classes.tree(x, labels)
    assert set(tree[0, :2]) == {0, 1}
    assert (np.diff(tree[:, 2]) >= 0).all()


# -- projections -------------------------------------------------------------------------


def test_pca_keeps_the_largest_variance_and_does_not_flip(blobs):
    x, _ = blobs
    points = projection.pca(x)
    shares = geometry.spectrum(x)
    variance = points.var(axis=0) / x.var(axis=0).sum()
    np.testing.assert_allclose(variance, shares[:2], rtol=1e-4)
    np.testing.assert_allclose(projection.pca(x[::-1]), points[::-1], atol=1e-4)


def test_tsne_separates_blobs_and_repeats(blobs):
    x, labels = blobs
    points = projection.tsne(x)
    np.testing.assert_array_equal(points, projection.tsne(x))
    assert classes.confusion(points, labels).to_numpy().diagonal().mean() > 0.8
    again = projection.tsne(x, start=points)
    correlation = np.corrcoef(points[:, 0], again[:, 0])[0, 1]
    assert correlation > 0.8  # a map that starts from another looks like it
    assert projection.tsne(x[:4]).shape == (4, 2)


def test_umap_says_what_it_needs(blobs):
    x, labels = blobs
    try:
        points = projection.umap(x)
    except errors.InputError as error:
        assert "pip install umap-learn" in str(error)
        return
    assert classes.confusion(points, labels).to_numpy().diagonal().mean() > 0.8


# -- queries, pairs ----------------------------------------------------------------------


def test_retrieval_is_the_mean_over_queries(blobs):
    x, labels = blobs
    labels = np.append(labels[:-1], 99)  # one without positives
    of_queries = evaluation.retrieval_of_queries(x, labels)
    means = evaluation.retrieval(x, labels)
    for name, values in of_queries.items():
        assert np.isnan(values[-1])
        np.testing.assert_allclose(np.nanmean(values), means[name], rtol=1e-6)
    assert all(
        np.isnan(v).all() for v in evaluation.retrieval_of_queries(x, np.arange(60)).values()
    )


def test_the_roc_curve_and_its_thresholds():
    same, different = np.array([0.1, 0.2, 0.9], np.float32), np.array([0.5, 0.8, 1.0, 1.2])
    curve = evaluation.roc(same, different)
    for rate, threshold, tar in ((0.0, 0.2, 2 / 3), (0.25, 0.5, 2 / 3), (0.5, 0.9, 1.0)):
        found = curve.at(rate)
        np.testing.assert_allclose(found, (threshold, np.mean(different <= threshold), tar))
    assert curve.at(0.0).false_accepts == 0
    assert evaluation.roc(np.array([2.0]), np.array([1.0])).at(0.5).true_accepts == 0


def test_comparing_two_runs_orders_queries_by_their_change(blobs):
    x, labels = blobs
    worse = np.random.default_rng(0).normal(size=x.shape)
    table = queries.changes(worse, x, labels)
    assert table.change.is_monotonic_increasing
    assert sorted(table.index) == list(range(60))
    expected = evaluation.retrieval_of_queries(x, labels)["map_at_r"]
    np.testing.assert_allclose(table.after, expected[table.index])
    np.testing.assert_array_equal(table.label, labels[table.index])
    with pytest.raises(errors.InputError, match="60 labels"):
        queries.changes(x, x[:5], labels)
    with pytest.raises(errors.InputError, match="map_at_r"):
        queries.changes(x, x, labels, score="map")


# -- suspects ----------------------------------------------------------------------------


def test_planted_errors_are_the_first_suspects():
    random = np.random.default_rng(0)
    right = np.repeat(np.arange(6), 40)
    x = (np.eye(6)[right] * 6 + random.normal(size=(240, 6))).astype(np.float32)
    wrong = np.zeros(240, bool)
    wrong[random.choice(240, 12, replace=False)] = True
    labels = np.where(wrong, (right + 1 + random.integers(5, size=240)) % 6, right)
    table = suspects.rank(x, labels)
    assert sorted(table.index) == list(range(240))
    for column in ("suspicion", "disagreement", "picked"):
        assert suspects.average_precision(table, wrong, by=column) > 0.9, column
    first = table.head(12)
    assert np.mean(first.instead == right[first.index]) > 0.9
    np.testing.assert_array_equal(table.label, labels[table.index])


def test_misplacement_is_the_ratio_of_distances(blobs):
    x, labels = blobs
    labels = np.append(labels[:-1], 99)  # one alone in its class
    d = np.linalg.norm(x[:, None].astype(np.float64) - x[None], axis=2)
    expected = []
    for i in range(60):
        own = sorted(d[i, j] for j in range(60) if j != i and labels[j] == labels[i])[:4]
        other = sorted(d[i, j] for j in range(60) if labels[j] != labels[i])[:4]
        expected.append(np.mean(own) / np.mean(other) if own else np.inf)
    found = suspects.misplacement(x, labels, neighbours=4, tile=7)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert (suspects.misplacement(x[:5], np.zeros(5, int)) == 0).all()


def test_picks_count_farthest_positives_and_nearest_negatives():
    # One class on a line with an outlier, another far away: every anchor's pick is known.
    x = np.array([[0.0], [1.0], [5.0], [20.0], [21.0], [22.5]], np.float32)
    labels = np.array([0, 0, 0, 1, 1, 1])
    picked = suspects.picked_as_hardest(x, labels, classes=2, per_class=3, batches=4)
    # Farthest positives: 2, 2, 0 and 5, 5, 3. Nearest negatives: 3, 3, 3 and 2, 2, 2.
    np.testing.assert_array_equal(picked, [1, 0, 5, 4, 0, 2])
    with pytest.raises(errors.InputError, match="per_class=4"):
        suspects.picked_as_hardest(x, labels, per_class=4)


# -- runs --------------------------------------------------------------------------------


@pytest.fixture
def workdir(tmp_path, blobs):
    x, labels = blobs
    (tmp_path / "config.json").write_text(json.dumps({"mining": {"miner": "semi_hard"}}))
    rows = [{"step": 1, "loss": 0.5}, {"step": 2, "loss": 0.4}, {"step": 2, "validation/p": 0.9}]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    split = np.where(np.arange(60) % 2, "test", "train")
    np.savez(tmp_path / "embeddings.npz", embeddings=x, labels=labels, split=split)
    return tmp_path


def test_a_run_is_read_from_its_files(workdir, blobs):
    found = run.load(workdir)
    np.testing.assert_array_equal(found.embeddings, blobs[0])
    assert found.config["mining"]["miner"] == "semi_hard"
    assert list(found.metrics.step) == [1, 2]
    assert np.isnan(found.metrics["validation/p"].iloc[0])
    assert found.metrics.iloc[1]["validation/p"] == 0.9
    assert found.where("test").sum() == 30
    np.testing.assert_array_equal(found.given, found.labels)
    given_labels = found.labels[::2].copy()
    given_labels[3] = 4
    np.savez(workdir / "label_noise.npz", positions=np.arange(0, 60, 2), given=given_labels)
    assert np.flatnonzero(run.load(workdir).given != found.labels).tolist() == [6]


@pytest.mark.parametrize(
    ("broken", "mends"),
    [
        ("config.json", "Train one into that folder"),
        ("embeddings.npz", "Train it to its end, or evaluate it"),
        ("split", r"lacks \['split'\]"),
    ],
)
def test_a_run_that_lacks_something_says_what_and_how_it_is_mended(workdir, broken, mends):
    if broken == "split":
        np.savez(workdir / "embeddings.npz", embeddings=np.ones((2, 3)), labels=np.arange(2))
    else:
        (workdir / broken).unlink()
    with pytest.raises(errors.InputError, match=mends):
        run.load(workdir)


def test_an_empty_split_and_a_torn_config_are_named(workdir):
    with pytest.raises(errors.InputError, match="validation split"):
        run.load(workdir).where("validation")
    with pytest.raises(errors.InputError, match="validation"):
        run.load(workdir).where("valid")
    (workdir / "config.json").write_text("{")
    with pytest.raises(errors.InputError, match="config.json cannot be read"):
        run.load(workdir)


# -- plots -------------------------------------------------------------------------------


@pytest.fixture
def axes():
    figure, axes = plt.subplots()
    yield axes
    figure.canvas.draw()
    plt.close(figure)


def _texts(axes):
    return [text.get_text() for text in axes.texts]


def test_maps_name_classes(axes, blobs):
    x, labels = blobs
    plots.embedding_map(axes, projection.pca(x), labels, ("a", "b", "c", "d", "e"))
    assert _texts(axes) == ["a", "b", "c", "d", "e"]
    figure = interactive.embedding_map(projection.pca(x), labels, ("a", "b", "c", "d", "e"))
    assert [trace.name for trace in figure.data] == ["a", "b", "c", "d", "e"]
    assert sum(len(trace.x) for trace in figure.data) == 60


def test_bars_show_the_worst_classes(axes, blobs):
    table = classes.statistics(*blobs)
    plots.class_scores(axes, table, most=3)
    shown = [text.get_text() for text in axes.get_yticklabels()]
    assert shown[::-1] == list(table.sort_values("map_at_r").name[:3])
    assert axes.get_xlabel() == "MAP@R"


def test_confusion_and_tree_name_classes(axes, blobs):
    plots.confusion(axes, classes.confusion(*blobs))
    assert [text.get_text() for text in axes.get_yticklabels()] == list("01234")
    axes.clear()
    plots.class_tree(axes, classes.tree(*blobs), tuple("abcde"))
    assert sorted(text.get_text() for text in axes.get_yticklabels()) == list("abcde")


def test_pairs_and_roc_draw_what_they_are_given(axes, blobs):
    same, different = evaluation.pair_distances(*blobs)
    plots.pair_distances(axes, same, different, margin=0.5)
    assert any("margin 0.5" in text.get_text() for text in axes.get_legend().get_texts())
    axes.clear()
    plots.roc(axes, {"a": (same, different), "b": (same, different)})
    x, y = axes.lines[0].get_data()
    curve = evaluation.roc(same, different)
    assert (
        curve.at(x[3]).true_accepts == y[curve.false_accepts[curve.false_accepts > 0] <= x[3]][-1]
    )


def test_a_gallery_marks_hits_and_misses():
    images = np.zeros((4, 5, 5, 1), np.uint8)
    figure = plots.gallery(
        images, np.array([0, 0, 1, 1]), ("a", "b"), [0, 2], np.array([[1, 2], [3, 0]])
    )
    titles = [axes.get_title() for axes in figure.axes]
    assert titles == ["a", "✓ a", "✗ b", "b", "✓ b", "✗ a"]
    figure.canvas.draw()
    plt.close(figure)


def test_curves_bands_and_arms(axes):
    rows = [
        {"arm": arm, "seed": seed, "step": step, "loss": step + seed}
        for arm in ("x", "y")
        for seed in (0, 1, 2)
        for step in (1, 2)
    ]
    training_plots.bands(axes, pd.DataFrame(rows), "loss")
    np.testing.assert_allclose(axes.lines[0].get_ydata(), [2, 3])
    axes.clear()
    table = pd.DataFrame({"step": [1, 2, 3], "validation/map_at_r": [0.1, np.nan, 0.3]})
    training_plots.curves(axes, {"a": table}, "validation/map_at_r")
    np.testing.assert_allclose(axes.lines[0].get_ydata(), [0.1, 0.3])
    assert axes.get_ylabel() == "validation MAP@R"
    axes.clear()
    summary = pd.DataFrame(
        {
            "arm": ["x", "y"],
            "map_at_r": [0.5, 0.6],
            "ci95_low": [0.4, 0.5],
            "ci95_high": [0.6, 0.7],
            "raw_pixels": [0.3, 0.3],
        }
    )
    training_plots.arm_scores(axes, summary, "map_at_r")
    assert [text.get_text() for text in axes.get_yticklabels()] == ["y", "x"]


def test_telemetry_is_drawn_over_the_steps(axes):
    arrays = {
        "step": np.array([50, 100]),
        "census": np.array([[0.7, 0.2, 0.1], [0.9, 0.1, 0.0]]),
        "d_ap": np.arange(14.0).reshape(2, 7),
        "d_an": np.arange(14.0).reshape(2, 7) + 1,
        "hardness": np.full((2, 40), 1 / 40),
        "negative_rank": np.full((2, 20), 1 / 20),
    }
    training_plots.census(axes, arrays)
    assert [text.get_text() for text in axes.get_legend().get_texts()] == [
        "hard",
        "semi-hard",
        "easy",
    ]
    axes.clear()
    training_plots.mined_distances(axes, arrays)
    np.testing.assert_allclose(axes.lines[0].get_ydata(), [3, 10])
    axes.clear()
    training_plots.histogram_over_steps(axes, arrays, "hardness")
    assert axes.get_xlim() == (25, 125)


def test_suspects_and_changes_and_spectra_are_drawn(axes, blobs):
    x, labels = blobs
    wrong = np.arange(60) % 10 == 0
    plots.precision_recall(axes, suspects.rank(x, labels), wrong)
    assert len(axes.get_legend().get_texts()) == 4
    axes.clear()
    plots.changes(axes, queries.changes(-x[::-1], x, labels))
    assert "better" in axes.get_title()
    axes.clear()
    plots.spectrum(axes, {"x": geometry.spectrum(x)})
    np.testing.assert_allclose(axes.lines[0].get_ydata(), geometry.spectrum(x))
