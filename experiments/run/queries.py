"""The images that --query names, and their classes where they lie in class folders."""

import pathlib
from collections.abc import Sequence
from typing import NamedTuple

from absl import flags

from experiments.config import naming
from experiments.run import config_json, image_flags
from triplet_jax import errors
from triplet_jax.data import (
    folder_layout,
    folder_listing,
    image_checks,
    image_tables,
    table_files,
)

QUERY = flags.DEFINE_multi_string(
    "query",
    None,
    "Image or folder to look for, or a table (.csv, .tsv, .parquet) with a column 'path', and"
    " 'label' where classes are known; may be repeated.",
)


class Queries(NamedTuple):
    """Images, each once."""

    paths: list[pathlib.Path]
    labels: list[str]
    """The class of each; "" where it is not known."""


def of_flag(workdir: pathlib.Path) -> Queries:
    """Finds the images of --query, with classes as the run in `workdir` has them; see `find`."""
    config = config_json.read(workdir)
    return find(
        QUERY.value,
        image_flags.BAD_IMAGES.value,
        image_flags.largest(config),
        class_level=config.dataset.class_level,
    )


@naming.as_flags("bad_images", "max_pixels")
def find(
    given: Sequence[str], bad_images: str, max_pixels: int, *, class_level: int = 1
) -> Queries:
    """Finds images: files, all images of folders, and those that tables list.

    Args:
      given: the values of --query.
      bad_images: "refuse" or "skip" files of folders and tables that are no images.
      max_pixels: an image of more pixels cannot be read.
      class_level: how many levels of folders name a class.

    Raises:
      InputError: one is not there, or cannot be read as an image.
    """
    found: dict[pathlib.Path, str] = {}
    for query in map(pathlib.Path, given):
        if query.is_dir():
            layout = folder_layout.layout_of(query, class_level=class_level)
            listing = folder_listing.find(query, layout)
            good = folder_listing.only_images(listing, bad_images, max_pixels=max_pixels)
            some = {file.path: file.label for file in good.files}
        elif not query.is_file():
            raise errors.InputError(f"--query={query} is no file and no folder.")
        elif query.suffix in table_files.SUFFIXES:
            some = _of_table(query, bad_images, max_pixels)
        else:
            some = dict.fromkeys(
                image_checks.keep_images([query], "refuse", max_pixels=max_pixels), ""
            )
        if not some:
            raise errors.InputError(f"--query={query} holds no images that can be read.")
        # Of an image that is named twice, a name that tells the class counts.
        found |= {path: label or found.get(path, "") for path, label in some.items()}
    return Queries(list(found), list(found.values()))


def _of_table(query, bad_images, max_pixels):
    with naming.rewriting(lambda message: errors.renamed(message, {"path": "--query"})):
        paths, labels = image_tables.list_images(
            str(query), bad_images=bad_images, max_pixels=max_pixels
        )
    return dict(zip(paths, labels, strict=True))
