"""One's own images: trained on, embedded, searched, and exported, as a person does it."""

import os
import pathlib
import re
import shutil
import subprocess
import sys

import numpy as np
import pandas as pd
import PIL.Image
import pyarrow.parquet
import pytest

from experiments.run import embedders, galleries
from tests.support import own_images as own_images_of
from tests.support import programs
from triplet_jax.analysis import run
from triplet_jax.evaluation import gallery
from triplet_jax.models import export


@pytest.fixture(scope="module")
def own_images(own_run):
    """A folder of images, which no test may change."""
    return own_run[0]


@pytest.fixture(scope="module")
def trained(own_run, tmp_path_factory):
    """A run on them, which keeps the galleries that are searched."""
    return shutil.copytree(own_run[1], tmp_path_factory.mktemp("trained") / "run")


@pytest.fixture
def copies(own_images, tmp_path):
    """A gallery that a test may change."""
    subprocess.run(["cp", "-r", own_images, tmp_path / "images"], check=True)
    return tmp_path / "images"


def search(workdir, folder, query, *flags):
    return programs.run(
        "search", f"--workdir={workdir}", f"--gallery={folder}", f"--query={query}", *flags
    )


def test_a_folder_is_embedded(trained, own_images, tmp_path):
    output = tmp_path / "mine.npz"
    done = programs.run(
        "embed", f"--workdir={trained}", f"--images={own_images}", f"--output={output}"
    )
    assert done.returncode == 0, done.stderr
    with np.load(output, allow_pickle=False) as saved:
        assert saved["embeddings"].shape == (len(saved["paths"]), 16)
        assert set(saved["labels"]) == set(own_images_of.NAMES)


def test_a_search_finds_the_nearest_and_follows_the_folder(trained, copies, tmp_path):
    files = sorted(copies.glob("two/*"))
    query = files[0]
    flags = [f"--sheet={tmp_path / 'sheet.png'}", "--false_accept_rate=0.05"]
    done = search(trained, copies, query, *flags)
    assert done.returncode == 0, done.stderr
    count = sum(1 for _ in copies.glob("*/*"))
    assert f"{count} images embedded, 0 removed, {count} now" in done.stdout
    first, *_ = [line for line in done.stdout.splitlines() if " 1 " in line]
    assert "0.000" in first and query.name in first and "two" in first and "same" in first
    with PIL.Image.open(tmp_path / "sheet.png") as sheet:
        assert min(sheet.size) > 100

    # Nothing has changed: nothing is embedded. Then one is gone, one is new, one is another.
    assert "embedded" not in search(trained, copies, query).stdout
    files[1].unlink()
    query.rename(query.with_name("moved'.png"))
    PIL.Image.new("L", (16, 16)).save(files[2])
    done = search(trained, copies, files[3], f"--parquet={tmp_path / 'all.parquet'}")
    assert done.returncode == 0, done.stderr
    assert f"2 images embedded, 2 removed, {count - 1} now" in done.stdout
    rows = pyarrow.parquet.read_table(tmp_path / "all.parquet").to_pandas()
    assert set(rows.path) == {str(file) for file in copies.glob("*/*")}
    paths = [p for p in copies.glob("*/*") if p.name == "moved'.png"]
    direct = embedders.load_embedder(trained)(paths)[0]
    stored = rows[rows.path == str(paths[0])].vector.iloc[0]
    np.testing.assert_allclose(stored, direct, atol=1e-6)


@pytest.mark.slow
def test_the_threshold_is_that_of_the_validation_split(trained, own_images):
    query = next(own_images.glob("one/*"))
    done = search(trained, own_images, query, "--false_accept_rate=0.05", "--neighbours=160")
    assert done.returncode == 0, done.stderr
    of_run = run.load(trained)
    held_out = of_run.where("validation")
    x, labels = of_run.embeddings[held_out], of_run.labels[held_out]
    d = np.linalg.norm(x[:, None] - x[None], axis=2)[np.triu_indices(len(x), 1)]
    different = (labels[:, None] != labels)[np.triu_indices(len(x), 1)]
    accepted = gallery.threshold(x, labels, false_accept_rate=0.05)
    assert np.mean(d[different] <= accepted.threshold) == pytest.approx(accepted.false_accepts)
    assert accepted.false_accepts <= 0.05
    larger = np.min(d[d > accepted.threshold + 1e-6])
    assert np.mean(d[different] <= larger) > 0.05 or larger not in d[different]
    assert f"up to a distance of {accepted.threshold:.3f}" in done.stdout
    assert re.search(r"same +│", done.stdout) and re.search(r"different +│", done.stdout)


