"""The flags of programs that read images of the user, and the files that such flags name."""

import pathlib

import ml_collections
from absl import flags

from experiments.config import naming
from experiments.run import embedders
from triplet_jax import errors
from triplet_jax.data import folder_listing

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
