"""Plots show what they are given, with names."""

import matplotlib
import numpy as np
import pandas as pd
import pytest

from triplet_jax import evaluation
from triplet_jax.analysis import (
    classes,
    geometry,
    interactive,
    plots,
    projection,
    queries,
    suspects,
    training_plots,
)

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402


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


def _drawn(axes, name):
    """Whether a text of the axes or of their ticks shows this name as it is."""
    axes.figure.canvas.draw()
    texts = [*axes.texts, *axes.get_xticklabels(), *axes.get_yticklabels()]
    shown = [text._preprocess_math(text.get_text()) for text in texts]
    return (name, False) in shown


def test_dollar_signs_of_a_name_are_no_mathematics(axes, blobs):
    x, labels = blobs
    names = ("$5 to $9", "b", "c", "d", "one $")
    plots.embedding_map(axes, projection.pca(x), labels, names)
    assert _drawn(axes, names[0]) and _drawn(axes, names[4])
    for draw, given in (
        (plots.confusion, (classes.confusion(x, labels, names),)),
        (plots.class_scores, (classes.statistics(x, labels, names),)),
        (plots.class_tree, (classes.tree(x, labels), names)),
    ):
        axes.clear()
        draw(axes, *given)
        assert _drawn(axes, names[0]) and _drawn(axes, names[4])


@pytest.mark.filterwarnings("error")
def test_pairs_of_one_kind_are_drawn_without_the_other(axes):
    plots.pair_distances(axes, np.zeros(0), np.array([1.0, 2.0]), margin=0.5)
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["different"]
    axes.clear()
    plots.pair_distances(axes, np.array([1.0, 2.0]), np.zeros(0))
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["same class"]
    axes.clear()
    plots.pair_distances(axes, np.zeros(3), np.zeros(2))  # all embeddings are one point
    assert axes.get_xlim()[1] > 1


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
    far = np.array([[0.25, 1.5]])
    figure = plots.gallery(images, np.zeros(4, int), ("a",), [0], np.array([[1, 2]]), far)
    assert [axes.get_title() for axes in figure.axes] == ["a", "✓ a\n0.25", "✓ a\n1.50"]
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
    assert axes.get_legend() is None
    axes.clear()
    training_plots.curves(axes, {"a": table, "b": table}, "validation/map_at_r")
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["a", "b"]
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


@pytest.mark.parametrize(
    ("steps", "edges"),
    [([0, 100, 110, 120], [-50, 50, 105, 115, 125]), ([7], [6.5, 7.5])],
)
def test_a_histogram_reaches_half_of_the_way_to_the_next_step(axes, steps, edges):
    arrays = {"step": np.array(steps), "hardness": np.full((len(steps), 40), 1 / 40)}
    training_plots.histogram_over_steps(axes, arrays, "hardness")
    found = axes.collections[0].get_coordinates()[0, :, 0]
    np.testing.assert_allclose(found, edges)


def test_suspects_and_changes_and_spectra_are_drawn(axes, blobs):
    x, labels = blobs
    wrong = np.arange(60) % 10 == 0
    plots.precision_recall(axes, suspects.rank(x, np.append(labels[:-1], 99)), wrong)
    assert len(axes.get_legend().get_texts()) == 4
    axes.clear()
    plots.changes(axes, queries.changes(-x[::-1], x, labels))
    assert "better" in axes.get_title()
    axes.clear()
    plots.spectrum(axes, {"x": geometry.spectrum(x)})
    np.testing.assert_allclose(axes.lines[0].get_ydata(), geometry.spectrum(x))
