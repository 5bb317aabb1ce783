"""What `experiments.embed` writes."""

import pathlib
import sys

import numpy as np
import pytest

from experiments import embed
from tests.support import bare_runs, mains
from tests.support.image_folders import save_image
from triplet_jax import errors
from triplet_jax.data import folder_layout, folder_listing
from triplet_jax.evaluation import embedding_files


@pytest.mark.parametrize("name", ["mine.npz", "mine.parquet"])
def test_files_of_embeddings_are_read_by_evaluation(tmp_path, name):
    if name.endswith(".parquet"):
        pytest.importorskip("pyarrow", reason="pip install 'triplet_jax[search]'")
    root = tmp_path / "images"
    for i in range(6):
        save_image(root / "ab"[i % 2] / f"{i}.png", i)
    files = folder_listing.find(root, folder_layout.layout_of(root, class_level=1)).files
    x = np.random.default_rng(0).normal(size=(len(files), 3)).astype(np.float32)
    embed.write(tmp_path / name, files, x)
    found = embedding_files.read(str(tmp_path / name))
    assert np.array_equal(found.embeddings, x)
    assert found.labels.tolist() == [pathlib.Path(file.path).parent.name for file in files]


@pytest.fixture
def alone(monkeypatch):
    """No handlers of signals are set, as a program of several processes needs them."""
    monkeypatch.setattr(embed.command, "start_processes", lambda: None)


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ("--images=nowhere --output=a.npz", "--images=nowhere is not a folder"),
        ("--images=. --output=a.npy", r"--output=a.npy must be a file named \*.npz or"),
        ("--output=a.npz", "--images is missing: a folder of images"),
        ("--images=. --output=a.faiss", "--output='a.faiss' needs the package faiss"),
    ],
)
def test_flags_that_cannot_be_used_are_refused(flags, words, monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(errors.InputError, match=words):
        mains.call(embed.main, "--workdir=x", *flags.split())


@pytest.mark.usefixtures("alone")
def test_what_is_passed_over_is_said_and_a_folder_without_images_is_refused(tmp_path, capsys):
    run = bare_runs.write(tmp_path / "run")
    (folder := tmp_path / "images").mkdir()
    (folder / "notes.txt").write_text("hello")
    flags = [f"--workdir={run}", f"--images={folder}", f"--output={tmp_path / 'a.npz'}"]
    with pytest.raises(errors.InputError, match="notes.txt.*\n.*--bad_images='skip'"):
        mains.call(embed.main, *flags)
    with pytest.raises(errors.InputError, match=f"--images={folder} holds no images"):
        mains.call(embed.main, *flags, "--bad_images=skip")
    said = capsys.readouterr().out
    assert said.startswith("passed over:\n") and "notes.txt" in said
