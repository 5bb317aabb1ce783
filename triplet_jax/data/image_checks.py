"""Which images of a data set can be read."""

import dataclasses
import pathlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from jaxtyping import Int, Shaped

from triplet_jax import errors
from triplet_jax.data import decoding
from triplet_jax.data.decoding import SUFFIXES
from triplet_jax.data.file_names import to_text

BAD_IMAGES = ("refuse", "skip")
_SHOWN = 20


@dataclasses.dataclass(frozen=True)
class Faults:
    """The images that cannot be read.

    Args:
      positions: where they are among all images.
      names: what each of them is called.
      reasons: why each of them cannot be read.
    """

    positions: Int[np.ndarray, "images"]
    names: Shaped[np.ndarray, "images"]
    reasons: Shaped[np.ndarray, "images"]

    @classmethod
    def of(
        cls,
        encoded: Sequence[bytes | str],
        name_of: Callable[[int], str],
        max_pixels: int,
        *,
        among: Sequence[int] | None = None,
    ) -> "Faults":
        """Decodes every image once, a JPEG at an eighth of its size, to find those that fail.

        Args:
          encoded: the images, each as `ImageForm.read` takes it.
          name_of: gives what the image at a position is called.
          max_pixels: an image of more pixels cannot be read.
          among: the positions of the images that are tried; None for all.
        """
        tried = range(len(encoded)) if among is None else among
        size = min(256, 1 + len(tried) // 64)  # a million tasks at once would fill the memory

        def of_block(start):
            block = tried[start : start + size]
            return {i: why for i in block if (why := _fault(encoded, i, max_pixels))}

        found: dict[int, str] = {}
        with ThreadPoolExecutor() as threads:
            for faults in threads.map(of_block, range(0, len(tried), size)):
                found |= faults
        return cls(
            np.array(list(found), np.int64),
            np.array([name_of(i) for i in found], str),
            np.array(list(found.values()), str),
        )

    def tried_again(self, encoded: Sequence[bytes | str], max_pixels: int) -> "Faults":
        """Those that still cannot be read, such as after a package was installed.

        Args:
          encoded: all images, as in `of`.
          max_pixels: as in `of`.
        """
        names = dict(zip(self.positions.tolist(), self.names.tolist(), strict=True))
        return Faults.of(encoded, names.__getitem__, max_pixels, among=list(names))

    def check(self, images: int, bad_images: str) -> None:
        """Refuses these images, unless they are skipped.

        Args:
          images: how many there are in all, including those that can be read.
          bad_images: whether to "refuse" or to "skip" them.

        Raises:
          InputError: there is one, and `bad_images` is "refuse".
        """
        errors.check_known("bad_images", bad_images, BAD_IMAGES)
        number = len(self.positions)
        if not number or bad_images == "skip":
            return
        pairs = zip(self.names[:_SHOWN].tolist(), self.reasons[:_SHOWN].tolist(), strict=True)
        lines = [f"  {to_text(name)}: {why}" for name, why in pairs]
        lines += [f"  ... and {number - _SHOWN} more"] if number > _SHOWN else []
        raise errors.InputError(
            f"{number} of {images} files cannot be read as images:\n"
            + "\n".join(lines)
            + "\nRemove them, or set bad_images='skip' to leave them out."
        )


def keep_images(
    files: Sequence[pathlib.Path],
    bad_images: str,
    *,
    max_pixels: int = decoding.MAX_PIXELS,
) -> list[pathlib.Path]:
    """Keeps the files that can be read as images.

    Every file is decoded once, a JPEG at an eighth of its size, so that a truncated file is found
    now and not in the middle of a run.

    Args:
      files: the files to try.
      bad_images: whether to "refuse" or to "skip" files that cannot be read.
      max_pixels: an image of more pixels cannot be read.

    Raises:
      InputError: a file cannot be read, and `bad_images` is "refuse".
    """
    faults = Faults.of([str(file) for file in files], lambda i: str(files[i]), max_pixels)
    faults.check(len(files), bad_images)
    bad = set(faults.positions.tolist())
    return [file for i, file in enumerate(files) if i not in bad]


def _fault(encoded: Sequence[bytes | str], position: int, max_pixels: int) -> str:
    """Why an image cannot be read; "" if it can."""
    try:
        image = encoded[position]
        if not image:
            return "is empty"
        if isinstance(image, str) and pathlib.Path(image).suffix.lower() not in SUFFIXES:
            return f"is no {', '.join(SUFFIXES)} file"
        decoding.decode(image, least=1, background=255, max_pixels=max_pixels)
    except errors.InputError as error:
        return str(error)
    return ""