@pytest.mark.slow
def test_too_few_validation_pairs_are_said_and_the_search_goes_on(trained, own_images):
    query = next(own_images.glob("one/*"))
    done = search(trained, own_images, query, "--false_accept_rate=0.0001")
    assert done.returncode == 0, done.stderr
    assert "no threshold" in done.stdout and "100,000 of two are needed" in done.stdout
    assert "verdict" not in done.stdout
    for rate in (0.0, 1.0, -1.0):
        done = search(trained, own_images, query, f"--false_accept_rate={rate}")
        programs.refused(done, f"--false_accept_rate={rate} must be above 0 and below 1")


@pytest.mark.slow
def test_bad_input_of_a_search_is_refused(trained, copies, tmp_path):
    query = next(copies.glob("one/*"))
    (tmp_path / "empty").mkdir()
    programs.refused(search(trained, tmp_path / "empty", query), "holds no files")
    programs.refused(search(trained, tmp_path / "none", query), "is not a folder")
    programs.refused(search(trained, copies, tmp_path / "none.png"), "is no file")
    torn = tmp_path / "torn.png"
    torn.write_bytes(query.read_bytes()[:40])
    programs.refused(search(trained, copies, torn), "torn.png")
    programs.refused(
        search(trained, copies, query, "--neighbours=0"), "--neighbours=0 must be at least 1"
    )
    programs.refused(search(trained, copies, query, "--sheet=none/a.png"), "folder that exists")
    programs.refused(search(trained, copies, query, "--sheet=a.word"), "ending of a.word")
    programs.refused(search(trained, copies, query, "--approximate"), "10,000 images")
    (copies / "one" / "notes.txt").write_text("hello")
    programs.refused(search(trained, copies, query), "notes.txt", "--bad_images='skip'")
    assert search(trained, copies, query, "--bad_images=skip").returncode == 0


@pytest.mark.slow
def test_a_search_that_is_killed_while_it_embeds_goes_on(trained, copies):
    query = next(copies.glob("one/*"))
    for i in range(6):
        for file in list(copies.glob("two/*.png"))[:60]:
            (copies / f"more{i}").mkdir(exist_ok=True)
            (copies / f"more{i}" / file.name).write_bytes(file.read_bytes())
    kept = galleries.place_of(trained, copies)
    flags = [f"--workdir={trained}", f"--gallery={copies}", f"--query={query}"]
    process = programs.start("search", *flags)
    programs.wait_until(lambda: kept.exists(), process)
    process.kill()
    process.communicate()
    done = search(trained, copies, query)
    assert done.returncode == 0, done.stderr
    assert len(gallery.Gallery(kept, dim=16)) == sum(1 for _ in copies.glob("*/*"))


@pytest.mark.slow
def test_a_read_only_run_is_searched_with_the_gallery_elsewhere(trained, copies, tmp_path):
    """Several queries share the start, and a folder sets the threshold."""
    workdir, kept = tmp_path / "run", tmp_path / "kept"
    shutil.copytree(trained, workdir, ignore=shutil.ignore_patterns("galleries", "search*.png"))
    (workdir / "galleries").write_text("in the way, as a file system that cannot be written")
    (queries := tmp_path / "queries").mkdir()
    odd = queries / os.fsdecode(b"caf\xe9.png")  # no UTF-8
    for i, file in enumerate(sorted(copies.glob("two/*.png"))[:5]):
        shutil.copy(file, queries / f"{i}.png" if i else odd)
    query = tmp_path / "asked.csv"
    query.write_text(f"path\n{next(copies.glob('one/*'))}\n")
    programs.refused(search(workdir, copies, query), "cannot be written", "--gallery_dir")

    before = {file: file.stat().st_mtime_ns for file in workdir.rglob("*")}
    flags = [f"--gallery_dir={kept}", f"--output={tmp_path / 'all.parquet'}", f"--query={queries}"]
    flags += [f"--calibration={copies}", "--false_accept_rate=0.05", "--neighbours=2"]
    done = search(workdir, copies, query, *flags)
    assert done.returncode == 0, done.stderr
    assert {file: file.stat().st_mtime_ns for file in workdir.rglob("*")} == before
    assert "nearest to each of 6 queries" in done.stdout and "caf\\xe9" in done.stdout
    count = sum(1 for _ in copies.glob("*/*"))
    assert f"among {count} images of 4 classes in {copies}" in done.stdout
    with PIL.Image.open(kept / "search.png") as sheet:
        assert sheet.size[1] > 6 * 150
    answers = pd.read_parquet(tmp_path / "all.parquet")
    assert list(answers["rank"]) == [1, 2] * 6
    assert answers["query"].nunique() == 6 and (answers.distance[::2] < 1e-3).all()
    found = gallery.Gallery(galleries.place_of(workdir, copies, str(kept)), dim=16).table()
    codes = np.unique(found.label, return_inverse=True)[1]
    accepted = gallery.threshold(np.stack(found.vector), codes, false_accept_rate=0.05)
    assert f"up to a distance of {accepted.threshold:.3f}" in done.stdout


