"""The benchmarks of image retrieval, from the folders in which they are published.

Each reader takes the split that papers use and compares the numbers of images and classes with the
published ones, since half a download gives a score that nobody can compare.
"""

import collections
import pathlib
import re
from collections.abc import Callable
from typing import NamedTuple

from triplet_jax import errors
from triplet_jax.data import image_rows
from triplet_jax.data.dataset import Dataset
from triplet_jax.data.file_names import some
from triplet_jax.data.image_rows import Rows
from triplet_jax.data.images import ImageForm
from triplet_jax.data.splits import HeldOut
from triplet_jax.runs import files


class Part(NamedTuple):
    """How many images and classes a split of a benchmark has."""

    images: int
    classes: int


class Benchmark(NamedTuple):
    """A published data set: how its folder is read, and what must be found in it."""

    read: Callable[[pathlib.Path], Rows]
    parts: dict[str, Part]
    """By the name of each split."""
    images: str = ""
    """The folder, below the given one, that paths are relative to."""


def benchmark(
    name: str,
    path: str,
    *,
    form: ImageForm,
    held_out: HeldOut,
    bad_images: str,
    parts: dict[str, Part] | None = None,
) -> Dataset:
    """A benchmark by the split that papers use.

    * cub200: CUB-200-2011 (Wah et al. 2011, https://authors.library.caltech.edu/27452/), the first
      100 classes to train and the other 100 to test, as in Oh Song et al. 2016,
      https://arxiv.org/abs/1511.06452
    * cars196: Cars196 (Krause et al. 2013, https://doi.org/10.1109/ICCVW.2013.77), from the folder
      car_ims and cars_annos.mat, the first 98 classes to train and the other 98 to test, as in Oh
      Song et al. 2016; `test` in the annotations is of another task
    * sop: Stanford Online Products, of the same paper: products of eBay, none in both splits
    * inshop: In-Shop Clothes Retrieval of DeepFashion (Liu et al. 2016,
      https://doi.org/10.1109/CVPR.2016.124), queries and gallery
    * market1501: Market-1501 (Zheng et al. 2015, https://doi.org/10.1109/ICCV.2015.133), queries
      and gallery, with the camera as group; junk images, whose name begins with -1, are left out,
      and the distractors 0000 are a class of the gallery

    No benchmark has a validation split. A share of the training classes is held out for it, where
    `held_out.validation` is above 0.

    Args:
      name: one of `BENCHMARKS`.
      path: its folder, as it is unpacked.
      form: what every image is brought to when it is read.
      held_out: how much of the training split validates.
      bad_images: whether to "refuse" or to "skip" files that cannot be read as images; a note
        says which were skipped. Files that are not there are refused in any case.
      parts: the numbers to expect; None for the published ones.

    Raises:
      InputError: the folder has another layout, other numbers of images or classes, or lacks an
        image; or a file cannot be read as an image.
    """
    errors.check_known("name", name, BENCHMARKS)
    found, top = BENCHMARKS[name], pathlib.Path(path)
    if not path or not top.is_dir():
        raise errors.InputError(f"path={path!r} is not a folder. Give the folder of {name}.")
    rows = found.read(top)
    _check_parts(name, path, rows, parts or found.parts)
    _check_there(name, path, top / found.images, rows)
    return image_rows.of_files(
        rows,
        source=path,
        root=top / found.images,
        form=form,
        split_by="official",
        held_out=held_out,
        bad_images=bad_images,
    )


def _check_parts(name, path, rows, expected):
    classes = collections.defaultdict(collections.Counter)
    for split, label in zip(rows.splits, rows.labels, strict=True):
        classes[split][label] += 1
    wrong = []
    for split in sorted(expected | classes):
        part = expected.get(split, Part(0, 0))
        counts = Part(classes[split].total(), len(classes[split]))
        if counts != part:
            wrong.append(
                f"{split} has {counts.images:,} images of {counts.classes:,} classes instead of"
                f" {part.images:,} of {part.classes:,}"
            )
    if wrong:
        raise errors.InputError(
            f"path={path!r} does not hold {name} as it is published: {'; '.join(wrong)}. Unpack it"
            " anew."
        )


def _check_there(name, path, root, rows):
    lost = [image for image in rows.paths if not files.is_file(root / image)]
    if lost:
        raise errors.InputError(
            f"path={path!r}: {len(lost):,} of {len(rows.paths):,} images of {name} are not there:"
            f" {some(lost)}. Unpack it anew."
        )


