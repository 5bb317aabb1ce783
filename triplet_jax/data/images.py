"""Images of a data set: brought to one square form, and decoded when they are read."""

import dataclasses
import hashlib
import math
import pathlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import PIL.Image
from jaxtyping import Bool, Int, UInt8

from triplet_jax import errors
from triplet_jax.data import decoding
from triplet_jax.data.file_names import to_text

FITS = ("crop", "pad", "stretch")
RESAMPLE = {
    "bilinear": PIL.Image.Resampling.BILINEAR,
    "bicubic": PIL.Image.Resampling.BICUBIC,
    "lanczos": PIL.Image.Resampling.LANCZOS,
}
"""How images are scaled, by name; all of them smooth what they make smaller."""
LEAST_RATIO = 0.01
# A side that no image has, so that a JPEG is decoded at its full size.
_WHOLE = 2**16
# Counted up when a new version reads other pixels from the same file, so that embeddings of the
# earlier pixels are recognised.
_RULES = 2


@dataclasses.dataclass(frozen=True, repr=False)
class ImageForm:
    """The form that every image of a data set is brought to: a square of one size.

    Args:
      size: height and width in pixels.
      channels: 1 for grey, 3 for colour.
      invert: whether black and white are exchanged, so that ink on paper becomes light on dark.
        This is the last step and inverts the background, too.
      fit: how an image becomes square: "crop" cuts out the square in its middle, "pad" fills its
        shorter sides with the background, "stretch" scales each side to `size`.
      background: the grey level behind transparent pixels, from 0 (black) to 255 (white).
      max_pixels: an image of more pixels is refused.
      resample: how it is scaled, a name in `RESAMPLE`.
      crop_ratio: the share, from `LEAST_RATIO` to 1, of the square's side that is kept, in its
        middle. Scaling to 256 pixels and cutting out 224, as networks are often evaluated, is
        224 / 256 = 0.875.
    """

    size: int
    channels: int
    invert: bool = False
    fit: str = "crop"
    background: int = 255
    max_pixels: int = dataclasses.field(default=decoding.MAX_PIXELS, repr=False)
    rules: int = dataclasses.field(default=_RULES, init=False)
    resample: str = "bilinear"
    crop_ratio: float = 1.0

    def __repr__(self):
        # This text is kept with embeddings, to tell what they were made with. So it leaves out
        # newer fields whose values do what was done before these fields existed.
        names = ("size", "channels", "invert", "fit", "background", "rules")
        newer = {"resample": "bilinear", "crop_ratio": 1.0}
        names += tuple(name for name, before in newer.items() if getattr(self, name) != before)
        values = ", ".join(f"{name}={getattr(self, name)!r}" for name in names)
        return f"{type(self).__name__}({values})"

    def read(
        self, encoded: bytes | str, box: Int[np.ndarray, "4"] | None = None
    ) -> UInt8[np.ndarray, "height width channels"]:
        """Decodes an image and brings it to this form.

        Args:
          encoded: the bytes of an image file, or its path.
          box: the part of the upright image that is read, (left, top, right, bottom) in pixels;
            None for all of it.

        Raises:
          InputError: the file is no image or cannot be read (see `decoding.decode`), the box is not
            within it, or the form makes no sense.
        """
        errors.check_known("resample", self.resample, RESAMPLE)
        if not LEAST_RATIO <= self.crop_ratio <= 1:
            raise errors.InputError(
                f"crop_ratio={self.crop_ratio} must be from {LEAST_RATIO} to 1, which keeps all."
            )
        try:
            image = decoding.decode(
                encoded,
                # A box counts pixels of the whole image.
                least=math.ceil(self.size / self.crop_ratio) if box is None else _WHOLE,
                background=self.background,
                max_pixels=self.max_pixels,
            )
        except errors.InputError as error:
            name = "an image of the data set" if isinstance(encoded, bytes) else to_text(encoded)
            raise errors.InputError(f"{name} cannot be read as an image: {error}") from error
        if box is not None:
            image = image.crop(inside(box, image.size, encoded))
        image = self._square(image.convert("L" if self.channels == 1 else "RGB"))
        pixels = np.asarray(image).reshape(self.size, self.size, self.channels)
        return 255 - pixels if self.invert else pixels

    def _square(self, image: PIL.Image.Image) -> PIL.Image.Image:
        errors.check_known("fit", self.fit, FITS)
        method = RESAMPLE[self.resample]
        if self.fit == "pad":
            side = self.crop_ratio * max(image.size)
            shown = [min(length, side) for length in image.size]
            width, height = (max(1, round(self.size / side * length)) for length in shown)
            ground = PIL.Image.new("L", (self.size, self.size), self.background).convert(image.mode)
            scaled = image.resize((width, height), method, box=_in_the_middle(image, *shown))
            ground.paste(scaled, ((self.size - width) // 2, (self.size - height) // 2))
            return ground
        sides = image.size if self.fit == "stretch" else (min(image.size),) * 2
        box = _in_the_middle(image, *(self.crop_ratio * side for side in sides))
        return image.resize((self.size, self.size), method, box=box)


def inside(
    box: Sequence[int] | Int[np.ndarray, "4"], size: tuple[int, int], encoded: bytes | str
) -> tuple[int, int, int, int]:
    """The box as Pillow takes it.

    Args:
      box: left, top, right and bottom, in pixels.
      size: width and height of the image.
      encoded: the image, whose path the message names.

    Raises:
      InputError: the box is not a part of the image.
    """
    left, top, right, bottom = map(int, box)
    width, height = size
    if not (0 <= left < right <= width and 0 <= top < bottom <= height):
        name = "an image of the data set" if isinstance(encoded, bytes) else to_text(encoded)
        raise errors.InputError(
            f"{name}: the box {(left, top, right, bottom)} must be (left, top, right, bottom)"
            f" within the image, which is {width} x {height}."
        )
    return left, top, right, bottom


def _in_the_middle(image, width, height):
    """The rectangle of these sides in the middle of an image, as Pillow takes it."""
    left, top = (image.width - width) / 2, (image.height - height) / 2
    return left, top, left + width, top + height


class Images(Sequence):
    """Images that are decoded when they are read.

    `images[3]` decodes one image, `[size, size, channels]` of uint8; `images[positions]`, with an
    array, selects some images without decoding them.

    Args:
      encoded: the images, each as `ImageForm.read` takes it.
      form: what every image is brought to.
      positions: which of the encoded images these are; None for all.
      turns: by how many quarter turns each is rotated; None for no rotation.
      boxes: the part that is read of each of the encoded images, as in `ImageForm.read`; None for
        the whole of each.
      mirrored: which are mirrored, left and right, before they are rotated; None for none.
    """

    def __init__(
        self,
        encoded: Sequence[bytes | str],
        form: ImageForm,
        positions: Int[np.ndarray, "images"] | None = None,
        turns: Int[np.ndarray, "images"] | None = None,
        boxes: Int[np.ndarray, "encoded 4"] | None = None,
        mirrored: Bool[np.ndarray, "images"] | None = None,
    ):
        self._encoded = encoded
        self._form = form
        self._positions = np.arange(len(encoded)) if positions is None else positions
        self._turns = np.zeros(len(self._positions), np.int8) if turns is None else turns
        self._boxes = boxes
        self._mirrored = np.zeros(len(self._positions), bool) if mirrored is None else mirrored

    @property
    def form(self) -> ImageForm:
        """The form that the images are brought to."""
        return self._form

    def __len__(self) -> int:
        return len(self._positions)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape that all images would have as one array."""
        return len(self), self._form.size, self._form.size, self._form.channels

    def __getitem__(
        self, which: int | np.integer | Int[np.ndarray, "chosen"]
    ) -> "np.ndarray | Images":
        if isinstance(which, np.ndarray):
            positions, turns = self._positions[which], self._turns[which]
            return self._like(positions, turns, self._mirrored[which])
        position = int(self._positions[which])
        pixels = self._form.read(self._encoded[position], self._box(position))
        if self._mirrored[which]:
            pixels = pixels[:, ::-1]
        return np.rot90(pixels, self._turns[which])

    def _like(self, positions, turns, mirrored):
        return Images(self._encoded, self._form, positions, turns, self._boxes, mirrored)

    def _box(self, position):
        return None if self._boxes is None else self._boxes[position]

    def digest(self, position: int) -> bytes:
        """16 bytes by which an image is recognised.

        They change with its file, its form, its turn, and whether it is mirrored.
        """
        place = int(self._positions[position])
        encoded = self._encoded[place]
        if isinstance(encoded, str):
            encoded = pathlib.Path(encoded).read_bytes()
        of_reading = f"{self._form} {self._turns[position]}"
        if self._boxes is not None:
            of_reading += f" {self._boxes[place].tolist()}"
        if self._mirrored[position]:
            of_reading += " mirrored"
        return hashlib.blake2b(
            encoded,
            digest_size=16,
            person=b"image",
            key=hashlib.blake2b(of_reading.encode(), digest_size=32).digest(),
        ).digest()

    def turned(self, turns: Int[np.ndarray, "images"]) -> "Images":
        """The same images, each rotated anticlockwise by this many more quarter turns."""
        return self._like(self._positions, self._turns + turns, self._mirrored)

    def mirrored(self, which: Bool[np.ndarray, "images"]) -> "Images":
        """The same images, of which these are mirrored, left and right."""
        # Mirroring what was turned is turning the mirrored image the other way.
        turns = np.where(which, -self._turns, self._turns)
        return self._like(self._positions, turns, self._mirrored ^ which)

    def whole(self) -> "Images":
        """The same images, each with its whole square: for training that crops at random."""
        form = dataclasses.replace(self._form, crop_ratio=1.0)
        return Images(
            self._encoded, form, self._positions, self._turns, self._boxes, self._mirrored
        )


def load(inputs: np.ndarray | Images) -> np.ndarray:
    """All inputs as one array in memory; `Images` are decoded in threads."""
    if isinstance(inputs, np.ndarray):
        return inputs
    with ThreadPoolExecutor() as threads:
        images = list(threads.map(inputs.__getitem__, range(len(inputs)), chunksize=64))
    return np.stack(images) if images else np.zeros(inputs.shape, np.uint8)
