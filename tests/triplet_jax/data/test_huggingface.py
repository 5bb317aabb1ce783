"""Data sets of the package `datasets`, and what of them is refused."""

import pickle
import sys

import numpy as np
import pytest

from tests.triplet_jax.data.test_webdataset import encoded, greys
from triplet_jax import data, errors
from triplet_jax.data import batch_loading, image_checks, images

datasets = pytest.importorskip("datasets", reason="pip install 'triplet_jax[huggingface]'")

FORM = images.ImageForm(size=4, channels=1)
SOME = data.HeldOut(test=0.25, validation=0.2, seed=0)
NAMES = ["ant", "bee", "cat", "dog"]
FEATURES = datasets.Features(
    {
        "image": datasets.Image(),
        "label": datasets.ClassLabel(names=NAMES),
        "camera": datasets.Value("int64"),
    }
)


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.disable_progress_bars()


def rows(numbers, **changes):
    numbers = list(numbers)
    return {
        "image": [{"bytes": encoded(10 * i), "path": None} for i in numbers],
        "label": [i % 4 for i in numbers],
        "camera": [i // 4 % 2 for i in numbers],
    } | changes


def made(numbers, features=FEATURES, **changes):
    return datasets.Dataset.from_dict(rows(numbers, **changes), features=features)


@pytest.fixture
def parquet(tmp_path):
    folder = tmp_path / "birds"
    folder.mkdir()
    made(range(16)).to_parquet(folder / "train-00000-of-00001.parquet")
    made(range(16, 24)).to_parquet(folder / "test-00000-of-00001.parquet")
    return folder


def read(path, *, split_by="image", **settings):
    given = {"form": FORM, "held_out": SOME, "bad_images": "refuse"} | settings
    return data.from_huggingface(str(path), split_by=split_by, **given)


def test_parquet_gives_the_rows_of_the_library(parquet):
    found = read(parquet)
    theirs = datasets.load_dataset(str(parquet))
    values = [np.asarray(row["image"])[0, 0] for split in theirs.values() for row in split]
    assert greys(found) == values == list(range(0, 240, 10))
    assert found.class_names == tuple(NAMES)
    assert found.labels.tolist() == [i % 4 for i in range(24)]


def test_official_splits_are_those_of_the_library(parquet):
    found = read(parquet, split_by="official")
    assert greys(found.only("test")) == list(range(160, 240, 10))
    assert len(found.only("validation")) > 0
    other = read(parquet, split_by="official", train_split="test", test_split="train")
    assert greys(other.only("test")) == list(range(0, 160, 10))


def test_columns_have_the_names_that_are_given(parquet):
    found = read(parquet, split_by="group", columns=data.Columns(group="camera"))
    assert found.sessions.tolist() == [str(i // 4 % 2) for i in range(24)]
    found = read(parquet, columns=data.Columns(label="camera", ignore=(("label", "label"),)))
    assert found.class_names == ("0", "1")
    assert found.query_groups[0] == found.reference_groups[4] != found.reference_groups[1]


@pytest.mark.parametrize("form", ["one file", "saved", "saved splits", "folders", "bytes"])
def test_other_places_give_the_same(parquet, tmp_path, form):
    expected, path = read(parquet, train_split="train", test_split=""), tmp_path / "other"
    if form == "one file":
        path = parquet / "train-00000-of-00001.parquet"
    elif form == "saved":
        made(range(16)).save_to_disk(path)
    elif form == "saved splits":
        datasets.DatasetDict({"train": made(range(16))}).save_to_disk(path)
    elif form == "folders":
        for i in range(16):
            file = path / NAMES[i % 4] / f"{i // 4}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(encoded(10 * i))
    else:
        plain = [image["bytes"] for image in rows(range(16))["image"]]
        labels = [NAMES[i % 4] for i in range(16)]
        datasets.Dataset.from_dict({"image": plain, "label": labels}).save_to_disk(path)
    found = read(path, test_split="")
    order = np.argsort(greys(found)) if form == "folders" else np.arange(16)
    assert greys(found.take(order)) == greys(expected)
    assert found.labels[order].tolist() == expected.labels.tolist()


def test_a_data_set_of_the_hub_is_found_in_the_cache(parquet, tmp_path, monkeypatch):
    import huggingface_hub.constants

    for constants in (datasets.config, huggingface_hub.constants):
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    datasets.load_dataset(str(parquet))
    (tmp_path / "cache" / "birds").rename(tmp_path / "cache" / "owner___birds")
    assert len(read("owner/birds")) == len(read("owner/birds:default")) == 24
    with pytest.raises(errors.InputError, match="cannot be opened by datasets: .*owner/others"):
        read("owner/others")


def test_a_stream_goes_on_with_the_same_bits(parquet):
    found = read(parquet)
    again = pickle.loads(pickle.dumps(found))  # as a worker process gets it

    def batches(dataset, first):
        def draw(step):
            return np.random.default_rng(step).integers(0, 24, 6)

        stream = batch_loading.stream(dataset, draw, first_step=first, steps=4, workers=0)
        taken = list(stream)
        stream.close()
        return taken

    for whole, rest in zip(batches(found, 0)[2:], batches(again, 2), strict=True):
        assert all(np.array_equal(x, y) for x, y in zip(whole, rest, strict=True))


def test_images_are_tried_once(parquet, tmp_path, monkeypatch):
    kept = {"index_dir": str(tmp_path / "index")}
    first = read(parquet, **kept)
    monkeypatch.setattr(image_checks, "_fault", None)
    assert data.fingerprints(read(parquet, **kept)) == data.fingerprints(first)


def test_images_that_could_not_be_read_are_tried_again(parquet, tmp_path, monkeypatch):
    kept = {"index_dir": str(tmp_path / "index"), "bad_images": "skip"}
    with monkeypatch.context() as patched:  # as HEIC without its package
        patched.setattr(image_checks, "_fault", lambda _, i, __: "" if i != 5 else "needs more")
        assert len(read(parquet, **kept)) == 23
    found = read(parquet, **kept)
    assert len(found) == 24 and not found.notes
    monkeypatch.setattr(image_checks, "_fault", None)
    assert len(read(parquet, **kept)) == 24, "it is kept that all can be read"


def test_images_that_cannot_be_read_are_refused_or_skipped(tmp_path):
    images_ = rows(range(8))["image"]
    images_[3], images_[5] = {"bytes": b"no image", "path": None}, None
    made(range(8), image=images_).save_to_disk(tmp_path / "x")
    with pytest.raises(
        errors.InputError, match=r"(?s)2 of 8 .*train, row 3: it is none of.*row 5: is empty"
    ):
        read(tmp_path / "x", test_split="")
    found = read(tmp_path / "x", test_split="", bad_images="skip")
    assert greys(found) == [0, 10, 20, 40, 60, 70]
    assert "train, row 3" in found.notes[-1]


def refusing(tmp_path, message, *, path="", columns=None, **changes):
    if not path:
        made(range(8), **changes).save_to_disk(tmp_path / "x")
    with pytest.raises(errors.InputError, match=message):
        read(path or tmp_path / "x", test_split="", columns=columns)


def test_what_makes_no_data_set_is_refused(tmp_path):
    two = FEATURES | {"other": datasets.Image()}
    more = {"features": datasets.Features(two), "other": rows(range(8))["image"]}
    refusing(tmp_path, "does not say which is the image: .* Name one of these by image=", **more)
    refusing(tmp_path, "has no images in image='camera'", columns=data.Columns(image="camera"))
    refusing(tmp_path, r"lacks the columns \['species'\]", columns=data.Columns(label="species"))
    refusing(tmp_path, "1 of 8 rows of the split 'train' have no 'label'", label=[-1, *[0] * 7])
    refusing(tmp_path, "1 of 8 rows .* have no 'label', first row 7", label=[*[0] * 7, None])
    nan = {"features": datasets.Features(FEATURES | {"label": datasets.Value("float64")})}
    refusing(tmp_path, "1 of 8 .* have no 'label'", label=[float("nan"), *[0.0] * 7], **nan)
    refusing(tmp_path, "is no folder or file", path="/not/there")
    refusing(tmp_path, "is no folder or file", path="../x/y")
    with pytest.raises(errors.InputError, match="has no split 'valid', but train"):
        read(tmp_path / "x", split_by="official", validation_split="valid", test_split="train")


def test_damage_is_refused(parquet):
    file = parquet / "train-00000-of-00001.parquet"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(errors.InputError, match="cannot be opened by datasets: .*[Pp]arquet"):
        read(parquet)


def test_the_message_without_the_library_names_the_extra(parquet, monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(errors.InputError, match=r"pip install 'triplet_jax\[huggingface\]'"):
        read(parquet)
