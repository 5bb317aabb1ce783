r"""Finds the images of a folder that are nearest to others.

    python -m experiments.search --workdir=runs/mine --gallery=FOLDER --query=IMAGE_OR_FOLDER
    python -m experiments.search --workdir=runs/mine --gallery=FOLDER --query=TABLE.csv \
        --output=found.parquet
    python -m experiments.search --workdir=runs/mine --gallery=FOLDER --duplicates

The embeddings of the gallery are kept beside the run: the next search embeds only files that are
new or have changed, and forgets those that are gone. Starting takes longer than searching, so give
several queries at once. The third command finds images of the gallery that are nearly the same.
"""

import pathlib

import numpy as np
import pandas as pd
from absl import flags

from experiments import command
from experiments.run import (
    duplicates,
    embedders,
    galleries,
    image_flags,
    queries,
    result_tables,
    search_answers,
    search_flags,
)
from triplet_jax import errors
from triplet_jax.analysis import plots
from triplet_jax.evaluation import gallery

APPROXIMATE = flags.DEFINE_bool("approximate", False, "Search by an index; says its recall.")
PARQUET = flags.DEFINE_string("parquet", None, "Also write all embeddings to this .parquet file.")
SHEET = flags.DEFINE_string(
    "sheet", None, "The picture; default search.png or duplicates.png beside the galleries."
)

DUPLICATES = flags.DEFINE_bool("duplicates", False, "Find near duplicates within the gallery.")
WITHIN = flags.DEFINE_float(
    "within", None, "The distance up to which images are duplicates; default: that of JPEG copies."
)
OF_QUERIES = (APPROXIMATE, PARQUET, search_flags.NEIGHBOURS, search_flags.RATE)
OF_QUERIES += (search_flags.CALIBRATION,)


def main() -> None:
    workdir = pathlib.Path(command.required(command.WORKDIR, "the folder of a trained run"))
    folder = search_flags.folder()
    if DUPLICATES.value:
        find_duplicates(workdir, folder)
        return
    if WITHIN.value is not None:
        raise errors.InputError(f"--within={WITHIN.value} needs --duplicates.")
    command.required(queries.QUERY, "the image to look for")
    search_flags.check_numbers()
    asked = queries.of_flag(workdir)
    listing = image_flags.list_folder(search_flags.GALLERY, workdir)
    calibration = search_flags.list_calibration(workdir)
    galleries.make_place(galleries.place_of(workdir, folder, search_flags.GALLERY_DIR.value))
    sheet, table = files_to_write(workdir, "search.png")

    embedder = embedders.load_embedder(workdir.absolute(), image_flags.MAX_PIXELS.value)
    embeddings = embedder(asked.paths)
    dim = embeddings.shape[1]
    threshold = search_flags.find_threshold(workdir, calibration, embedder, dim)
    with search_flags.opened(workdir, folder, listing, embedder, dim) as found:
        nearest = search(found, embeddings)
    answers = search_answers.as_table(asked.paths, nearest, threshold)
    shows_all = search_answers.show(answers, folder.absolute())
    if not (shows_all or table):
        print("All neighbours of each: --output=FILE.csv or .parquet")
    if threshold:
        print(threshold)
    if table:
        result_tables.write(table, answers)
        print(f"all {len(answers):,} neighbours written to {table}")
    search_answers.draw(answers, embedder.shown, sheet)


def find_duplicates(workdir: pathlib.Path, folder: pathlib.Path) -> None:
    """Finds the near duplicates of the gallery."""
    for flag in (queries.QUERY, *OF_QUERIES):
        if flag.present:
            raise errors.InputError(
                f"--duplicates compares the images of --gallery: leave out --{flag.name}."
            )
    listing = image_flags.list_folder(search_flags.GALLERY, workdir)
    galleries.make_place(galleries.place_of(workdir, folder, search_flags.GALLERY_DIR.value))
    sheet, table = files_to_write(workdir, "duplicates.png")
    embedder = embedders.load_embedder(workdir.absolute(), image_flags.MAX_PIXELS.value)
    with search_flags.opened(workdir, folder, listing, embedder, embedder.dim) as found:
        search_flags.check_not_empty(found)
        within = WITHIN.value
        if within is None:
            within = duplicates.within_copies(found, embedder)
        pairs = duplicates.find(found, within)
    duplicates.show(pairs, folder.absolute(), within)
    if table:
        result_tables.write(table, pairs)
        print(f"all {len(pairs):,} pairs written to {table}")
    duplicates.draw(pairs, embedder.shown, sheet)


def files_to_write(workdir: pathlib.Path, name: str) -> tuple[pathlib.Path, pathlib.Path | None]:
    """Reads the paths of the picture and of the table; the table's is None without --output.

    Args:
      workdir: of the run.
      name: of the picture, where --sheet says nothing.

    Raises:
      InputError: a file cannot be written there.
    """
    place = pathlib.Path(search_flags.GALLERY_DIR.value or workdir)
    sheet = pathlib.Path(SHEET.value or place / name)
    table = result_tables.file_to_write()
    for flag, file in ((SHEET, sheet), (PARQUET, pathlib.Path(PARQUET.value or "."))):
        if not file.absolute().parent.is_dir():
            raise errors.InputError(f"--{flag.name}={file} must lie in a folder that exists.")
    plots.check_format(sheet)
    return sheet, table


def search(found: gallery.Gallery, embeddings: np.ndarray) -> list[pd.DataFrame]:
    """Finds the neighbours of each query, after what --approximate and --parquet ask for.

    Raises:
      InputError: the gallery is empty.
    """
    search_flags.check_not_empty(found)
    neighbours = search_flags.NEIGHBOURS.value
    if APPROXIMATE.value:
        found.build_index()
        recall = found.recall(neighbours)
        print(f"approximate: finds {recall:.1%} of the {neighbours} nearest")
    if PARQUET.value:
        found.write_parquet(pathlib.Path(PARQUET.value))
        print(f"{len(found):,} embeddings written to {PARQUET.value}")
    return found.nearest(embeddings, neighbours, approximate=APPROXIMATE.value)


if __name__ == "__main__":
    command.run(
        main,
        again="Run the same command again: the images embedded so far are kept.",
        takes=(command.OUTPUT,),
    )
