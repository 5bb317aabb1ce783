"""Near duplicates within a gallery: the table, what is printed, and the sheet."""

import PIL.Image
import pytest

from experiments.run import duplicates, galleries
from tests.experiments.run.test_galleries import DIM, Encoder, listed, paint
from triplet_jax import errors
from triplet_jax.data import images


@pytest.fixture
def folder(tmp_path):
    """Greys 10, 11, 13 in a chain, a pair 100, 100 of two classes, and one that is alone."""
    for name, grey in (
        ("a/1", 10),
        ("a/2", 11),
        ("b/3", 13),
        ("a/4", 100),
        ("b/5", 100),
        ("b/6", 200),
    ):
        paint(tmp_path / "images" / f"{name}.png", grey)
    return tmp_path / "images"


@pytest.fixture
def found(folder, tmp_path):
    (tmp_path / "place").mkdir()
    with galleries.following(tmp_path / "place", listed(folder), Encoder(), dim=DIM) as gallery:
        yield gallery


def test_pairs_are_listed_by_group_with_both_classes(found, folder):
    """An embedding is the grey four times: two are twice as far apart as their greys."""
    pairs = duplicates.find(found, 4.0)
    pairs["path"], pairs["other"] = (
        [path.removeprefix(f"{folder}/") for path in pairs[name]] for name in ("path", "other")
    )
    assert pairs.to_numpy().tolist() == [
        [1, "a/4.png", "a", "b/5.png", "b", 0.0],
        [2, "a/1.png", "a", "a/2.png", "a", 2.0],
        [2, "a/2.png", "a", "b/3.png", "b", 4.0],
    ]
    with pytest.raises(errors.InputError, match="--within=-1.0 must be a distance"):
        duplicates.find(found, -1.0)


def test_groups_are_counted_and_drawn(found, folder, tmp_path, capsys):
    pairs = duplicates.find(found, 4.0)
    duplicates.show(pairs, folder, 4.0)
    said = capsys.readouterr().out
    assert "2 groups of near duplicates, of 5 images: 3 pairs" in said
    assert "3 images fewer" in said and "2 groups have images of several classes" in said
    duplicates.draw(pairs, images.ImageForm(size=8, channels=3), tmp_path / "sheet.png")
    with PIL.Image.open(tmp_path / "sheet.png") as sheet:
        assert round(sheet.size[1] / 182) == 2  # a row for each group


def test_a_large_group_is_drawn_in_part_and_says_how_many_more(found, monkeypatch):
    drawn = []
    monkeypatch.setattr(duplicates, "_IMAGES_OF_ROW", 2)
    monkeypatch.setattr(
        duplicates.sheets, "draw", lambda count, row, _: drawn.extend(map(row, range(count)))
    )
    form = images.ImageForm(size=8, channels=3)
    duplicates.draw(duplicates.find(found, 4.0), form, "sheet.png")
    titles = [[title for _, title, _ in row] for row in drawn]
    assert titles == [["1: a\n0.000", "b\n0.000"], ["2: a\n2.000", "a\n2.000, 1 more"]]


def test_a_gallery_without_duplicates_says_so_and_draws_nothing(found, folder, tmp_path, capsys):
    pairs = duplicates.find(found, 0.0).iloc[:0]
    duplicates.show(pairs, folder, 0.0)
    duplicates.draw(pairs, images.ImageForm(size=8, channels=3), tmp_path / "sheet.png")
    assert "0 groups of near duplicates" in capsys.readouterr().out
    assert not (tmp_path / "sheet.png").exists()


def test_a_distance_is_that_of_copies(found, monkeypatch, capsys):
    """The encoder sees greys, which JPEG of this quality keeps, or nearly."""
    assert duplicates.within_copies(found, Encoder()) <= 4.0
    assert "of 6 images and their copies as JPEG" in capsys.readouterr().out
    shifted = lambda files: Encoder()(files) + 3.0  # noqa: E731
    shifted.form = Encoder.form
    assert duplicates.within_copies(found, shifted) == pytest.approx(6.0, abs=4.0)
