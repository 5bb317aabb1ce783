"""Finds the images of a folder that are nearest to others.

python -m experiments.search --workdir=runs/mine --gallery=FOLDER --query=IMAGE_OR_FOLDER

The embeddings of the gallery are kept beside the run: the next search embeds only files that are
new or have changed, and forgets those that are gone. Starting takes longer than searching: give
several queries at once.
"""

import dataclasses
import os
import pathlib
from collections.abc import Sequence

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import rich.console
import rich.markup
import rich.table
from absl import flags

from experiments import command
from experiments.run import config_json, embedders, image_flags
from experiments.run.galleries import following, make_place, place_of
from triplet_jax import errors, evaluation
from triplet_jax.analysis import plots, run
from triplet_jax.data import decoding, folder_layout, folder_listing, images
from triplet_jax.data.file_names import from_text, to_text
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

# Queries with a table of their own; more share one.
_OWN_TABLES = 5
# Queries on one picture.
_ROWS_OF_SHEET = 20


@dataclasses.dataclass(frozen=True)
class Threshold:
    """The distance up to which two images count as the same class.

    Args:
      accepted: the distance, and the shares of pairs that are as near.
      pairs: which pairs these are.
      caution: what to know before relying on it, or "".
    """

    accepted: evaluation.Accepted
    pairs: str
    caution: str = ""

    def __str__(self) -> str:
        a = self.accepted
        return (
            f"same: up to a distance of {a.threshold:.3f}. So near are, {self.pairs},"
            f" {a.true_accepts:.1%} of the pairs of one class and {a.false_accepts:.2%} of those of"
            f" two. {self.caution}"
        ).strip()


def main() -> None:
    workdir = pathlib.Path(command.required(command.WORKDIR, "the folder of a trained run"))
    folder = pathlib.Path(command.required(GALLERY, "a folder of images"))
    command.required(QUERY, "the image to look for")
    check_numbers()
    queries = find_queries(image_flags.largest(config_json.read(workdir)))
    listing = list_folder(GALLERY, workdir)
    calibration = list_folder(CALIBRATION, workdir) if CALIBRATION.value else None
    place = place_of(workdir, folder, GALLERY_DIR.value)
    make_place(place)
    sheet = pathlib.Path(SHEET.value or pathlib.Path(GALLERY_DIR.value or workdir) / "search.png")
    table = command.file_to_write(command.OUTPUT, ".csv") if command.OUTPUT.value else None
    for flag, file in ((SHEET, sheet), (PARQUET, pathlib.Path(PARQUET.value or "."))):
        if not file.absolute().parent.is_dir():
            raise errors.InputError(f"--{flag.name}={file} must lie in a folder that exists.")
    plots.check_format(sheet)

    embedder = embedders.load_embedder(workdir.absolute(), image_flags.MAX_PIXELS.value)
    embeddings = embedder(queries)
    dim = embeddings.shape[1]
    if calibration is None:
        threshold = by_validation(workdir)
    else:
        threshold = by_folder(workdir, calibration, embedder, dim)
    with opened(place, listing, embedder, dim) as found:
        answers = as_table(queries, search(found, embeddings), threshold)
    show(answers, folder.absolute())
    if threshold:
        print(threshold)
    if table:
        with files.whole_file(table) as file:
            answers.to_csv(file, index=False)
        print(f"all {len(answers):,} neighbours written to {table}")
    draw(answers, dataclasses.replace(embedder.form, size=160, channels=3, invert=False), sheet)


def check_numbers() -> None:
    """Refuses numbers that no search can use.

    Raises:
      InputError: naming the flag.
    """
    if NEIGHBOURS.value < 1:
        raise errors.InputError(f"--neighbours={NEIGHBOURS.value} must be at least 1.")
    if not 0 < RATE.value < 1:
        raise errors.InputError(f"--false_accept_rate={RATE.value} must be above 0 and below 1.")


