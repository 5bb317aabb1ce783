"""What the programs that search a gallery share: their flags, and what these name."""

import contextlib
import pathlib

from absl import flags

from experiments import command
from experiments.run import embedders, galleries, image_flags, search_threshold
from triplet_jax import errors
from triplet_jax.data import folder_listing
from triplet_jax.evaluation import gallery

GALLERY = flags.DEFINE_string("gallery", None, "Folder of images, with or without class folders.")
NEIGHBOURS = flags.DEFINE_integer(
    "neighbours", 5, "How many to show; to classify, how many of a class count."
)
RATE = flags.DEFINE_float(
    "false_accept_rate",
    0.01,
    "Of two classes, the share of pairs that may pass as the same; to classify, the share of images"
    " of other classes that may pass as known.",
)
CALIBRATION = flags.DEFINE_string(
    "calibration", None, "Folder of class folders that sets the threshold; default: validation."
)
GALLERY_DIR = flags.DEFINE_string(
    "gallery_dir", None, "Where embeddings are kept; default galleries in the workdir."
)


def folder() -> pathlib.Path:
    """The folder of --gallery, which must be given.

    Raises:
      InputError: it was not given.
    """
    return pathlib.Path(command.required(GALLERY, "a folder of images"))


def check_numbers() -> None:
    """Refuses numbers that no search can use.

    Raises:
      InputError: naming the flag.
    """
    if NEIGHBOURS.value < 1:
        raise errors.InputError(f"--neighbours={NEIGHBOURS.value} must be at least 1.")
    if not 0 < RATE.value < 1:
        raise errors.InputError(f"--false_accept_rate={RATE.value} must be above 0 and below 1.")


def list_calibration(workdir: pathlib.Path) -> folder_listing.Listing | None:
    """Lists the folder of --calibration; None where the validation split sets the threshold.

    Raises:
      InputError: it cannot be listed, or an image of it has no class.
    """
    if not CALIBRATION.value:
        return None
    listing = image_flags.list_folder(CALIBRATION, workdir)
    search_threshold.check_class_folders(pathlib.Path(CALIBRATION.value), listing)
    return listing


def find_threshold(
    workdir: pathlib.Path,
    calibration: folder_listing.Listing | None,
    embedder: embedders.Embedder,
    dim: int,
) -> search_threshold.Threshold | None:
    """Sets the threshold by --calibration or by the validation split.

    Args:
      workdir: of the run.
      calibration: from `list_calibration`.
      embedder: from `embedders.load_embedder`.
      dim: values of an embedding.

    Returns:
      The threshold; None, with the reason printed, where the validation split cannot set one.
    """
    if calibration is None:
        return search_threshold.by_validation(workdir, embedder, RATE.value)
    place = pathlib.Path(CALIBRATION.value)
    with opened(workdir, place, calibration, embedder, dim) as found:
        return search_threshold.by_folder(place, found, RATE.value)


def opened(
    workdir: pathlib.Path,
    folder: pathlib.Path,
    listing: folder_listing.Listing,
    embedder: embedders.Embedder,
    dim: int,
) -> contextlib.AbstractContextManager[gallery.Gallery]:
    """The gallery that follows a folder; see `galleries.following`."""
    place = galleries.place_of(workdir, folder, GALLERY_DIR.value)
    galleries.make_place(place)
    bad_images = image_flags.BAD_IMAGES.value
    return galleries.following(place, listing, embedder, dim=dim, bad_images=bad_images)


def check_not_empty(found: gallery.Gallery) -> None:
    """Refuses a gallery without images.

    Raises:
      InputError: naming the flag.
    """
    if not len(found):
        raise errors.InputError(f"--gallery={GALLERY.value} holds no images that can be read.")