@pytest.mark.slow
def test_copies_of_photographs_are_found_within_a_gallery(trained, tmp_path):
    """Encoded anew, and at half the size. This encoder was never shown a flipped image."""
    top = pathlib.Path(os.environ.get("SHARED_DATA", ""), "grocery", "test")
    photographs = sorted(top.glob("*/*.jpg"))[:160:8]
    if not photographs:
        pytest.skip("set SHARED_DATA to a folder with the grocery photographs to run this test")
    (folder := tmp_path / "images").mkdir()
    for i, file in enumerate(photographs):
        shutil.copy(file, folder / f"{i}.jpg")
        if i % 4 == 0:
            with PIL.Image.open(file) as picture:
                picture.save(folder / f"{i}_again.jpg", quality=85)
                half = picture.resize([side // 2 for side in picture.size])
                half.save(folder / f"{i}_small.png")
    copied = range(0, len(photographs), 4)

    def pairs(*flags):
        given = [f"--workdir={trained}", f"--gallery={folder}", "--duplicates"]
        files = [f"--output={tmp_path / 'pairs.csv'}", f"--sheet={tmp_path / 'all.png'}"]
        done = programs.run("search", *given, *files, *flags)
        assert done.returncode == 0, done.stderr
        found = pd.read_csv(tmp_path / "pairs.csv")[["path", "other"]]
        return {tuple(pathlib.Path(path).name for path in pair) for pair in found.to_numpy()}

    assert {(f"{i}.jpg", f"{i}_again.jpg") for i in copied} <= pairs()
    assert (tmp_path / "all.png").exists()
    assert {(f"{i}.jpg", f"{i}_small.png") for i in copied} <= pairs("--within=0.1")


# -- the exported encoder ----------------------------------------------------------------

ALONE = """
import sys, pathlib, jax, numpy as np
encoder = jax.export.deserialize(bytearray(pathlib.Path(sys.argv[1]).read_bytes()))
images = np.load(sys.argv[2])
np.save(sys.argv[3], np.stack([encoder.call(images[:1])[0], encoder.call(images)[0]]))
assert not {"flax", "triplet_jax"} & set(sys.modules)
"""


def test_the_exported_encoder_runs_with_jax_alone(trained, own_images, tmp_path):
    file = tmp_path / "encoder.jaxexport"
    done = programs.run("export", f"--workdir={trained}", f"--output={file}")
    assert done.returncode == 0, done.stderr
    assert "uint8 inputs of 16x16x1" in done.stdout or "uint8 inputs of 16x16x3" in done.stdout
    embedder = embedders.load_embedder(trained)
    paths = sorted(own_images.glob("*/*"))[:5]
    pixels = np.stack([embedder.form.read(str(path)) for path in paths])
    live = embedder(paths)
    np.testing.assert_allclose(export.load(file).call(pixels), live, atol=1e-5)
    np.save(tmp_path / "pixels.npy", pixels)
    command = [sys.executable, "-c", "import jax.export" + ALONE, file, tmp_path / "pixels.npy"]
    subprocess.run([*map(str, command), str(tmp_path / "out.npy")], check=True, cwd=tmp_path)
    np.testing.assert_allclose(np.load(tmp_path / "out.npy"), live[[0, 0]], atol=1e-5)
    assert set(export.load(file).platforms) == {"cpu", "cuda", "rocm", "tpu"}


def test_an_export_into_no_folder_is_refused(trained, tmp_path):
    file = tmp_path / "no" / "x.jaxexport"
    done = programs.run("export", f"--workdir={trained}", f"--output={file}")
    programs.refused(done, "folder that exists")


@pytest.mark.slow
def test_files_that_are_no_images_are_refused_or_skipped(own_images, tmp_path):
    folder = tmp_path / "images"
    subprocess.run(["cp", "-r", own_images, folder], check=True)
    (folder / "one" / "notes.txt").write_text("hello")
    fields = {
        "config": "configs/folder.py",
        "dataset__path": folder,
        "dataset__image_size": 8,
        "batch__classes": 4,
        "train__steps": 3,
        "log__every": 1,
    }
    programs.refused(
        programs.run("train", f"--workdir={tmp_path / 'a'}", **fields), "notes.txt", "'skip'"
    )
    skipping = programs.run(
        "train", f"--workdir={tmp_path / 'b'}", dataset__bad_images="skip", **fields
    )
    assert skipping.returncode == 0, skipping.stderr
