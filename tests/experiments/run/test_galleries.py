"""Galleries follow folders: one process builds, damage is mended, and every name is kept."""

import os
import threading
import time

import numpy as np
import PIL.Image
import pytest

from experiments.run import galleries
from triplet_jax import errors
from triplet_jax.data import folder_layout, folder_listing, images
from triplet_jax.data.file_names import to_text
from triplet_jax.evaluation import gallery

DIM = 4


class Encoder:
    """In the place of a run's: the mean colour of an image, four times."""

    form = images.ImageForm(size=4, channels=1)
    augment, step = (), 0

    def __init__(self, mark="one", seconds=0.0):
        self.mark, self.seconds, self.embedded = mark, seconds, []

    def __call__(self, files):
        time.sleep(self.seconds)
        self.embedded += files
        means = [self.form.read(str(file)).mean() for file in files]
        return np.repeat(np.array(means, np.float32)[:, None], DIM, axis=1)


def paint(file, grey):
    file.parent.mkdir(parents=True, exist_ok=True)
    PIL.Image.new("L", (4, 4), grey).save(file, "PNG")


@pytest.fixture
def folder(tmp_path):
    """Two classes of four images."""
    for i in range(8):
        paint(tmp_path / "images" / ("light" if i > 3 else "dark") / f"{i}.png", 30 * i)
    return tmp_path / "images"


@pytest.fixture
def place(tmp_path):
    (tmp_path / "place").mkdir()
    return tmp_path / "place"


def listed(folder):
    return folder_listing.find(folder, folder_layout.layout_of(folder))


def followed(place, folder, encoder=None, **options):
    """The rows of the gallery once it follows the folder."""
    encoder = encoder or Encoder()
    with galleries.following(place, listed(folder), encoder, dim=DIM, **options) as found:
        return found.table().sort_values("path", ignore_index=True)


def test_of_two_searches_that_build_one_gallery_one_builds_it(place, folder):
    """Without a lock both added every row, and each was there twice."""
    encoders = [Encoder(seconds=0.1) for _ in range(2)]
    tables = []
    threads = [
        threading.Thread(target=lambda e=encoder: tables.append(followed(place, folder, e)))
        for encoder in encoders
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(len(encoder.embedded) for encoder in encoders) == [0, 8]
    assert [len(table) for table in tables] == [8, 8]
    assert list(tables[0].path) == sorted(str(file) for file in folder.glob("*/*"))


@pytest.mark.parametrize("kind", ["data/*.lance", "_versions/*.manifest", "seal.json"])
def test_a_damaged_gallery_is_built_anew(kind, place, folder, capsys):
    whole = followed(place, folder)
    for file in place.glob(f"images.lance/{kind}"):
        file.write_bytes(file.read_bytes()[:20])
    encoder = Encoder()
    again = followed(place, folder, encoder)
    assert len(encoder.embedded) == 8
    assert "is damaged" in capsys.readouterr().out
    np.testing.assert_equal(np.stack(again.vector), np.stack(whole.vector))


def test_doubled_rows_of_an_older_version_are_mended(place, folder, capsys):
    followed(place, folder)
    twice = gallery.Gallery(place, dim=DIM)
    twice._table.add(twice._table.to_arrow())
    (place / "images.lance" / "seal.json").unlink()
    assert len(followed(place, folder)) == 8
    assert "8 of 16 rows" in capsys.readouterr().out


def test_another_encoder_embeds_anew_and_says_so(place, folder, capsys):
    followed(place, folder)
    encoder = Encoder(mark="two")
    followed(place, folder, encoder)
    assert len(encoder.embedded) == 8
    assert "8 images were embedded by another encoder" in capsys.readouterr().out
    quiet = Encoder(mark="two")
    followed(place, folder, quiet)
    assert not quiet.embedded and "another encoder" not in capsys.readouterr().out
    with galleries.following(place, listed(folder), quiet, dim=DIM) as found:
        assert found.is_compact


def test_an_encoder_of_another_size_builds_the_gallery_anew(place, folder, capsys):
    wide = gallery.Gallery(place, dim=9)
    wide.put(["a"], ["b"], ["c"], np.ones((1, 9)))
    assert len(followed(place, folder)) == 8
    assert "embeddings of 9 values" in capsys.readouterr().out


def test_links_and_names_that_are_not_utf_8_are_followed(place, folder, tmp_path):
    """A gallery whose folders became links lost 140 of 160 rows."""
    followed(place, folder)
    (folder / "dark").rename(tmp_path / "moved")
    (folder / "dark").symlink_to(tmp_path / "moved")
    odd = folder / os.fsdecode(b"caf\xe9") / os.fsdecode(b"\xff.png")
    paint(odd, 255)
    encoder = Encoder()
    table = followed(place, folder, encoder)
    assert len(table) == 9 and encoder.embedded == [odd]
    row = table[table.path == to_text(str(odd))].iloc[0]
    assert row.label == "caf\\xe9" and row.vector[0] == 255


def test_what_is_no_image_is_refused_by_the_flag_or_named(place, folder, capsys):
    followed(place, folder)
    (folder / "dark" / "0.png").write_text("no image any more")
    (folder / "dark" / "notes.txt").write_text("hello")
    with pytest.raises(errors.InputError, match="notes.txt.*\n.*--bad_images='skip'"):
        followed(place, folder)
    assert len(followed(place, folder, bad_images="skip")) == 7
    said = capsys.readouterr().out
    assert "passed over, as no images" in said and "notes.txt" in said and "0.png" in said


def test_galleries_of_two_runs_in_one_folder_are_kept_apart(tmp_path):
    places = [
        galleries.place_of(tmp_path / run, tmp_path / "images", str(tmp_path / "all"))
        for run in ("a", "b")
    ]
    assert places[0] != places[1] and places[0].parent == tmp_path / "all"


def test_a_place_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(errors.InputError, match="cannot be written.*--gallery_dir"):
        galleries.make_place(tmp_path / "file" / "place")


def test_what_is_embedded_part_by_part_says_how_far_it_is(place, folder, monkeypatch, capsys):
    monkeypatch.setattr(galleries, "_AT_A_TIME", 3)
    assert len(followed(place, folder)) == 8
    said = capsys.readouterr().out
    assert [line for line in said.splitlines() if line.startswith("embedded")] == [
        f"embedded {count} of 8" for count in (3, 6, 8)
    ]