def find_queries(max_pixels: int = decoding.MAX_PIXELS) -> list[pathlib.Path]:
    """The images that --query names, each once: files, and all images of folders.

    Args:
      max_pixels: an image of more pixels cannot be read.

    Raises:
      InputError: one is not there, or cannot be read as an image.
    """
    found = []
    for query in map(pathlib.Path, QUERY.value):
        if query.is_dir():
            listing = folder_listing.find(query, folder_layout.layout_of(query))
            good = folder_listing.only_images(
                listing, image_flags.BAD_IMAGES.value, field="--bad_images", max_pixels=max_pixels
            ).paths
            if not good:
                raise errors.InputError(f"--query={query} holds no images that can be read.")
            found += good
        elif not query.is_file():
            raise errors.InputError(f"--query={query} is no file and no folder.")
        else:
            found += images.keep_images(
                [query], "refuse", field="--bad_images", max_pixels=max_pixels
            )
    return list(dict.fromkeys(found))


def list_folder(flag: flags.FlagHolder, workdir: pathlib.Path) -> folder_listing.Listing:
    """What the folder of a flag holds.

    Raises:
      InputError: it is no folder, holds no files, or some of it would be lost.
    """
    folder = pathlib.Path(flag.value)
    if not folder.is_dir():
        raise errors.InputError(f"--{flag.name}={folder} is not a folder of images.")
    listing = embedders.find(workdir, folder.absolute())
    listing.check_nothing_is_lost(image_flags.BAD_IMAGES.value, field="--bad_images")
    if listing.report:
        print(f"passed over:\n{listing.report}")
    if not listing.files:
        raise errors.InputError(f"--{flag.name}={folder} holds no files.")
    return listing


def opened(
    place: pathlib.Path, listing: folder_listing.Listing, embedder: embedders.Embedder, dim: int
):
    """The gallery of a folder as `galleries.following` has it."""
    return following(place, listing, embedder, dim=dim, bad_images=image_flags.BAD_IMAGES.value)


def by_validation(workdir: pathlib.Path) -> Threshold | None:
    """The threshold by the run's validation split; None, and says why, where it cannot be had."""
    try:
        embeddings, labels, split = run.embeddings_of(workdir)
        held_out = split == "validation"
        accepted = gallery.threshold(
            embeddings[held_out], labels[held_out], false_accept_rate=RATE.value
        )
    except errors.InputError as error:
        print(
            f"no threshold by the validation split: {error} Or give --calibration=FOLDER, with a"
            " folder of images for each class."
        )
        return None
    return Threshold(
        accepted,
        "on the validation split",
        "That split is a part of the data that the run was trained on. In images taken elsewhere or"
        " at another time, more pairs of two classes can be as near: --calibration=FOLDER sets the"
        " threshold by class folders of such images.",
    )


def by_folder(
    workdir: pathlib.Path, listing: folder_listing.Listing, embedder: embedders.Embedder, dim: int
) -> Threshold:
    """The threshold by the folder of --calibration, whose embeddings are kept, too.

    Raises:
      InputError: images lie in no class folder, or there are too few pairs to tell.
    """
    folder = pathlib.Path(CALIBRATION.value)
    loose = [file for file in listing.files if not file.label]
    if loose:
        raise errors.InputError(
            f"--calibration={folder} must hold a folder for each class: {len(loose):,} files lie in"
            f" none, such as {to_text(str(loose[0].path))}."
        )
    place = place_of(workdir, folder, GALLERY_DIR.value)
    make_place(place)
    with opened(place, listing, embedder, dim) as found:
        table = found.table()
    names, labels = np.unique(table.label.to_numpy(str), return_inverse=True)
    embeddings = np.stack(table.vector) if len(table) else np.zeros((0, dim), np.float32)
    try:
        accepted = gallery.threshold(embeddings, labels, false_accept_rate=RATE.value)
    except errors.InputError as error:
        raise errors.InputError(f"--calibration={folder} is too small: --{error}") from error
    return Threshold(accepted, f"among {len(table):,} images of {len(names):,} classes in {folder}")


def search(found: gallery.Gallery, embeddings: np.ndarray) -> list[pd.DataFrame]:
    """The neighbours of each query, after what else --approximate and --parquet ask for."""
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


