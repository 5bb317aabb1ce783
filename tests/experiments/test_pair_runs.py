"""Runs on pairs: both ways between the two, and what other programs make of them."""

import json
import shutil

import numpy as np
import pytest

from experiments.run import embedders
from tests.support import once, programs
from triplet_jax import data, errors
from triplet_jax.models import export


@pytest.fixture(scope="session")
def two_looks(tmp_path_factory):
    """A file of pairs: each array shows one latent vector through a rotation of its own."""
    random = np.random.default_rng(0)
    latent = random.normal(size=(600, 6))

    def look(width):
        rotation, _ = np.linalg.qr(random.normal(size=(width, width)))
        return latent @ rotation[:6] + 0.05 * random.normal(size=(600, width))

    def save(folder):
        folder.mkdir()
        np.savez(folder / "pairs.npz", x=look(16), pair=look(9))

    return str(once.made_once(tmp_path_factory, "two_looks", save) / "pairs.npz")


@pytest.fixture(scope="session")
def trained(two_looks, tmp_path_factory):
    """A finished run, and what it printed; no test may change it."""

    def train(folder):
        folder.mkdir()
        done = programs.run(
            "train",
            f"--workdir={folder / 'pairs'}",
            config="configs/pairs.py:clip",
            dataset__path=two_looks,
            batch__classes=64,
            batch__per_class=2,
            model__width=64,
            model__dim=8,
            optimizer__learning_rate=0.01,
            train__steps=100,
            evaluate__every=50,
        )
        assert done.returncode == 0, done.stderr
        (folder / "printed.txt").write_text(done.stdout)

    folder = once.made_once(tmp_path_factory, "pairs_run", train)
    return folder / "pairs", (folder / "printed.txt").read_text()


def test_a_run_on_pairs_finds_partners_both_ways(trained):
    workdir, printed = trained
    result = json.loads((workdir / "result.json").read_text())
    ways = [result["embedding"][way] for way in ("first_to_second", "second_to_first")]
    assert [way["queries"] for way in ways] == [120, 120]
    assert min(way["recall_at_1"] for way in ways) > 0.8 > 50 * result["chance"]["recall_at_1"]
    assert "raw_pixels" not in result
    assert "120 pairs, none of them seen in training" in printed
    assert "input 16 and 9" in printed and "mlp and mlp" in printed
    for way in ways:
        assert f"{way['recall_at_5']:.3f}" in printed
    with np.load(workdir / "embeddings.npz") as saved:
        assert saved["embeddings"].shape == (1200, 8)


def test_the_best_checkpoint_is_that_of_recall_between_the_two(trained, tmp_path):
    workdir = shutil.copytree(trained[0], tmp_path / "run")
    printed = trained[1].replace(str(trained[0]), str(workdir))
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    scores = [row["validation/map_at_r"] for row in rows if "validation/map_at_r" in row]
    assert len(scores) == 2 and 0.3 < max(scores) <= 1
    assert "the best Recall@1 on 60 validation pairs" in printed
    done = programs.run("evaluate", f"--workdir={workdir}")
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n")[1:] == printed.split("\n")[-len(done.stdout.split("\n")) + 1 :]


@pytest.mark.slow
def test_the_encoders_of_pairs_are_exported_and_explored(trained, two_looks, tmp_path):
    workdir = shutil.copytree(trained[0], tmp_path / "run")
    file = tmp_path / "encoders.jaxexport"
    done = programs.run("export", f"--workdir={workdir}", f"--output={file}")
    assert done.returncode == 0, done.stderr
    inputs = data.pairs(two_looks, held_out=data.HeldOut(0.25, 0.25, seed=0)).inputs
    with np.load(workdir / "embeddings.npz") as saved:
        expected = saved["embeddings"][:5]
    np.testing.assert_allclose(export.load(file).call(inputs[:5]), expected, atol=1e-5)
    done = programs.run("explore", f"--workdir={workdir}", "--projection=pca")
    assert done.returncode == 0, done.stderr


def test_programs_on_images_refuse_a_run_on_pairs(trained, tmp_path):
    workdir, _ = trained
    with pytest.raises(errors.InputError, match="trained on the pairs of an .npz file"):
        embedders.load_embedder(workdir)
    done = programs.run("picture", f"--workdir={workdir}", f"--output={tmp_path / 'a.png'}")
    programs.refused(done, "holds a run on pairs")


@pytest.mark.slow
def test_two_views_have_an_encoder_each(tmp_path):
    done = programs.run(
        "train",
        f"--workdir={tmp_path / 'run'}",
        config="configs/digits.py:clip",
        model__name="mlp",
        batch__per_class=2,
        train__steps=20,
        evaluate__every=20,
    )
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    # That of digits by the first encoder, beside raw pixels as ever.
    assert result["embedding"]["retrieval"]["queries"] == 539
    assert set(result["raw_pixels"]) == set(result["embedding"])
    assert embedders.load_embedder(tmp_path / "run").form.size == 8
