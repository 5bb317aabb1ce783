"""The threshold of a classification, and the table of its answers."""

import pathlib
import re

import numpy as np
import pytest

from experiments.run import class_answers, class_rules, search_threshold
from experiments.run.class_rules import Embedded, Rule
from experiments.run.queries import Queries
from tests.experiments.run.test_galleries import Encoder
from tests.support import bare_runs
from triplet_jax import errors, evaluation
from triplet_jax.runs import files


def images(seed=0, classes="abcd", each=30, folder="here"):
    """Classes that overlap on a line."""
    random = np.random.default_rng(seed)
    labels = np.repeat(list(classes), each)
    centres = {name: 4.0 * at for at, name in enumerate("abcdefgh")}
    x = np.array([centres[name] for name in labels]) + random.normal(size=len(labels))
    return Embedded(
        [f"{folder}/{i}.png" for i in range(len(labels))], labels, x[:, None].astype(np.float32)
    )


@pytest.mark.parametrize("by", ["neighbours", "means"])
def test_the_threshold_lets_the_stated_share_of_left_out_classes_pass(by):
    """Every image searches the gallery without its class, and is accepted one time in ten."""
    gallery, calibration, rule = images(), images(1, folder="there"), Rule(by, 3)
    found = class_rules.by_folder(pathlib.Path("there"), calibration, gallery, rule, 0.1)
    nearest = []
    for x, label in zip(calibration.embeddings, calibration.labels, strict=True):
        others = [gallery.embeddings[gallery.labels == name] for name in set("abcd") - {label}]
        if by == "means":
            nearest.append(min(abs(x - y.mean()) for y in others).item())
        else:
            nearest.append(min(np.sort(abs(x - y), axis=None)[:3].mean() for y in others))
    limit = np.sort(nearest)[12]
    assert found.accepted.threshold < limit and found.accepted.false_accepts == 12 / 120
    assert found.accepted.identified > 0.5
    text = str(found)
    assert "10.00% of the 120 images whose class is left out" in text
    assert "120 images of 4 classes in there, which search the gallery" in text


def test_images_of_the_gallery_itself_do_not_find_themselves():
    gallery = images()
    found = class_rules.by_folder(
        pathlib.Path("here"), gallery, gallery, Rule("neighbours", 1), 0.1
    )
    own = evaluation.nearest_classes(
        gallery.embeddings, gallery.embeddings, gallery.labels, own=np.arange(120)
    )
    right = own.names[own.positions[:, 0]] == gallery.labels
    assert found.accepted.identified == pytest.approx(
        np.mean(right & (own.distances[:, 0] <= found.accepted.threshold))
    )


def test_classes_that_the_gallery_lacks_are_the_unknown_ones():
    gallery, calibration = images(classes="acd"), images(1, "abcd", folder="there")
    rule = Rule("neighbours", 1)
    found = class_rules.by_folder(pathlib.Path("there"), calibration, gallery, rule, 0.4)
    foreign = calibration.labels == "b"
    nearest = evaluation.nearest_classes(
        calibration.embeddings[foreign], gallery.embeddings, gallery.labels
    )
    near = nearest.distances[:, 0] <= found.accepted.threshold
    assert near.mean() == pytest.approx(12 / 30) == found.accepted.false_accepts
    assert "40.00% of the 30 images of classes that the gallery lacks" in str(found)


def test_too_few_images_are_refused():
    few = images(each=4)
    with pytest.raises(
        errors.InputError, match=r"here is too small: --false_accept_rate=0.1 .*100"
    ):
        class_rules.by_folder(pathlib.Path("here"), few, few, Rule("means", 1), 0.1)
    with pytest.raises(errors.InputError, match="here is too small: there are no images"):
        class_rules.by_folder(pathlib.Path("here"), images(each=0), few, Rule("neighbours", 1), 0.1)
    # Without its class an image of the only class finds nothing.
    one = images(classes="a", each=200)
    with pytest.raises(errors.InputError, match="cannot be measured by 0 images whose class is"):
        class_rules.by_folder(pathlib.Path("here"), one, one, Rule("means", 1), 0.1)


