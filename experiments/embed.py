"""Embeds a folder of images with a trained run.

    python -m experiments.embed --workdir=runs/mine --images=FOLDER --output=mine.npz

Several processes share the work, started as those of `experiments.train` are.
"""

import dataclasses
import functools
import hashlib
import pathlib
from collections.abc import Callable, Sequence

import jax
import numpy as np
from absl import flags

from experiments import build, command, evaluate, record
from triplet_jax import embedding, errors, folders, hosts, images, importing, logging, train_step
from triplet_jax.file_names import to_text

IMAGES = flags.DEFINE_string("images", None, "Folder of images, with or without class folders.")
BAD_IMAGES = flags.DEFINE_string("bad_images", "refuse", "Files that are no images: refuse, skip.")

MAX_PIXELS = flags.DEFINE_integer(
    "max_pixels",
    None,
    "Pictures of more pixels are refused; default: dataset.max_pixels of the run.",
    lower_bound=1,
)


def main() -> None:
    workdir = pathlib.Path(command.required(command.WORKDIR, "the folder of a trained run"))
    folder = pathlib.Path(command.required(IMAGES, "a folder of images"))
    output = command.file_to_write(command.OUTPUT, ".npz")
    command.start_processes()
    if not folder.is_dir():
        raise errors.InputError(f"--images={folder} is not a folder.")
    listing = folders.only_images(
        find(workdir, folder),
        BAD_IMAGES.value,
        field="--bad_images",
        max_pixels=largest(record.read_config(workdir)),
    )
    if listing.report:
        print(f"passed over:\n{listing.report}")
    if not listing.files:
        raise errors.InputError(f"--images={folder} holds no images.")
    embeddings = load_embedder(workdir.absolute(), MAX_PIXELS.value)(listing.paths)
    hosts.first_does(lambda: write(output, listing.files, embeddings))
    print(f"{len(listing.files)} embeddings of {embeddings.shape[1]} values written to {output}")


def find(workdir: pathlib.Path, folder: pathlib.Path) -> folders.Listing:
    """The files of a folder, with classes as the run in `workdir` has them."""
    level = record.read_config(workdir).dataset.class_level
    return folders.find(folder, folders.layout_of(folder, class_level=level))


def write(output: pathlib.Path, files: Sequence[folders.File], embeddings: np.ndarray) -> None:
    """The embeddings with the paths of their files, and the classes: "" for loose files."""
    logging.write_arrays(
        output,
        embeddings=embeddings,
        paths=np.array([to_text(str(file.path)) for file in files]),
        labels=np.array([file.label for file in files]),
    )


@dataclasses.dataclass(frozen=True)
class Embedder:
    """A function from image files to embeddings, with a run's encoder.

    Args:
      embed: from `embedding.make_embed`.
      variables: of the encoder, on every device.
      form: what images are brought to.
    """

    embed: Callable
    variables: dict
    form: images.ImageForm

    def __call__(self, files: Sequence[pathlib.Path]) -> np.ndarray:
        paths = [str(file) for file in files]
        return self.embed(self.variables, images.Images(paths, self.form))

    @property
    def mark(self) -> str:
        """Tells encoders apart: another one makes other embeddings."""
        digest = hashlib.sha256(repr(self.form).encode())
        for leaf in jax.tree.leaves(self.variables):
            digest.update(np.ascontiguousarray(leaf))
        return digest.hexdigest()[:16]


def largest(config) -> int:
    """The most pixels that a picture may have, by the flag or by the run."""
    return MAX_PIXELS.value or config.dataset.max_pixels


def load_embedder(workdir: pathlib.Path, max_pixels: int | None = None) -> Embedder:
    """With the checkpoint that the run is judged by.

    Args:
      workdir: of the run.
      max_pixels: a picture of more is refused; None for `dataset.max_pixels` of the run.

    Raises:
      InputError: there is no run, or it was not trained on images.
    """
    config = record.read_config(workdir)
    form = image_form(config, workdir)
    if max_pixels:
        form = dataclasses.replace(form, max_pixels=max_pixels)
    encoder, state, checkpoints = evaluate.load_run(
        config, workdir, (form.size, form.size, form.channels)
    )
    _, chosen = evaluate.restore(config, checkpoints, state)
    embed = _few_or_many(encoder, config.evaluate.batch)
    return Embedder(embed, train_step.replicate(chosen.variables), form)


def _few_or_many(encoder, batch):
    """As `embedding.make_embed` makes it, with batches no larger than the inputs need."""
    up_to = functools.cache(lambda most: embedding.make_embed(encoder, batch=batch, most=most))

    def embed(variables, inputs):
        return up_to(1 << (len(inputs) - 1).bit_length())(variables, inputs)

    return embed


def image_form(config, workdir: pathlib.Path) -> images.ImageForm:
    """What a run's images look like to its encoder.

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
    if importing.is_path(c.name):
        inputs = build.open_dataset(c).inputs
        if isinstance(inputs, images.Images):
            return inputs.form
    if c.name == "arrays" or importing.is_path(c.name):
        shape, _ = record.input_shapes(workdir, config)
        if len(shape) != 3 or shape[0] != shape[1]:
            raise errors.InputError(
                f"This run was trained on inputs of shape {shape}, not on square images, so that"
                " it cannot embed images."
            )
        return images.ImageForm(size=shape[0], channels=shape[2])
    return build.image_form(c)


if __name__ == "__main__":
    command.run(main, of_several=True)
