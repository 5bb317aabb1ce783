"""A gallery in memory that finds the neighbours of one picture after another."""

import dataclasses
import io
import pathlib
from collections.abc import Callable

import numpy as np
import PIL.Image

from experiments.config import naming
from experiments.run import embedders, search_threshold
from triplet_jax import errors, evaluation
from triplet_jax.data.file_names import from_text, to_text
from triplet_jax.evaluation import gallery


@dataclasses.dataclass(frozen=True)
class Neighbour:
    """An image of the gallery that was found.

    Args:
      number: of the image in the gallery, from 0.
      path: within the folder, as text that `file_names.to_text` made.
      label: its class; empty where it lies in no class folder.
      distance: from the picture that was searched.
      verdict: "same" or "different"; None without a threshold.
    """

    number: int
    path: str
    label: str
    distance: float
    verdict: str | None


class ServedGallery:
    """The images of a gallery as they were when this was made.

    It no longer needs the files of the gallery, so that other programs may use them. What a call
    computes is compiled beforehand. Calls are not meant to run at the same time.

    Args:
      folder: of the images.
      found: its gallery, which is not empty.
      embedder: from `embedders.load_embedder`.
      threshold: up to which distance an image is called the same; or None.
      neighbours: how many are found; all of them if there are fewer.
    """

    def __init__(
        self,
        folder: pathlib.Path,
        found: gallery.Gallery,
        embedder: embedders.Embedder,
        threshold: search_threshold.Threshold | None,
        neighbours: int,
    ):
        table = found.table().sort_values("path")
        self.folder, self.threshold = folder.absolute(), threshold
        self._paths = [from_text(path) for path in table.path]
        self._labels = list(table.label)
        self._references = np.stack(table.vector)
        self._embedder = embedder
        self._neighbours = min(neighbours, len(table))
        self._nearest(embedder.blank)

    def __len__(self) -> int:
        return len(self._paths)

    def nearest(self, encoded: bytes) -> list[Neighbour]:
        """Finds the images nearest to a picture, the nearest first.

        Args:
          encoded: the bytes of an image file, which is read by the rules of the run.

        Raises:
          InputError: it cannot be read as an image.
        """
        distances, numbers = self._nearest(_reading(self._embedder.form.read, encoded)[None])
        verdicts = [None] * len(numbers)
        if self.threshold:
            verdicts = self.threshold.verdicts(distances).tolist()
        return [
            Neighbour(number, self._shown_path(number), self._labels[number], distance, verdict)
            for number, distance, verdict in zip(
                numbers.tolist(), distances.tolist(), verdicts, strict=True
            )
        ]

    def _nearest(self, pixels):
        query = self._embedder.embed_pixels(pixels)
        found = evaluation.nearest(query, self._references, neighbours=self._neighbours)
        return (of_query[0] for of_query in found)

    def _shown_path(self, number):
        return to_text(str(pathlib.Path(self._paths[number]).relative_to(self.folder)))

    def thumbnail(self, number: int) -> bytes:
        """A small JPEG of an image of the gallery, as the encoder sees it.

        Raises:
          InputError: there is no image of this number, or its file is gone.
        """
        if not 0 <= number < len(self):
            raise errors.InputError(f"there is no image {number}: the gallery has {len(self)}.")
        try:
            encoded = pathlib.Path(self._paths[number]).read_bytes()
        except OSError as error:
            raise errors.InputError(
                f"image {number} of the gallery cannot be read now: {error.strerror}"
            ) from error
        return self.small(encoded)

    def small(self, encoded: bytes) -> bytes:
        """A small JPEG of an image, as the encoder sees it.

        Args:
          encoded: the bytes of its file.

        Raises:
          InputError: it cannot be read as an image.
        """
        pixels = _reading(self._embedder.shown.read, encoded)
        PIL.Image.fromarray(pixels).save(file := io.BytesIO(), "JPEG", quality=90)
        return file.getvalue()


@naming.as_flags("max_pixels")
def _reading(read: Callable[[bytes], np.ndarray], encoded: bytes) -> np.ndarray:
    """Reads a picture; the form's own message would call it an image of a data set."""
    try:
        return read(encoded)
    except errors.InputError as error:
        raise errors.InputError(
            f"the picture cannot be read as an image: {error.__cause__ or error}"
        ) from error
