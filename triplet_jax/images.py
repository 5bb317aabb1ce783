"""Images in files: how they are read, and whether a file holds one."""

import dataclasses
import io
import pathlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import PIL.Image
from jaxtyping import Int, UInt8

from triplet_jax import errors
from triplet_jax.file_names import to_text

SUFFIXES = (".jpg", ".jpeg", ".png")
# Whatever a file is named: of other kinds some are given to programs, as PostScript is.
FORMATS = ("JPEG", "PNG")
BAD_IMAGES = ("refuse", "skip")


@dataclasses.dataclass(frozen=True)
class ImageForm:
    """The form that every image of a data set is brought to.

    Args:
      size: height and width in pixels: the square in the middle is cut out and scaled.
      channels: 1 for grey, 3 for colour.
      invert: exchange black and white, so that ink on paper becomes light on dark.
    """

    size: int
    channels: int
    invert: bool = False

    def read(self, encoded: bytes | str) -> UInt8[np.ndarray, "height width channels"]:
        """Decodes a JPEG or PNG, given as its bytes or its path.

        Raises:
          InputError: it is none, or cannot be read.
        """
        file = io.BytesIO(encoded) if isinstance(encoded, bytes) else encoded
        try:
            with PIL.Image.open(file, formats=FORMATS) as image:
                # A JPEG is decoded at the nearest larger size that is cheap.
                image.draft(None, (self.size, self.size))
                image = image.convert("L" if self.channels == 1 else "RGB")
        except Exception as error:  # whatever damage makes Pillow and zlib raise
            name = "an image of the data set" if isinstance(encoded, bytes) else to_text(encoded)
            raise errors.InputError(f"{name} cannot be read as an image: {_why(error)}") from error
        side = min(image.size)
        left, top = ((length - side) / 2 for length in image.size)
        square = (left, top, left + side, top + side)
        image = image.resize((self.size, self.size), PIL.Image.Resampling.BILINEAR, box=square)
        pixels = np.asarray(image).reshape(self.size, self.size, self.channels)
        return 255 - pixels if self.invert else pixels


class Images(Sequence):
    """Images that are decoded when they are read. An array of positions selects some of them."""

    def __init__(self, encoded: Sequence, form: ImageForm, positions=None, turns=None):
        self._encoded = encoded
        self._form = form
        self._positions = np.arange(len(encoded)) if positions is None else positions
        self._turns = np.zeros(len(self._positions), np.int8) if turns is None else turns

    @property
    def form(self) -> ImageForm:
        """What the images are brought to."""
        return self._form

    def __len__(self) -> int:
        return len(self._positions)

    @property
    def shape(self) -> tuple[int, ...]:
        return len(self), self._form.size, self._form.size, self._form.channels

    def __getitem__(self, which):
        if isinstance(which, np.ndarray):
            return Images(self._encoded, self._form, self._positions[which], self._turns[which])
        pixels = self._form.read(self._encoded[int(self._positions[which])])
        return np.rot90(pixels, self._turns[which])

    def turned(self, turns: Int[np.ndarray, "images"]) -> "Images":
        """The same images, each rotated by this many more quarter turns."""
        return Images(self._encoded, self._form, self._positions, self._turns + turns)


def load(inputs: np.ndarray | Images) -> np.ndarray:
    """All inputs as one array in memory, decoded in threads where they are not yet."""
    if isinstance(inputs, np.ndarray):
        return inputs
    with ThreadPoolExecutor() as threads:
        images = list(threads.map(inputs.__getitem__, range(len(inputs)), chunksize=64))
    return np.stack(images) if images else np.zeros(inputs.shape, np.uint8)


def keep_images(
    files: Sequence[pathlib.Path], bad_images: str, *, field: str = "bad_images"
) -> list[pathlib.Path]:
    """The files that can be read as images.

    Every file is decoded once, a JPEG at an eighth of its size, so that one cut short is
    found now and not in the middle of a run.

    Args:
      files: to look at.
      bad_images: "refuse" or "skip" those that cannot be read.
      field: what that choice is called in messages.

    Raises:
      InputError: some cannot be read, and `bad_images` is "refuse".
    """
    errors.check_known(field, bad_images, BAD_IMAGES)
    with ThreadPoolExecutor() as threads:
        faults = list(threads.map(_image_fault, files))
    bad = [
        f"  {to_text(str(file))}: {fault}"
        for file, fault in zip(files, faults, strict=True)
        if fault
    ]
    if bad and bad_images == "refuse":
        more = f"\n  ... and {len(bad) - 20} more" if len(bad) > 20 else ""
        raise errors.InputError(
            f"{len(bad)} of {len(files)} files cannot be read as images:\n"
            + "\n".join(bad[:20])
            + more
            + f"\nRemove them, or set {field}='skip' to leave them out."
        )
    return [file for file, fault in zip(files, faults, strict=True) if not fault]


def _image_fault(file: pathlib.Path) -> str:
    if file.suffix.lower() not in SUFFIXES:
        return f"is no {', '.join(SUFFIXES)} file"
    try:
        with PIL.Image.open(file, formats=FORMATS) as image:
            image.draft(None, (1, 1))
            image.load()
    except Exception as error:
        return _why(error)
    return ""


def _why(error: Exception) -> str:
    if isinstance(error, PIL.UnidentifiedImageError):
        return "it is neither a JPEG nor a PNG"
    return str(error) or repr(error)
