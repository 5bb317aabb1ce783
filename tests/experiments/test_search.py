"""The program `search`, with an encoder that sees the mean colour of an image.

Runs of a real encoder are in `test_own_images.py`.
"""

import numpy as np
import pandas as pd
import pytest

from experiments import search
from experiments.run import embedders, queries
from tests.experiments.run.test_galleries import DIM, Encoder, paint
from tests.support import bare_runs, mains
from triplet_jax import errors
from triplet_jax.data import images

SHOWN = images.ImageForm(size=8, channels=3)


@pytest.fixture
def folder(tmp_path):
    """Eight greys of two classes: an image is twice as far from another as their greys differ."""
    for i in range(8):
        paint(tmp_path / "images" / ("light" if i > 3 else "dark") / f"{i}.png", 25 * i)
    return tmp_path / "images"


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    return bare_runs.write(tmp_path_factory.mktemp("searched") / "run")


@pytest.fixture
def ask(workdir, monkeypatch, capsys):
    """Calls the program, and returns what it prints."""
    encoder = Encoder()
    encoder.dim, encoder.shown = DIM, SHOWN
    monkeypatch.setattr(embedders, "load_embedder", lambda workdir, max_pixels: encoder)

    def call(*given):
        mains.call(search.main, f"--workdir={workdir}", *given)
        return capsys.readouterr().out

    return call


def test_a_folder_sets_the_threshold_and_all_neighbours_are_written(ask, workdir, folder, tmp_path):
    given = [f"--gallery={folder}", "--neighbours=2"]
    given += [f"--calibration={folder}", "--false_accept_rate=0.7"]
    said = ask(*given, f"--query={folder}")
    assert "62.50% of the pairs of two classes, measured among 8 images of 2 classes in" in said
    assert "nearest to each of 8 queries" in said
    assert "All neighbours of each: --output=FILE.csv or .parquet" in said
    assert (workdir / "search.png").exists()
    table = tmp_path / "all.csv"
    given += [f"--query={folder / 'dark'}", f"--output={table}"]
    said = ask(*given, f"--sheet={tmp_path / 'other.png'}")
    assert f"all 8 neighbours written to {table}" in said and "All neighbours" not in said
    answers = pd.read_csv(table)
    assert list(answers) == ["query", "rank", "path", "class", "distance", "verdict"]
    assert answers["rank"].tolist() == [1, 2] * 4
    assert (answers.distance[::2] == 0).all() and (answers.distance[1::2] == 50).all()
    assert set(answers.verdict) == {"same"}
    assert (tmp_path / "other.png").exists()


def test_near_duplicates_are_written_and_drawn(ask, workdir, folder, tmp_path):
    paint(folder / "again.png", 25)
    table, given = tmp_path / "pairs.csv", [f"--gallery={folder}", "--duplicates"]
    said = ask(*given, f"--output={table}", f"--sheet={tmp_path / 'pairs.png'}")
    assert "--within sets another distance" in said
    (pair,) = pd.read_csv(table).to_dict("records")
    assert (pair["path"], pair["other"]) == (f"{folder}/again.png", f"{folder}/dark/1.png")
    assert (pair["distance"], pair["other_class"]) == (0, "dark")
    assert (tmp_path / "pairs.png").exists()
    assert f"all 1 pairs written to {table}" in said
    said = ask(*given, "--within=50")
    assert "1 groups of near duplicates, of 9 images" in said and "all 10 pairs" not in said
    assert (workdir / "duplicates.png").exists()


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ("--query=x.png --within=0.1", "--within=0.1 needs --duplicates"),
        ("", "--query is missing: the image to look for"),
        ("--duplicates --query=x.png", "images of --gallery: leave out --query"),
        ("--duplicates --sheet=nowhere/a.png", "--sheet=nowhere/a.png must lie in a folder that"),
        ("--duplicates --parquet=all.parquet", "images of --gallery: leave out --parquet"),
        ("--duplicates --output=pairs.txt", r"--output=pairs.txt must be a file named \*.csv or"),
    ],
)
def test_flags_that_do_not_fit_are_refused(flags, words, ask, folder):
    with pytest.raises(errors.InputError, match=words):
        ask(f"--gallery={folder}", *flags.split())


def test_folders_without_images_are_refused(ask, folder, tmp_path, capsys):
    (empty := tmp_path / "empty").mkdir()
    query = f"--query={folder / 'dark' / '0.png'}"
    with pytest.raises(errors.InputError, match=f"--gallery={empty} holds no files"):
        ask(f"--gallery={empty}", query)
    with pytest.raises(errors.InputError, match="--gallery=nowhere is not a folder of images"):
        ask("--gallery=nowhere", query)
    (empty / "notes.txt").write_text("hello")
    (empty / "link.png").symlink_to("lost.png")
    with pytest.raises(errors.InputError, match="(?s)lost.png.*set --bad_images='skip'"):
        ask(f"--gallery={empty}", query)
    for what in (query, "--duplicates"):
        with pytest.raises(errors.InputError, match=f"--gallery={empty} holds no images that can"):
            ask(f"--gallery={empty}", what, "--bad_images=skip")
    said = capsys.readouterr().out
    assert said.count("link.png is a link to lost.png") == said.count("notes.txt") == 2
    with pytest.raises(errors.InputError, match=f"--query={empty} holds no images that can"):
        queries.find([str(empty)], "skip", 100)


def test_an_approximate_search_says_its_recall(capsys):
    class Found:
        """A gallery of 10,000 images, which an index needs."""

        is_indexed = False

        def __len__(self):
            return 10_000

        def build_index(self):
            self.is_indexed = True

        def recall(self, neighbours):
            return neighbours / 4

        def nearest(self, embeddings, neighbours, *, approximate):
            return [len(embeddings), neighbours, approximate and self.is_indexed]

    answers = []
    look = lambda: answers.append(search.search(Found(), np.ones((7, DIM))))  # noqa: E731
    mains.call(look, "--approximate", "--neighbours=3")
    mains.call(look, "--neighbours=3")
    assert answers == [[7, 3, True], [7, 3, False]]
    assert capsys.readouterr().out == "approximate: finds 75.0% of the 3 nearest\n"
