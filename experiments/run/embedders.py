"""A function from image files to embeddings, with the encoder of a run."""

import dataclasses
import functools
import hashlib
import pathlib
from collections.abc import Callable, Sequence

import jax
import numpy as np

from experiments.config import datasets, import_paths
from experiments.run import config_json, data_json, restoring
from triplet_jax import errors
from triplet_jax.data import folder_layout, folder_listing, images
from triplet_jax.models import inference
from triplet_jax.training import data_parallel

# The side of an image that a person is shown, in pixels.
_SHOWN = 160


def find(workdir: pathlib.Path, folder: pathlib.Path) -> folder_listing.Listing:
    """Lists the files of a folder, with classes by the rule of the run in `workdir`."""
    level = config_json.read(workdir).dataset.class_level
    return folder_listing.find(folder, folder_layout.layout_of(folder, class_level=level))


@dataclasses.dataclass(frozen=True)
class Embedder:
    """A function from image files to embeddings, with the encoder of a run.

    Args:
      embed: from `inference.make_embed`.
      variables: of the encoder, on every device.
      form: the size and channels that images are brought to.
      augment: the copies of an image that `embed` makes, as `evaluate.augment` says.
      step: of the checkpoint.
    """

    embed: Callable
    variables: dict
    form: images.ImageForm
    augment: tuple[str, ...] = ()
    step: int = 0

    def __call__(self, files: Sequence[pathlib.Path]) -> np.ndarray:
        paths = [str(file) for file in files]
        return self.embed(self.variables, images.Images(paths, self.form))

    def embed_pixels(self, pixels: np.ndarray) -> np.ndarray:
        """Embeds images that are in the form already, `[images, height, width, channels]`."""
        return self.embed(self.variables, pixels)

    @property
    def blank(self) -> np.ndarray:
        """One black image in the form, `[1, height, width, channels]`."""
        return np.zeros((1, self.form.size, self.form.size, self.form.channels), np.uint8)

    @property
    def dim(self) -> int:
        """The values of an embedding, which are counted by embedding a black image."""
        return self.embed_pixels(self.blank).shape[1]

    @property
    def shown(self) -> images.ImageForm:
        """The form in which a person is shown what the encoder sees of an image."""
        return dataclasses.replace(self.form, size=_SHOWN, channels=3, invert=False)

    @property
    def mark(self) -> str:
        """A hash that differs between encoders whose embeddings differ."""
        digest = hashlib.sha256(repr(self.form).encode())
        digest.update("".join(sorted(self.augment)).encode())
        for leaf in jax.tree.leaves(self.variables):
            digest.update(np.ascontiguousarray(leaf))
        return digest.hexdigest()[:16]


def load_embedder(workdir: pathlib.Path, max_pixels: int | None = None) -> Embedder:
    """Loads the encoder of the checkpoint that a run is judged by.

    Args:
      workdir: of the run.
      max_pixels: a picture of more pixels is refused; None for `dataset.max_pixels` of the run.

    Raises:
      InputError: there is no run, or it was not trained on images.
    """
    config = config_json.read(workdir)
    form = image_form(config, workdir)
    if max_pixels:
        form = dataclasses.replace(form, max_pixels=max_pixels)
    run = restoring.load(workdir, config, (form.size, form.size, form.channels))
    step, judged = run.judged()
    embed = _few_or_many(run.judged_encoder, config.evaluate.batch)
    variables = data_parallel.replicate(judged.variables)
    return Embedder(embed, variables, form, config.evaluate.augment, step)


def _few_or_many(encoder, batch):
    """Embeds as `inference.make_embed` does, in batches no larger than the inputs need."""
    up_to = functools.cache(lambda most: inference.make_embed(encoder, batch=batch, most=most))

    def embed(variables, inputs):
        return up_to(1 << (len(inputs) - 1).bit_length())(variables, inputs)

    return embed


def image_form(config, workdir: pathlib.Path) -> images.ImageForm:
    """The form in which the encoder of a run takes images.

    Raises:
      InputError: the run was not trained on square images.
    """
    c = config.dataset
    if c.name == "digits":
        return images.ImageForm(size=8, channels=1)
    if c.name == "pairs":
        raise errors.InputError(
            "This run was trained on the pairs of an .npz file, not on images alone, so that it"
            " cannot embed a folder. The embeddings of all pairs are in embeddings.npz of the run."
        )
    if import_paths.is_path(c.name):
        inputs = datasets.open_dataset(c).inputs
        if isinstance(inputs, images.Images):
            return inputs.form
    if c.name == "arrays" or import_paths.is_path(c.name):
        shape, _ = data_json.input_shapes(workdir, config)
        if len(shape) != 3 or shape[0] != shape[1]:
            raise errors.InputError(
                f"This run was trained on inputs of shape {shape}, not on square images, so that"
                " it cannot embed images."
            )
        return images.ImageForm(size=shape[0], channels=shape[2])
    return datasets.image_form(c)
