"""The flags of programs that read images of the user, and the files that such flags name."""

import pathlib
from collections.abc import Sequence

import ml_collections
from absl import flags

from experiments.config import naming
from experiments.run import embedders
from triplet_jax import errors
from triplet_jax.data import folder_layout, folder_listing, images

BAD_IMAGES = flags.DEFINE_string("bad_images", "refuse", "Files that are no images: refuse, skip.")

MAX_PIXELS = flags.DEFINE_integer(
    "max_pixels",
    None,
    "Pictures of more pixels are refused; default: dataset.max_pixels of the run.",
    lower_bound=1,
)


def largest(config: ml_collections.FrozenConfigDict) -> int:
    """The most pixels that a picture may have, by the flag or by the config of the run."""
    return MAX_PIXELS.value or config.dataset.max_pixels


@naming.as_flags("bad_images", "max_pixels")
def find_queries(queries: Sequence[str], bad_images: str, max_pixels: int) -> list[pathlib.Path]:
    """Finds the images that --query names, each once: files, and all images of folders.

    Args:
      queries: the values of the flag.
      bad_images: "refuse" or "skip" files of folders that are no images.
      max_pixels: an image of more pixels cannot be read.

    Raises:
      InputError: one is not there, or cannot be read as an image.
    """
    found = []
    for query in map(pathlib.Path, queries):
        if query.is_dir():
            listing = folder_listing.find(query, folder_layout.layout_of(query))
            good = folder_listing.only_images(listing, bad_images, max_pixels=max_pixels).paths
            if not good:
                raise errors.InputError(f"--query={query} holds no images that can be read.")
            found += good
        elif not query.is_file():
            raise errors.InputError(f"--query={query} is no file and no folder.")
        else:
            found += images.keep_images([query], "refuse", max_pixels=max_pixels)
    return list(dict.fromkeys(found))


@naming.as_flags("bad_images")
def list_folder(flag: flags.FlagHolder, workdir: pathlib.Path) -> folder_listing.Listing:
    """Lists the folder that a flag names, with classes as the run has them.

    Prints which files are passed over.

    Args:
      flag: the flag.
      workdir: of the run.

    Raises:
      InputError: it is no folder, holds no files, or a file would be lost.
    """
    folder = pathlib.Path(flag.value)
    if not folder.is_dir():
        raise errors.InputError(f"--{flag.name}={folder} is not a folder of images.")
    listing = embedders.find(workdir, folder.absolute())
    listing.check_nothing_is_lost(BAD_IMAGES.value)
    if listing.report:
        print(f"passed over:\n{listing.report}")
    if not listing.files:
        raise errors.InputError(f"--{flag.name}={folder} holds no files.")
    return listing