def answers(known_labels, threshold=0.5):
    """Three images: at their class, far from all, and at another class."""
    asked = Queries([pathlib.Path(f"{i}.png") for i in range(3)], known_labels)
    found = evaluation.nearest_classes([[0.0], [50.0], [4.0]], [[0.0], [4.0]], ["a", "b"])
    accepted = threshold and class_rules.Threshold(
        evaluation.Identified(threshold, 0.1, 0.9), "the others", "somewhere"
    )
    return class_answers.as_table(asked, found, accepted), found.names, accepted


def test_the_table_has_class_verdict_and_runner_up():
    table, _, _ = answers(["", "", ""])
    assert table.to_dict("list") == {
        "query": ["0.png", "1.png", "2.png"],
        "class": ["a", "b", "b"],
        "distance": [0, 46, 0],
        "verdict": ["known", "unknown", "known"],
        "runner_up": ["b", "a", "a"],
        "runner_up_distance": [4, 50, 4],
    }
    assert "verdict" not in answers(["", "", ""], threshold=None)[0]


def test_known_classes_score_the_answers(capsys):
    table, classes, threshold = answers(["a", "elsewhere", "a"])
    scores = class_answers.score(table, classes, threshold)
    assert (scores["known"], scores["unknown"]) == (2, 1)
    assert scores["accuracy"] == scores["identified"] == scores["misnamed"] == 0.5
    assert scores["roc_auc"] == 1 and scores["false_accepts"] == 0
    class_answers.show(table, classes, threshold)
    printed = capsys.readouterr().out
    assert "3 images: 2 known, 1 unknown" in printed and "2 images are of classes in the" in printed
    assert "b 4.000" in printed and "DIR at a FAR of 5%" in printed


def test_without_labels_nothing_is_scored(capsys):
    class_answers.show(*answers(["", "", ""]))
    assert "DIR" not in capsys.readouterr().out
    # No image is of another class: only the accuracy can be told.
    class_answers.show(*answers(["a", "", ""]))
    printed = capsys.readouterr().out
    assert "accuracy" in printed and "DIR" not in printed


def test_the_validation_split_of_a_run_sets_the_threshold(tmp_path, capsys):
    run = bare_runs.write(tmp_path / "run", dataset__validation_fraction=0.5)
    with np.load(run / "embeddings.npz") as saved:
        here = saved["split"] == "validation"
        x, labels = saved["embeddings"][here], saved["labels"][here]
    found = class_rules.by_validation(run, Encoder(), Rule("neighbours", 1), 0.5)
    d = np.linalg.norm(x[:, None] - x, axis=-1)
    nearest = np.where(labels[:, None] == labels, np.inf, d).min(1)  # as if its class was unknown
    within = np.mean(nearest <= found.accepted.threshold + 1e-5)
    assert within == found.accepted.false_accepts <= 0.5
    assert f"{here.sum()} images of 5 classes of the validation split" in str(found)
    assert "--calibration=FOLDER measures it in this gallery" in found.caution
    assert class_rules.by_validation(run, Encoder(), Rule("means", 1), 0.01) is None
    assert "no threshold by the validation split: " in capsys.readouterr().out


@pytest.mark.parametrize(
    "changed, message",
    [
        ({"step": 40}, "is of step 20, and the run is judged by step 40 by now"),
        ({"augment": ("flip",)}, "judged by step 20, where each image is .* copies: flip by now"),
    ],
)
def test_embeddings_of_another_encoder_set_no_threshold(tmp_path, capsys, changed, message):
    """As those of a run that went on, or got other copies, and was not evaluated since."""
    run = bare_runs.write(tmp_path / "run", dataset__validation_fraction=0.5)
    files.write_json(run / "result.json", {"checkpoint_step": 20, "protocol": {}})
    encoder, rule = Encoder(), Rule("neighbours", 1)
    encoder.step = 20
    assert class_rules.by_validation(run, encoder, rule, 0.5)
    assert search_threshold.by_validation(run, encoder, 0.1)
    vars(encoder).update(changed)
    assert class_rules.by_validation(run, encoder, rule, 0.5) is None
    assert search_threshold.by_validation(run, encoder, 0.1) is None
    said = capsys.readouterr().out
    assert len(re.findall(message, said)) == 2
    assert said.count(f"python -m experiments.evaluate --workdir={run}") == 2


def test_a_rule_says_how_near_a_class_is():
    assert str(Rule("means", 1)) == "by the distance to the mean of a class"
    assert str(Rule("neighbours", 1)) == "by the distance to the nearest image of a class"
    assert "mean distance to the 3 nearest images" in str(Rule("neighbours", 3))
