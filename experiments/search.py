"""Finds the images that are nearest to one image.

python -m experiments.search --workdir=runs/mine --gallery=mine.npz --query=IMAGE
"""

import pathlib

import numpy as np
import rich.console
import rich.table
from absl import flags

from experiments import command, embed
from triplet_jax import data, errors, evaluation, images

GALLERY = flags.DEFINE_string("gallery", None, "The .npz file that experiments.embed wrote.")
QUERY = flags.DEFINE_string("query", None, "The image to look for.")
NEIGHBOURS = flags.DEFINE_integer("neighbours", 5, "How many to show.")


def main() -> None:
    workdir = pathlib.Path(command.required(command.WORKDIR, "the folder of a trained run"))
    gallery = read_gallery(command.required(GALLERY, "a file that experiments.embed wrote"))
    query = pathlib.Path(command.required(QUERY, "the image to look for"))
    images.keep_images([query], "refuse")
    if NEIGHBOURS.value < 1:
        raise errors.InputError(f"--neighbours={NEIGHBOURS.value} must be at least 1.")
    embedding = embed.make_image_embedder(workdir.absolute())([str(query)])
    if embedding.shape[1] != gallery["embeddings"].shape[1]:
        raise errors.InputError(
            f"--gallery={GALLERY.value} holds embeddings of {gallery['embeddings'].shape[1]}"
            f" values, but this run makes {embedding.shape[1]}: embed the gallery with this run."
        )
    neighbours = min(NEIGHBOURS.value, len(gallery["paths"]))
    found, position = evaluation.nearest(embedding, gallery["embeddings"], neighbours=neighbours)
    table = rich.table.Table("", "distance", "folder", "image", title=f"nearest to {query}")
    for rank, (distance, i) in enumerate(zip(found[0], position[0], strict=True), start=1):
        table.add_row(str(rank), f"{distance:.3f}", gallery["labels"][i], gallery["paths"][i])
    rich.console.Console().print(table)


def read_gallery(path: str) -> dict[str, np.ndarray]:
    """The arrays that `experiments.embed` wrote.

    Raises:
      InputError: the file cannot be read as one of those.
    """
    names = ("embeddings", "paths", "labels")
    return dict(zip(names, data.read_arrays(path, names, field="--gallery"), strict=True))


if __name__ == "__main__":
    command.run(main)
