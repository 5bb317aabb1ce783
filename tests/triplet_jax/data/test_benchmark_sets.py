"""Benchmarks, in small folders of the layouts in which they are published, and in damaged ones."""

import shutil

import numpy as np
import PIL.Image
import pytest
import scipy.io

from triplet_jax import data, errors
from triplet_jax.data import images
from triplet_jax.data.benchmark_sets import Part


def image(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    PIL.Image.fromarray(np.full((6, 6, 3), 99, np.uint8)).save(path)


def cub200(top):
    names = [f"{c:03}.Bird_{c}/Bird_{c}_{i}.jpg" for c in (1, 100, 101, 200) for i in range(3)]
    for name in names:
        image(top / "images" / name)
    text = "\n".join(f"{number} {name}" for number, name in enumerate(names, 1))
    (top / "images.txt").write_text(text + "\n")
    return {"train": Part(6, 2), "test": Part(6, 2)}


def cars196(top, classes=(1, 98, 99, 196), names=196):
    """`test` is that of the classification task, and the classes are numbered from 1."""
    fields = ["relative_im_path", "bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2", "class", "test"]
    cars = np.zeros((1, 3 * len(classes)), [(name, object) for name in fields])
    for i in range(cars.size):
        path = f"car_ims/{i + 1:06}.jpg"
        image(top / path)
        cars[0, i] = (path, 1, 1, 5, 5, classes[i % len(classes)], i % 2)
    class_names = np.array([[f"Make Model {c} 2012" for c in range(1, names + 1)]], object)
    scipy.io.savemat(
        top / "cars_annos.mat",
        {"annotations": cars, "class_names": class_names},
        do_compression=True,
    )
    return {"train": Part(6, 2), "test": Part(6, 2)}


def sop(top):
    for split, classes in (("train", (1, 2, 3)), ("test", (4, 5))):
        lines = ["image_id class_id super_class_id path"]
        for c in classes:
            for i in range(2):
                path = f"{'bicycle' if c % 2 else 'chair'}_final/{c}_{i}.JPG"
                image(top / path)
                lines.append(f"{len(lines)} {c} {1 + c % 2} {path}")
        (top / f"Ebay_{split}.txt").write_text("\n".join(lines) + "\n")
    return {"train": Part(6, 3), "test": Part(4, 2)}


def inshop(top):
    rows = [("train", c, i) for c in range(3) for i in range(2)]
    rows += [(role, c, i) for c in (3, 4) for i, role in enumerate(("query", "gallery", "gallery"))]
    lines = [str(len(rows)), "image_name item_id evaluation_status"]
    for split, c, i in rows:
        path = f"img/WOMEN/Dresses/id_{c:08}/{i:02}_front.jpg"
        image(top / path)
        lines.append(f"{path}     id_{c:08} {split}")
    (top / "Eval").mkdir()
    (top / "Eval" / "list_eval_partition.txt").write_text("\n".join(lines) + "\n")
    return {"train": Part(6, 3), "query": Part(2, 2), "gallery": Part(4, 2)}


def market1501(top):
    for folder, people in (
        ("bounding_box_train", ("0002", "0007")),
        ("query", ("0001", "0003")),
        ("bounding_box_test", ("0001", "0003", "0000", "-1")),
    ):
        for person in people:
            for camera in (1, 4):
                image(top / folder / f"{person}_c{camera}s1_000451_03.jpg")
        (top / folder / "Thumbs.db").write_text("as it is published")
    return {"train": Part(4, 2), "query": Part(4, 2), "gallery": Part(6, 3)}


MADE = {
    "cub200": cub200,
    "cars196": cars196,
    "sop": sop,
    "inshop": inshop,
    "market1501": market1501,
}
LISTS = {
    "cub200": "images.txt",
    "sop": "Ebay_test.txt",
    "inshop": "Eval/list_eval_partition.txt",
}


def read(name, top, parts, validation=0.0, bad_images="refuse"):
    return data.benchmark(
        name,
        str(top),
        form=images.ImageForm(size=4, channels=3),
        held_out=data.HeldOut(0.0, validation, seed=0),
        bad_images=bad_images,
        parts=parts,
    )


@pytest.mark.parametrize("name", data.BENCHMARKS)
def test_a_benchmark_is_read_by_the_split_of_papers(name, tmp_path):
    parts = MADE[name](tmp_path)
    found = read(name, tmp_path, parts)
    assert (found.split == "train").sum() == parts["train"].images
    train, test = (set(found.only(split).labels) for split in ("train", "test"))
    assert not train & test, "classes of the test are new"
    if "query" in parts:
        assert found.is_query.sum() == parts["query"].images
        assert (found.split[found.is_query] == "test").all()
        assert (found.split == "test").sum() == parts["query"].images + parts["gallery"].images
    else:
        assert found.is_query is None
    assert found.inputs[0].shape == (4, 4, 3)
    validated = read(name, tmp_path, parts, validation=0.5)
    assert set(validated.only("validation").labels) < train


def test_what_else_is_known_comes_along(tmp_path):
    products = read("sop", tmp_path / "sop", sop(tmp_path / "sop"))
    assert products.groups.tolist() == [1, 0, 1, 0, 1]  # 2 1 2 1 2 of the classes 1 to 5
    people = read("market1501", tmp_path / "market", market1501(tmp_path / "market"))
    assert set(people.sessions) == {"camera 1", "camera 4"}
    assert "-1" not in people.class_names and "0000" in people.class_names


@pytest.mark.parametrize("name", data.BENCHMARKS)
def test_an_image_too_few_is_named(name, tmp_path):
    parts = MADE[name](tmp_path)
    lost = sorted(tmp_path.rglob("*.[jJ][pP][gG]"))[-1]
    lost.unlink()
    # Market-1501 has no list of its files.
    said = "query has 3 images of 2 classes instead of 4" if name == "market1501" else lost.name
    for bad_images in ("refuse", "skip"):
        with pytest.raises(errors.InputError, match=said):
            read(name, tmp_path, parts, bad_images=bad_images)


def test_an_image_that_was_skipped_is_noted(tmp_path):
    parts = cub200(tmp_path)
    bad = sorted(tmp_path.rglob("*.jpg"))[-1]
    bad.write_text("no image")
    found = read("cub200", tmp_path, parts, bad_images="skip")
    assert len(found) == sum(part.images for part in parts.values()) - 1
    assert bad.name in found.notes[-1]


@pytest.mark.parametrize("name", LISTS)
def test_a_list_that_is_lost_cut_or_longer_is_named(name, tmp_path):
    parts = MADE[name](tmp_path)
    path = tmp_path / LISTS[name]
    lines = path.read_text().splitlines()
    path.write_text("\n".join(lines[:-1]) + "\n")
    with pytest.raises(
        errors.InputError, match=f"does not hold {name} as it is published: .* inst"
    ):
        read(name, tmp_path, parts)
    path.write_text("\n".join([*lines[:-1], lines[-1].split()[0]]) + "\n")
    with pytest.raises(errors.InputError, match=f"line {len(lines)} of .* has 1 words instead of"):
        read(name, tmp_path, parts)
    path.unlink()
    with pytest.raises(errors.InputError, match=f"lacks the file {LISTS[name]}"):
        read(name, tmp_path, parts)


def test_annotations_of_cars_that_are_lost_damaged_or_of_other_classes_are_named(tmp_path):
    parts = cars196(tmp_path)
    found = read("cars196", tmp_path, parts)
    assert set(found.only("test").names) == {f"car_ims/{i:06}.jpg" for i in (3, 4, 7, 8, 11, 12)}
    assert "Make Model 98 2012" in found.class_names
    cars196(tmp_path, classes=(1, 2, 99, 100, 101))
    with pytest.raises(errors.InputError, match="test has 9 images of 3 classes instead of 6 of 2"):
        read("cars196", tmp_path, parts)
    cars196(tmp_path, classes=(1, 98, 99, 197))
    with pytest.raises(errors.InputError, match="gives car_ims/000004.jpg the class 197, and has"):
        read("cars196", tmp_path, parts)
    annotations = tmp_path / "cars_annos.mat"
    annotations.write_bytes(annotations.read_bytes()[:300])
    with pytest.raises(errors.InputError, match="cars_annos.mat cannot be read as the annotations"):
        read("cars196", tmp_path, parts)
    scipy.io.savemat(annotations, {"class_names": np.zeros(3)})
    with pytest.raises(errors.InputError, match="cannot be read as .* KeyError: 'annotations'"):
        read("cars196", tmp_path, parts)
    annotations.unlink()
    with pytest.raises(errors.InputError, match="lacks the file cars_annos.mat"):
        read("cars196", tmp_path, parts)


def test_a_folder_of_birds_without_a_number_is_named(tmp_path):
    parts = cub200(tmp_path)
    lines = (tmp_path / "images.txt").read_text().replace("101.Bird_101/", "Wren/")
    (tmp_path / "images.txt").write_text(lines)
    with pytest.raises(errors.InputError, match="images.txt names the folder 'Wren', which begins"):
        read("cub200", tmp_path, parts)


def test_splits_that_are_exchanged_are_named(tmp_path):
    parts = sop(tmp_path)
    train, test = tmp_path / "Ebay_train.txt", tmp_path / "Ebay_test.txt"
    contents = train.read_text(), test.read_text()
    for file, text in zip((test, train), contents, strict=True):
        file.write_text(text)
    with pytest.raises(errors.InputError, match="test has 6 images of 3 classes instead of 4 of 2"):
        read("sop", tmp_path, parts)


def test_folders_and_names_that_are_not_of_market_are_named(tmp_path):
    parts = market1501(tmp_path)
    image(tmp_path / "query" / "ann.jpg")
    with pytest.raises(errors.InputError, match=r"query/ann.jpg is no name of Market-1501"):
        read("market1501", tmp_path, parts)
    shutil.rmtree(tmp_path / "query")
    with pytest.raises(errors.InputError, match="lacks the folder query"):
        read("market1501", tmp_path, parts)


def test_a_part_of_a_download_is_refused_by_the_published_numbers(tmp_path):
    cub200(tmp_path)
    with pytest.raises(
        errors.InputError, match="train has 6 images of 2 .* instead of 5,864 of 100"
    ):
        read("cub200", tmp_path, parts=None)
    with pytest.raises(errors.InputError, match="is not a folder. Give the folder of cub200"):
        read("cub200", tmp_path / "nowhere", parts=None)