def as_table(
    queries: Sequence[pathlib.Path], nearest: Sequence[pd.DataFrame], threshold: Threshold | None
) -> pd.DataFrame:
    """A row for each neighbour of each query.

    Returns:
      `query`, `rank` (from 1), `path`, `class`, `distance`, and `verdict` if there is a threshold.
      Paths are text as `file_names.to_text` makes it.
    """
    parts = [
        pd.DataFrame(
            {
                "query": to_text(str(query)),
                "rank": np.arange(1, len(rows) + 1),
                "path": rows.path,
                "class": rows.label,
                "distance": rows.distance,
            }
        )
        for query, rows in zip(queries, nearest, strict=True)
    ]
    table = pd.concat(parts, ignore_index=True)
    if threshold:
        is_same = table.distance <= threshold.accepted.threshold
        table["verdict"] = np.where(is_same, "same", "different")
    return table


def show(answers: pd.DataFrame, folder: pathlib.Path) -> None:
    """Prints a table for each query, or of many queries the nearest image of each.

    Args:
      answers: from `as_table`.
      folder: of the gallery.
    """
    of_query = list(answers.groupby("query", sort=False))
    shown = to_text(str(folder))
    if len(of_query) <= _OWN_TABLES:
        for query, rows in of_query:
            print(f"nearest to {query} in {shown}", flush=True)
            _print_table(rows, "rank", folder)
        return
    first = pd.DataFrame([_nearest_other(rows) for _, rows in of_query])
    paths = [os.path.abspath(from_text(query)) for query in first["query"]]
    common = os.path.commonpath([os.path.dirname(path) for path in paths])
    first["query"] = [to_text(os.path.relpath(path, common)) for path in paths]
    print(f"nearest to each of {len(first):,} queries of {to_text(common)} in {shown}", flush=True)
    _print_table(first, "query", folder)
    if not command.OUTPUT.value:
        print("All neighbours of each: --output=FILE.csv")


def _nearest_other(rows):
    """Of one query the first row that is not its own file, where there is one."""
    own = to_text(os.path.abspath(from_text(rows["query"].iloc[0])))
    others = rows[rows.path != own]
    return (others if len(others) else rows).iloc[0]


def _print_table(rows, first, folder):
    names = [first, "distance", "class", "image"] + ["verdict"] * ("verdict" in rows)
    table = rich.table.Table()
    for name in names:
        table.add_column("" if name == "rank" else name, overflow="fold")
    paths = [pathlib.Path(from_text(path)).relative_to(folder) for path in rows.path]
    rows = rows.assign(
        distance=rows.distance.map("{:.3f}".format), image=[to_text(str(path)) for path in paths]
    )
    for row in rows[names].astype(str).itertuples(index=False):
        table.add_row(*map(rich.markup.escape, row))
    rich.console.Console().print(table)


def draw(answers: pd.DataFrame, form: images.ImageForm, sheet: pathlib.Path) -> None:
    """Draws the queries, each beside its neighbours; of many queries several pictures.

    Args:
      answers: from `as_table`.
      form: how images are shown.
      sheet: the first picture; others have a number in their names.
    """
    of_query = list(answers.groupby("query", sort=False))
    written = []
    for start in range(0, len(of_query), _ROWS_OF_SHEET):
        rows = [_row(form, *one) for one in of_query[start : start + _ROWS_OF_SHEET]]
        number = start // _ROWS_OF_SHEET + 1
        written.append(sheet.with_stem(f"{sheet.stem}-{number}") if start else sheet)
        figure = plots.contact_sheet(rows)
        plots.write(figure, written[-1])
        plt.close(figure)
    more = f" to {written[-1]}" if len(written) > 1 else ""
    print(f"written to {sheet}{more}")


def _row(form, query, found):
    row = [(form.read(from_text(query)), "query", "black")]
    for path, label, distance in zip(found.path, found["class"], found.distance, strict=True):
        row.append((form.read(from_text(path)), f"{label}\n{distance:.3f}".strip(), plots.GREY))
    return row


if __name__ == "__main__":
    command.run(main, again="Run the same command again: the images embedded so far are kept.")
