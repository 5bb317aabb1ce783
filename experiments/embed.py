"""Embeds a folder of images with a trained run.

    python -m experiments.embed --workdir=runs/mine --images=FOLDER --output=mine.npz

The output may be .parquet too, a LanceDB table (.lance), or an index of faiss (.faiss).

Several processes share the work; start them as those of `experiments.train`.
"""

import pathlib
from collections.abc import Sequence

import numpy as np
from absl import flags

from experiments import command
from experiments.config import naming
from experiments.run import config_json, embedders, image_flags
from triplet_jax import errors
from triplet_jax.data import folder_listing
from triplet_jax.data.file_names import to_text
from triplet_jax.devices import processes
from triplet_jax.evaluation import vector_files
from triplet_jax.runs import files

IMAGES = flags.DEFINE_string("images", None, "Folder of images, with or without class folders.")


def main() -> None:
    workdir = pathlib.Path(command.required(command.WORKDIR, "the folder of a trained run"))
    folder = pathlib.Path(command.required(IMAGES, "a folder of images"))
    output = command.file_to_write(command.OUTPUT, ".npz", *vector_files.SUFFIXES)
    if output.suffix != ".npz":
        with naming.rewriting(lambda said: errors.renamed(said, {"path": "--output"})):
            vector_files.check_installed(output)
    command.start_processes()
    if not folder.is_dir():
        raise errors.InputError(f"--images={folder} is not a folder.")
    max_pixels = image_flags.largest(config_json.read(workdir))
    with naming.as_flags("bad_images", "max_pixels"):
        listing = folder_listing.only_images(
            embedders.find(workdir, folder), image_flags.BAD_IMAGES.value, max_pixels=max_pixels
        )
    if listing.report:
        print(f"passed over:\n{listing.report}")
    if not listing.files:
        raise errors.InputError(f"--images={folder} holds no images.")
    embedder = embedders.load_embedder(workdir.absolute(), image_flags.MAX_PIXELS.value)
    embeddings = embedder(listing.paths)
    processes.first_does(lambda: write(output, listing.files, embeddings))
    print(f"{len(listing.files)} embeddings of {embeddings.shape[1]} values written to {output}")


def write(
    output: pathlib.Path, embedded: Sequence[folder_listing.File], embeddings: np.ndarray
) -> None:
    """Writes the embeddings, the paths of their files, and their classes, "" for loose files."""
    names = np.array([to_text(str(file.path)) for file in embedded])
    labels = np.array([file.label for file in embedded])
    if output.suffix == ".npz":
        files.write_arrays(output, embeddings=embeddings, paths=names, labels=labels)
    else:
        vector_files.write(output, embeddings, names=names, labels=labels)


if __name__ == "__main__":
    command.run(main, of_several=True, takes=(command.OUTPUT,))