def _lines(top: pathlib.Path, name: str, fields: int, skip: int = 0) -> list[list[str]]:
    """The words of each line of a list of files."""
    path = top / name
    if not path.is_file():
        raise errors.InputError(f"path={str(top)!r} lacks the file {name}.")
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()[skip:]
    rows = [line.split() for line in lines if line.strip()]
    for number, words in enumerate(rows, 1 + skip):
        if len(words) != fields:
            raise errors.InputError(
                f"path={str(top)!r}: line {number} of {name} has {len(words)} words instead of"
                f" {fields}."
            )
    return rows


def _cub200(top):
    paths = [path for _, path in _lines(top, "images.txt", 2)]
    labels = [path.split("/")[0] for path in paths]
    numbers = [label.split(".")[0] for label in labels]
    odd = [label for label, number in zip(labels, numbers, strict=True) if not number.isdecimal()]
    if odd:
        raise errors.InputError(
            f"path={str(top)!r}: images.txt names the folder {odd[0]!r}, which begins with no"
            " number."
        )
    return Rows(paths, labels, ["train" if int(number) <= 100 else "test" for number in numbers])


def _cars196(top):
    path = top / "cars_annos.mat"
    if not path.is_file():
        raise errors.InputError(f"path={str(top)!r} lacks the file {path.name}.")
    import scipy.io

    try:
        content = scipy.io.loadmat(path, squeeze_me=True)
        cars, names = (content[name].ravel() for name in ("annotations", "class_names"))
        paths = [str(name) for name in cars["relative_im_path"]]
        numbers = [int(number) for number in cars["class"]]
    except Exception as error:  # scipy raises many kinds for a file that is damaged
        errors.check_answers(error)
        raise errors.InputError(
            f"path={str(top)!r}: {path.name} cannot be read as the annotations of Cars196:"
            f" {type(error).__name__}: {error}. Download it anew."
        ) from error
    odd = [i for i, number in enumerate(numbers) if not 1 <= number <= len(names)]
    if odd:
        raise errors.InputError(
            f"path={str(top)!r}: {path.name} gives {paths[odd[0]]} the class {numbers[odd[0]]}, and"
            f" has the names of {len(names)} classes."
        )
    return Rows(
        paths,
        [str(names[number - 1]) for number in numbers],
        ["train" if number <= 98 else "test" for number in numbers],
    )


def _sop(top):
    paths, labels, categories, splits = [], [], [], []
    for split in ("train", "test"):
        for _, label, category, path in _lines(top, f"Ebay_{split}.txt", 4, skip=1):
            paths.append(path)
            labels.append(label)
            categories.append(category)
            splits.append(split)
    return Rows(paths, labels, splits, categories=categories)


def _inshop(top):
    lines = _lines(top, "Eval/list_eval_partition.txt", 3, skip=2)
    return Rows(*map(list, zip(*lines, strict=True))) if lines else Rows([], [], [])


_OF_MARKET = {"bounding_box_train": "train", "query": "query", "bounding_box_test": "gallery"}
_NAME_OF_MARKET = re.compile(r"(-1|[0-9]{4})_c([0-9])")


def _market1501(top):
    rows = Rows([], [], [], [])
    for folder, split in _OF_MARKET.items():
        if not (top / folder).is_dir():
            raise errors.InputError(f"path={str(top)!r} lacks the folder {folder}.")
        for file in sorted((top / folder).glob("*.jpg")):
            known = _NAME_OF_MARKET.match(file.name)
            if not known:
                raise errors.InputError(
                    f"path={str(top)!r}: {folder}/{file.name} is no name of Market-1501, such as"
                    " 0002_c1s1_000451_03.jpg."
                )
            if known[1] != "-1":
                rows.paths.append(f"{folder}/{file.name}")
                rows.labels.append(known[1])
                rows.splits.append(split)
                rows.groups.append(f"camera {known[2]}")
    return rows


BENCHMARKS = {
    "cub200": Benchmark(
        _cub200, {"train": Part(5_864, 100), "test": Part(5_924, 100)}, images="images"
    ),
    "cars196": Benchmark(_cars196, {"train": Part(8_054, 98), "test": Part(8_131, 98)}),
    "sop": Benchmark(_sop, {"train": Part(59_551, 11_318), "test": Part(60_502, 11_316)}),
    "inshop": Benchmark(
        _inshop,
        {
            "train": Part(25_882, 3_997),
            "query": Part(14_218, 3_985),
            "gallery": Part(12_612, 3_985),
        },
    ),
    "market1501": Benchmark(
        _market1501,
        {"train": Part(12_936, 751), "query": Part(3_368, 750), "gallery": Part(15_913, 751)},
    ),
}
