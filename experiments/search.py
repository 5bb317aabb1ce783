"""Finds the images of a folder that are nearest to others.

    python -m experiments.search --workdir=runs/mine --gallery=FOLDER --query=IMAGE_OR_FOLDER

The embeddings of the gallery are kept beside the run: the next search embeds only files that are
new or have changed, and forgets those that are gone. Starting takes longer than searching, so give
several queries at once.
"""

import contextlib
import dataclasses
import pathlib

import numpy as np
import pandas as pd
from absl import flags

from experiments import command
from experiments.run import (
    config_json,
    embedders,
    galleries,
    image_flags,
    search_answers,
    search_threshold,
)
from triplet_jax import errors
from triplet_jax.analysis import plots
from triplet_jax.data import folder_listing
from triplet_jax.evaluation import gallery
from triplet_jax.runs import files

GALLERY = flags.DEFINE_string("gallery", None, "Folder of images, with or without class folders.")
QUERY = flags.DEFINE_multi_string("query", None, "Image or folder to look for; may be repeated.")
NEIGHBOURS = flags.DEFINE_integer("neighbours", 5, "How many to show.")
RATE = flags.DEFINE_float(
    "false_accept_rate", 0.01, "Of two classes, the share of pairs that may pass as the same."
)
CALIBRATION = flags.DEFINE_string(
    "calibration", None, "Folder of class folders that sets the threshold; default: validation."
)
APPROXIMATE = flags.DEFINE_bool("approximate", False, "Search by an index; says its recall.")
PARQUET = flags.DEFINE_string("parquet", None, "Also write all embeddings to this .parquet file.")
SHEET = flags.DEFINE_string("sheet", None, "The picture; default search.png beside the galleries.")
GALLERY_DIR = flags.DEFINE_string(
    "gallery_dir", None, "Where embeddings are kept; default galleries in the workdir."
)


def main() -> None:
    workdir = pathlib.Path(command.required(command.WORKDIR, "the folder of a trained run"))
    folder = pathlib.Path(command.required(GALLERY, "a folder of images"))
    command.required(QUERY, "the image to look for")
    check_numbers()
    queries = image_flags.find_queries(
        QUERY.value,
        image_flags.BAD_IMAGES.value,
        image_flags.largest(config_json.read(workdir)),
    )
    listing = image_flags.list_folder(GALLERY, workdir)
    calibration = None
    if CALIBRATION.value:
        calibration = image_flags.list_folder(CALIBRATION, workdir)
        search_threshold.check_class_folders(pathlib.Path(CALIBRATION.value), calibration)
    galleries.make_place(galleries.place_of(workdir, folder, GALLERY_DIR.value))
    sheet, table = files_to_write(workdir)

    embedder = embedders.load_embedder(workdir.absolute(), image_flags.MAX_PIXELS.value)
    embeddings = embedder(queries)
    dim = embeddings.shape[1]
    if calibration is None:
        threshold = search_threshold.by_validation(workdir, RATE.value)
    else:
        place = pathlib.Path(CALIBRATION.value)
        with opened(workdir, place, calibration, embedder, dim) as found:
            threshold = search_threshold.by_folder(place, found, RATE.value)
    with opened(workdir, folder, listing, embedder, dim) as found:
        nearest = search(found, embeddings)
    answers = search_answers.as_table(queries, nearest, threshold)
    shows_all = search_answers.show(answers, folder.absolute())
    if not (shows_all or table):
        print("All neighbours of each: --output=FILE.csv")
    if threshold:
        print(threshold)
    if table:
        with files.whole_file(table) as file:
            answers.to_csv(file, index=False)
        print(f"all {len(answers):,} neighbours written to {table}")
    form = dataclasses.replace(embedder.form, size=160, channels=3, invert=False)
    search_answers.draw(answers, form, sheet)


def check_numbers() -> None:
    """Refuses numbers that no search can use.

    Raises:
      InputError: naming the flag.
    """
    if NEIGHBOURS.value < 1:
        raise errors.InputError(f"--neighbours={NEIGHBOURS.value} must be at least 1.")
    if not 0 < RATE.value < 1:
        raise errors.InputError(f"--false_accept_rate={RATE.value} must be above 0 and below 1.")


def files_to_write(workdir: pathlib.Path) -> tuple[pathlib.Path, pathlib.Path | None]:
    """Reads the paths of the picture and of the table; the table's is None without --output.

    Raises:
      InputError: a file cannot be written there.
    """
    sheet = pathlib.Path(SHEET.value or pathlib.Path(GALLERY_DIR.value or workdir) / "search.png")
    table = command.file_to_write(command.OUTPUT, ".csv") if command.OUTPUT.value else None
    for flag, file in ((SHEET, sheet), (PARQUET, pathlib.Path(PARQUET.value or "."))):
        if not file.absolute().parent.is_dir():
            raise errors.InputError(f"--{flag.name}={file} must lie in a folder that exists.")
    plots.check_format(sheet)
    return sheet, table


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


def search(found: gallery.Gallery, embeddings: np.ndarray) -> list[pd.DataFrame]:
    """Finds the neighbours of each query, after what --approximate and --parquet ask for.

    Raises:
      InputError: the gallery is empty.
    """
    if not len(found):
        raise errors.InputError(f"--gallery={GALLERY.value} holds no images that can be read.")
    if APPROXIMATE.value:
        found.build_index()
        recall = found.recall(NEIGHBOURS.value)
        print(f"approximate: finds {recall:.1%} of the {NEIGHBOURS.value} nearest")
    if PARQUET.value:
        found.write_parquet(pathlib.Path(PARQUET.value))
        print(f"{len(found):,} embeddings written to {PARQUET.value}")
    return found.nearest(embeddings, NEIGHBOURS.value, approximate=APPROXIMATE.value)


if __name__ == "__main__":
    command.run(main, again="Run the same command again: the images embedded so far are kept.")
