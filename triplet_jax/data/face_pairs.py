"""The pairs of Labeled Faces in the Wild, from the file pairs.txt as it is published."""

import pathlib
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int

from triplet_jax import errors
from triplet_jax.data.file_names import some
from triplet_jax.runs import files


class PairCounts(NamedTuple):
    """How many folds a file of pairs has, and how many pairs of each kind a fold has."""

    folds: int
    of_each_kind: int


PUBLISHED = PairCounts(10, 300)


class FacePairs(NamedTuple):
    """Pairs of images; `evaluation.verification_of_pairs` takes all fields but the first."""

    images: list[str]
    """Each image once, such as "Abel_Pacheco/Abel_Pacheco_0001.jpg"."""
    pairs: Int[np.ndarray, "rows 2"]
    """The positions of both images of a pair."""
    is_same: Bool[np.ndarray, "rows"]
    folds: Int[np.ndarray, "rows"]


def lfw_pairs(path: str, *, root: str = "", parts: PairCounts = PUBLISHED) -> FacePairs:
    """Reads the pairs by which Labeled Faces in the Wild is judged.

    The file is the pairs.txt of View 2 (Huang et al. 2007,
    https://people.cs.umass.edu/~elm/papers/lfw.pdf). Its first line has the number of folds and of
    pairs of each kind. A fold has first the pairs of one person, NAME N M, and then those of two,
    NAME N OTHER M, where N and M number the images of a person from 1: image N of NAME is
    NAME/NAME_000N.jpg.

    Args:
      path: the file.
      root: the folder of the images, which must all be there; "" to look for none.
      parts: the numbers to expect; those of the published file by default.

    Raises:
      InputError: the file or an image is not there, the first line has other numbers, a line is no
        pair, or a fold has too few or too many.

    Example:
      >>> import pathlib, tempfile
      >>> from triplet_jax import data
      >>> path = pathlib.Path(tempfile.mkdtemp(), "pairs.txt")
      >>> _ = path.write_text("1 1\\nAnn 1 2\\nAnn 1 Bob 3\\n")
      >>> found = data.lfw_pairs(str(path), parts=data.PairCounts(folds=1, of_each_kind=1))
      >>> print(found.images, found.pairs.tolist(), found.is_same.tolist())
      ['Ann/Ann_0001.jpg', 'Ann/Ann_0002.jpg', 'Bob/Bob_0003.jpg'] [[0, 1], [0, 2]] [True, False]
    """
    file = pathlib.Path(path)
    if not path or not file.is_file():
        raise errors.InputError(f"path={path!r} is not a file. Give the file pairs.txt of LFW.")
    lines = file.read_text(encoding="utf-8", errors="replace").split("\n")
    words = [line.split() for line in lines]
    while words and not words[-1]:
        words.pop()
    if not words or words[0] != [str(number) for number in parts]:
        raise errors.InputError(
            f"path={path!r}: line 1 is {lines[0].strip()!r} instead of '{parts.folds}"
            f" {parts.of_each_kind}', the numbers of folds and of pairs of each kind. Download the"
            " file of View 2 anew."
        )
    found: dict[str, int] = {}
    pairs, is_same, folds = [], [], []
    position = 1
    for fold in range(parts.folds):
        for kind, length in (("one person", 3), ("two people", 4)):
            for number in range(parts.of_each_kind):
                line = words[position] if position < len(words) else []
                if len(line) != length:
                    raise errors.InputError(
                        f"path={path!r}: fold {fold + 1} has {number} pairs of {kind} instead of"
                        f" {parts.of_each_kind}: line {position + 1} is {' '.join(line)!r}."
                        " Download the file anew."
                    )
                both = _images(line, f"path={path!r}: line {position + 1}")
                pairs.append([found.setdefault(image, len(found)) for image in both])
                is_same.append(length == 3)
                folds.append(fold)
                position += 1
    if position < len(words):
        raise errors.InputError(
            f"path={path!r} has {len(words) - position} lines after the last of"
            f" {parts.folds} folds, from line {position + 1} on. Download the file anew."
        )
    _check_there(root, list(found))
    return FacePairs(
        list(found), np.array(pairs, int), np.array(is_same, bool), np.array(folds, int)
    )


def _images(words, where):
    """Both images of a line."""
    of_two = len(words) == 4
    names = (words[0], words[2]) if of_two else (words[0], words[0])
    numbers = words[1::2] if of_two else words[1:]
    if not all(number.isdecimal() and int(number) > 0 for number in numbers):
        raise errors.InputError(
            f"{where} is {' '.join(words)!r}, where {' and '.join(numbers)} must be the numbers of"
            " images, from 1."
        )
    both = [
        f"{name}/{name}_{int(number):04}.jpg" for name, number in zip(names, numbers, strict=True)
    ]
    if both[0] == both[1] or (of_two and names[0] == names[1]):
        what = "an image with itself" if both[0] == both[1] else "one person as two"
        raise errors.InputError(f"{where} is {' '.join(words)!r}, which compares {what}.")
    return both


def _check_there(root, images):
    if not root:
        return
    if not pathlib.Path(root).is_dir():
        raise errors.InputError(f"root={root!r} is not a folder. Give the folder of the images.")
    lost = [image for image in images if not files.is_file(pathlib.Path(root, image))]
    if lost:
        raise errors.InputError(
            f"root={root!r} lacks {len(lost)} of {len(images)} images of the pairs: {some(lost)}."
        )
