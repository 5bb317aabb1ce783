"""Tar shards, beside the library whose layout they have, and what of them is refused."""

import gzip
import io
import json
import pathlib
import tarfile

import numpy as np
import PIL.Image
import pytest

from triplet_jax import data, errors
from triplet_jax.data import batch_loading, image_checks, images, shard_samples, tar_members

FORM = images.ImageForm(size=4, channels=1)
SOME = data.HeldOut(test=0.25, validation=0.2, seed=0)


def encoded(value, kind="png"):
    file = io.BytesIO()
    PIL.Image.fromarray(np.full((6, 6), value, np.uint8)).save(file, kind)
    return file.getvalue()


def pack(path, members):
    """Writes a tar shard of the members, (name, bytes) each."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as shard:
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            shard.addfile(member, io.BytesIO(content))
    return path


def sample(number, **members):
    """A sample as members: an image of grey level 10 * number, and others."""
    found = {"png": encoded(10 * number)} | members
    return [(f"{number:04d}.{name}", content) for name, content in found.items()]


def numbered(path, numbers):
    """A shard of samples of four classes."""
    return pack(path, [m for i in numbers for m in sample(i, cls=str(i % 4).encode())])


def read(path, *, split_by="image", **settings):
    given = {"form": FORM, "held_out": SOME, "bad_images": "refuse"} | settings
    return data.from_webdataset(str(path), split_by=split_by, **given)


def greys(found):
    return [int(found.inputs[i][0, 0, 0]) for i in range(len(found))]


# The library leaves its files to be closed by the garbage collector.
LEAVES_OPEN = pytest.mark.filterwarnings(
    "ignore:unclosed file:ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)


@pytest.fixture
def shards(tmp_path):
    for number in range(3):
        numbered(tmp_path / f"part-{number}.tar", range(8 * number, 8 * number + 8))
    return tmp_path


@LEAVES_OPEN
def test_shards_of_the_library_give_its_samples(tmp_path):
    webdataset = pytest.importorskip("webdataset")
    pattern = str(tmp_path / "part-%02d.tar")
    with webdataset.ShardWriter(pattern, maxcount=7, verbose=0) as sink:
        for i in range(20):
            sink.write({"__key__": f"{i:04d}", "png": encoded(10 * i), "cls": i % 4})
    paths = sorted(map(str, tmp_path.glob("*.tar")))
    theirs = list(webdataset.WebDataset(paths, shardshuffle=False).decode("l8"))
    ours = read(tmp_path)
    assert len(theirs) == 20
    assert greys(ours) == [int(x["png"][0, 0]) for x in theirs]
    assert [ours.class_names[c] for c in ours.labels] == [str(x["cls"]) for x in theirs]


NAMES = (
    "a/b.c/0.left.PNG",
    "a/b.c/0.cls",
    "a/b.c/00.png",
    "x.y/1.json",
    "plain",
    "__meta__",
    "__other__/x.png",
    ".hidden",
    "dir/.x",
    "2.tar.gz",
    "__3.png",
)


@LEAVES_OPEN
def test_members_make_samples_as_in_the_library(tmp_path):
    webdataset = pytest.importorskip("webdataset")
    shard = pack(tmp_path / "x.tar", [(name, b"1") for name in NAMES])
    theirs = webdataset.WebDataset([str(shard)], shardshuffle=False)
    expected = [(x["__key__"], [n for n in x if not n.startswith("__")]) for x in theirs]
    assert [(key, list(found)) for key, found in shard_samples.samples(str(shard))] == expected


def test_a_file_and_a_pattern_name_some_of_the_shards(shards):
    assert len(read(shards)) == 24
    assert greys(read(shards / "part-1.tar")) == list(range(80, 160, 10))
    assert len(read(shards / "part-[01].tar")) == 16


def test_the_class_may_stand_in_json_or_be_the_folder(tmp_path):
    facts = [{"label": ["cat", "dog"][i // 2 % 2], "camera": i % 2} for i in range(8)]
    members = [m for i in range(8) for m in sample(i, json=json.dumps(facts[i]).encode())]
    pack(tmp_path / "json.tar", members)
    columns = data.Columns(group="camera")
    found = read(tmp_path / "json.tar", split_by="group", columns=columns)
    assert [found.class_names[c] for c in found.labels] == [f["label"] for f in facts]
    assert found.sessions.tolist() == [str(f["camera"]) for f in facts]
    pack(tmp_path / "folder.tar", [(f"./kind/{i % 2}/{i}.png", encoded(i)) for i in range(4)])
    found = read(tmp_path / "folder.tar")
    assert found.class_names == ("kind/0", "kind/1")
    assert found.labels.tolist() == [0, 1, 0, 1]


@pytest.mark.parametrize("pattern", ["{}-0.tar", "{}/0.tar", "birds-{}-0.tar"])
def test_the_names_of_shards_are_official_splits(tmp_path, pattern):
    for number, name in enumerate(("train", "val", "test")):
        numbered(tmp_path / pattern.format(name), range(8 * number, 8 * number + 8))
    found = read(tmp_path, split_by="official")
    assert greys(found.only("train")) == list(range(0, 80, 10))
    assert greys(found.only("validation")) == list(range(80, 160, 10))


def test_json_may_hold_the_official_split(tmp_path):
    splits = ["train"] * 4 + ["test"] * 4
    members = [
        m
        for i, split in enumerate(splits)
        for m in sample(i, cls=b"ab"[i % 2 :][:1], json=json.dumps({"split": split}).encode())
    ]
    found = read(pack(tmp_path / "all.tar", members), split_by="official")
    assert greys(found.only("test")) == [40, 50, 60, 70]


def test_a_stream_goes_on_with_the_same_bits(shards):
    found = read(shards)

    def draw(step):
        return np.random.default_rng(step).integers(0, len(found), 6)

    def batches(first):
        stream = batch_loading.stream(found, draw, first_step=first, steps=6, workers=0)
        taken = list(stream)
        stream.close()
        return taken

    whole, rest = batches(0), batches(4)
    assert len(rest) == 2
    for (x, y, at), (x_again, y_again, at_again) in zip(whole[4:], rest, strict=True):
        assert np.array_equal(x, x_again)
        assert np.array_equal(y, y_again)
        assert np.array_equal(at, at_again)


def test_an_index_is_kept_until_a_shard_changes(shards, tmp_path, monkeypatch):
    first = read(shards, index_dir=str(tmp_path / "index"))
    with monkeypatch.context() as patched:
        patched.setattr(shard_samples, "read", None)
        again = read(shards, index_dir=str(tmp_path / "index"))
    assert data.fingerprints(again) == data.fingerprints(first)
    numbered(shards / "part-1.tar", range(4))
    assert len(read(shards, index_dir=str(tmp_path / "index"))) == 20
    for file in (tmp_path / "index").iterdir():
        file.write_bytes(file.read_bytes()[:100])
    assert len(read(shards, index_dir=str(tmp_path / "index"))) == 20, "a damaged index"


def test_images_that_could_not_be_read_are_tried_again(tmp_path, monkeypatch):
    numbered(tmp_path / "part.tar", range(24))
    kept = {"index_dir": str(tmp_path / "index"), "bad_images": "skip"}
    with monkeypatch.context() as patched:  # as HEIC without its package
        patched.setattr(image_checks, "_fault", lambda _, i, __: "" if i != 5 else "needs more")
        assert len(read(tmp_path / "part.tar", **kept)) == 23
    found = read(tmp_path / "part.tar", **kept)
    assert len(found) == 24 and not found.notes
    monkeypatch.setattr(image_checks, "_fault", None)
    assert len(read(tmp_path / "part.tar", **kept)) == 24, "it is kept that all can be read"


def test_images_that_cannot_be_read_are_refused_or_skipped(shards):
    members = sample(25, cls=b"0") + [("0051.png", b"no image"), ("0051.cls", b"1")]
    pack(shards / "part-3.tar", members)
    with pytest.raises(errors.InputError, match=r"1 of 26 .*\n.*part-3.tar: 0051: it is none of"):
        read(shards)
    found = read(shards, bad_images="skip")
    assert len(found) == 25
    assert greys(found)[-1] == 250
    assert "part-3.tar: 0051" in found.notes[-1]


def cut(path):
    numbered(path, range(4))
    path.write_bytes(path.read_bytes()[:3000])


def cut_between_members(path):
    numbered(path, range(4))
    path.write_bytes(path.read_bytes()[: 4 * 1024])


def damaged(path):
    numbered(path, range(4))
    content = bytearray(path.read_bytes())
    content[2 * 1024 : 2 * 1024 + 20] = b"x" * 20
    path.write_bytes(bytes(content))


def compressed(path):
    numbered(path, range(4))
    path.write_bytes(gzip.compress(path.read_bytes()))


def sparse(path):
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as shard:
        member = tarfile.TarInfo("0000.png")
        member.pax_headers = {"GNU.sparse.map": "0,0", "GNU.sparse.size": "9"}
        shard.addfile(member)


def with_members(*members):
    return lambda path: pack(path, [*sample(0, cls=b"0"), *members])


REFUSED = {
    "cut": (cut, "unexpected end of data"),
    "cut between members": (cut_between_members, "damaged or cut short: .* byte 4,096"),
    "damaged": (damaged, "damaged or cut short: .* byte 2,048"),
    "compressed": (compressed, "is compressed, .* `gunzip x.tar`"),
    "sparse": (sparse, "'0000.png' is stored as a sparse file. Pack it without --sparse"),
    "empty": (lambda path: path.write_bytes(b""), "cannot be read as a tar"),
    "no samples": (lambda path: pack(path, []), "holds no samples"),
    "no class": (with_members(*sample(1)), "'0001' has no .cls, where others have"),
    "empty class": (with_members(*sample(1, cls=b" ")), "'0001' has an empty .cls"),
    "class not in UTF-8": (with_members(*sample(1, cls=b"\xff")), r"\.cls that is not in UTF-8"),
    "no image": (with_members(("0001.cls", b"1")), "'0001' has no image, but '.cls'"),
    "two images": (
        with_members(*sample(1, jpg=encoded(1, "jpeg"))),
        "'0001' has 2 images: '.png', '.jpg'. Name one of them, as in image='png'",
    ),
    "a member twice": (with_members(("0000.png", b"")), "'0000.png' is there twice"),
    "a key twice": (
        with_members(*sample(1, cls=b"1"), *sample(0, cls=b"0")),
        "the sample '0000' do not stand one after the other",
    ),
    "no place for a class": (lambda path: pack(path, sample(0)), "has no class: neither a .cls"),
    "json that is none": (
        lambda path: pack(path, sample(0, json=b"{")),
        "'0000' has a .json that is none",
    ),
    "json without names": (lambda path: pack(path, sample(0, json=b"[1]")), "must hold an object"),
    "json without the class": (
        lambda path: pack(path, sample(0, json=b'{"label": 1}') + sample(1, json=b'{"name": 1}')),
        "'0001' needs a text or a whole number 'label' in its .json; there are 'name'",
    ),
    "a class that is none": (
        lambda path: pack(path, sample(0, json=b'{"label": [1]}')),
        r"'label' in its .json; it is \[1\]",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_makes_no_data_set_is_refused(name, tmp_path):
    write, message = REFUSED[name]
    write(tmp_path / "x.tar")
    with pytest.raises(errors.InputError, match=rf"(?s)x\.tar.*{message}"):
        read(tmp_path)


def test_a_shard_that_may_not_be_opened_is_refused(tmp_path):
    with pytest.raises(errors.InputError, match="x.tar cannot be read: No such file"):
        next(tar_members.members(str(tmp_path / "x.tar")))


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("", "holds no .tar files"),
        ("nothing", "holds no .tar files"),
        ("part-{0..2}.tar", r"Write \* in place of {...}"),
    ],
)
def test_paths_without_shards_are_refused(shards, path, message):
    with pytest.raises(errors.InputError, match=message):
        read(shards / path if path else "")


def test_shards_whose_names_are_no_splits_are_refused(shards):
    with pytest.raises(errors.InputError, match="'part-0.tar' must hold the split as one word"):
        read(shards, split_by="official")


def test_a_shard_that_was_cut_since_is_refused(shards):
    found = read(shards)
    shard = pathlib.Path(shards, "part-2.tar")
    shard.write_bytes(shard.read_bytes()[:100])
    with pytest.raises(errors.InputError, match="part-2.tar has become shorter"):
        found.inputs[20]
    shard.unlink()
    with pytest.raises(errors.InputError, match="part-2.tar cannot be read: No such file"):
        found.inputs[20]
