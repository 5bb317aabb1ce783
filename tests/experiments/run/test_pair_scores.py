"""A run and files of embeddings are judged by a file of pairs as that of LFW is."""

import json
import pathlib

import numpy as np
import pytest

from experiments.run import pair_scores
from tests.experiments.run.test_galleries import Encoder, paint
from tests.support import programs
from triplet_jax import errors, evaluation


def write_pairs(path, names, of_each):
    """10 folds of 300 + 300 pairs of images that are there."""
    random = np.random.default_rng(0)
    lines = ["10\t300"]
    for _ in range(10):
        for _ in range(300):
            one, (a, b) = random.choice(names), 1 + random.choice(of_each, 2, replace=False)
            lines.append(f"{one}\t{a}\t{b}")
        for _ in range(300):
            one, other = random.choice(names, 2, replace=False)
            a, b = 1 + random.choice(of_each, 2)
            lines.append(f"{one}\t{a}\t{other}\t{b}")
    path.write_text("\n".join(lines) + "\n")


@pytest.fixture
def pairs(tmp_path):
    write_pairs(tmp_path / "pairs.txt", ["Ann", "Bob", "Cid"], 8)
    return str(tmp_path / "pairs.txt")


@pytest.fixture
def embedded(tmp_path):
    """Three people on a line, in another order than in the pairs, and one whom they do not name."""
    names = [f"faces/{n}/{n}_{i:04}.png" for n in ("Eve", "Cid", "Ann", "Bob") for i in range(1, 9)]
    centres = np.repeat([7.0, 2.0, 0.0, 1.0], 8)
    x = centres[:, None] + np.random.default_rng(1).normal(0, 0.3, (32, 2))
    np.savez(tmp_path / "a.npz", embeddings=x.astype("f4"), paths=names)
    return tmp_path / "a.npz", x.astype("f4"), names


def test_files_are_judged_by_the_rows_with_the_names_of_images(pairs, embedded, tmp_path, capsys):
    path, x, names = embedded
    result = pair_scores.evaluate_files([str(path)], pairs, tmp_path / "scores.json")
    row = {name.split("/")[-1].removesuffix(".png"): i for i, name in enumerate(names)}
    lines = [line.split() for line in pathlib.Path(pairs).read_text().splitlines()[1:]]
    whole = [w if len(w) == 4 else [w[0], w[1], w[0], w[2]] for w in lines]
    at = [[row[f"{a}_{int(i):04}"], row[f"{b}_{int(j):04}"]] for a, i, b, j in whole]
    expected = evaluation.verification_of_pairs(
        x,
        np.array(at),
        [len(words) == 3 for words in lines],
        folds=np.repeat(np.arange(10), 600),
        false_accept_rates=pair_scores.RATES,
    )
    assert result["scores"][str(path)] == expected and 0.6 < expected["accuracy"] < 1
    assert json.loads((tmp_path / "scores.json").read_text()) == result
    assert f"{expected['accuracy']:.4f}" in capsys.readouterr().out


def test_files_without_the_images_are_refused(pairs, embedded, tmp_path):
    _, x, names = embedded
    for given, said in (
        ({}, "has no names or paths"),
        ({"paths": names[:-1] + ["Bob_0009.png"]}, "lacks 1 of 24 images .*: 'Bob_0008'"),
        ({"paths": [*names[1:], names[9]]}, "has more than one row for 1 of 24"),
    ):
        np.savez(tmp_path / "b.npz", embeddings=x, **given)
        with pytest.raises(errors.InputError, match=f"--embeddings='.*b.npz' {said}"):
            pair_scores.evaluate_files([str(tmp_path / "b.npz")], pairs, None)
    with pytest.raises(errors.InputError, match="--pairs='nowhere' is not a file"):
        pair_scores.evaluate_files([str(tmp_path / "b.npz")], "nowhere", None)


@pytest.mark.slow
def test_a_run_is_judged_on_a_folder_of_images(own_run, tmp_path):
    images, run = own_run
    names = ["zero", "one", "two"]
    for name in names:
        (tmp_path / "lfw" / name).mkdir(parents=True)
        for i, file in enumerate(sorted((images / name).glob("*.jpg"))[:8], 1):
            (tmp_path / "lfw" / name / f"{name}_{i:04}.jpg").symlink_to(file)
    write_pairs(tmp_path / "pairs.txt", names, 8)
    given = [f"--workdir={run}", f"--pairs={tmp_path / 'pairs.txt'}"]
    output = tmp_path / "scores.json"
    done = programs.run(
        "evaluate", *given, f"--pairs_root={tmp_path / 'lfw'}", f"--output={output}"
    )
    assert done.returncode == 0, done.stderr
    (scores,) = json.loads(output.read_text())["scores"].values()
    assert scores["accuracy"] > 0.8 and scores["same_pairs"] == 3000
    (tmp_path / "lfw" / "two" / "two_0008.jpg").unlink()
    done = programs.run("evaluate", *given, f"--pairs_root={tmp_path / 'lfw'}")
    programs.refused(done, "--pairs_root=", "lacks 1 of 24 images", "two_0008.jpg")


def test_a_run_embeds_the_images_of_the_pairs(pairs, tmp_path, monkeypatch):
    """With an encoder of greys, of which each person has one."""
    for person, grey in (("Ann", 10), ("Bob", 90), ("Cid", 200)):
        for i in range(1, 9):
            paint(tmp_path / "lfw" / person / f"{person}_{i:04}.jpg", grey + i)
    monkeypatch.setattr(pair_scores.embedders, "load_embedder", lambda workdir: Encoder())
    given = (tmp_path, pairs, str(tmp_path / "lfw"), None)
    (scores,) = pair_scores.evaluate_run(*given)["scores"].values()
    assert scores["accuracy"] == 1 and scores["same_pairs"] == scores["different_pairs"] == 3000
    monkeypatch.setattr(Encoder, "augment", ("flip",))
    protocol = pair_scores.evaluate_run(*given)["protocol"]
    assert protocol["checkpoint"] == "step 0"
    assert protocol["augment"] == "each image is embedded by several copies: flip"
    (tmp_path / "lfw" / "Cid" / "Cid_0008.jpg").unlink()
    with pytest.raises(errors.InputError, match="--pairs_root=.* lacks 1 of 24 images.*Cid_0008"):
        pair_scores.evaluate_run(*given)
