"""Finds the images of a folder that are nearest to one image.

python -m experiments.search --workdir=runs/mine --gallery=FOLDER --query=IMAGE

The embeddings of the folder are kept beside the run: the next search embeds only files that are
new or have changed, and forgets those that are gone.
"""

import hashlib
import pathlib

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import rich.console
import rich.table
from absl import flags

from experiments import command, embed
from triplet_jax import errors, evaluation, folders, gallery, images
from triplet_jax.analysis import plots, run
from triplet_jax.file_names import from_text, to_text

GALLERY = flags.DEFINE_string("gallery", None, "Folder of images, with or without class folders.")
QUERY = flags.DEFINE_string("query", None, "The image to look for.")
NEIGHBOURS = flags.DEFINE_integer("neighbours", 5, "How many to show.")
RATE = flags.DEFINE_float(
    "false_accept_rate", 0.01, "Of two classes, the share of pairs that may pass as the same."
)
APPROXIMATE = flags.DEFINE_bool("approximate", False, "Search by an index; says its recall.")
PARQUET = flags.DEFINE_string("parquet", None, "Also write all embeddings to this .parquet file.")
SHEET = flags.DEFINE_string("sheet", None, "The picture; default search.png in the workdir.")

# Files that are embedded before they are written; a killed search loses no more.
_AT_A_TIME = 1024


def main() -> None:
    workdir = pathlib.Path(command.required(command.WORKDIR, "the folder of a trained run"))
    folder = pathlib.Path(command.required(GALLERY, "a folder of images"))
    query = pathlib.Path(command.required(QUERY, "the image to look for"))
    if not folder.is_dir():
        raise errors.InputError(f"--gallery={folder} is not a folder of images.")
    if not query.is_file():
        raise errors.InputError(f"--query={query} is no file.")
    if NEIGHBOURS.value < 1:
        raise errors.InputError(f"--neighbours={NEIGHBOURS.value} must be at least 1.")
    images.keep_images([query], "refuse")
    listing = embed.find(workdir, folder.absolute())
    listing.check_nothing_is_lost(embed.BAD_IMAGES.value, field="--bad_images")
    if listing.report:
        print(f"passed over:\n{listing.report}")
    files = {to_text(str(file.path)): file for file in listing.files}
    if not files:
        raise errors.InputError(f"--gallery={folder} holds no files.")
    embedder = embed.load_embedder(workdir.absolute())
    embedding = embedder([query])
    found = gallery.Gallery(place_of(workdir, folder), dim=embedding.shape[1])
    follow(found, files, embedder)
    if not len(found):
        raise errors.InputError(f"--gallery={folder} holds no JPEG or PNG images.")
    if APPROXIMATE.value:
        found.build_index()
        recall = found.recall(NEIGHBOURS.value)
        print(f"approximate: finds {recall:.1%} of the {NEIGHBOURS.value} nearest")
    if PARQUET.value:
        found.write_parquet(pathlib.Path(PARQUET.value))
        print(f"{len(found):,} embeddings written to {PARQUET.value}")
    (nearest,) = found.nearest(embedding, NEIGHBOURS.value, approximate=APPROXIMATE.value)
    show(query, nearest, folder.absolute(), calibrate(workdir))
    sheet = pathlib.Path(SHEET.value or workdir / "search.png")
    draw(query, nearest, sheet)
    print(f"written to {sheet}")


def place_of(workdir: pathlib.Path, folder: pathlib.Path) -> pathlib.Path:
    """Where the gallery of a folder is kept; folders are told apart by their whole paths."""
    mark = hashlib.sha256(str(folder.absolute()).encode()).hexdigest()[:8]
    return workdir.absolute() / "galleries" / f"{folder.absolute().name}-{mark}"


def follow(found: gallery.Gallery, files, embedder) -> None:
    """Brings a gallery to what the folder holds now, and prints what changed.

    Args:
      found: the gallery.
      files: by the text of its path, every `folders.File` that the folder holds.
      embedder: from `embed.load_embedder`.
    """
    encoder = embedder.mark
    marks = {path: f"{_version(file.path)}-{encoder}" for path, file in files.items()}
    put, gone = gallery.changes(found.marks, marks)
    found.remove(gone)
    changed = folders.Listing(tuple(files[path] for path in put), ())
    good = folders.only_images(changed, embed.BAD_IMAGES.value, field="--bad_images").files
    for start in range(0, len(good), _AT_A_TIME):
        some = good[start : start + _AT_A_TIME]
        paths = [to_text(str(file.path)) for file in some]
        labels = [file.label for file in some]
        embeddings = embedder([file.path for file in some])
        found.put(paths, labels, [marks[path] for path in paths], embeddings)
        if len(good) > _AT_A_TIME:
            print(f"embedded {start + len(some):,} of {len(good):,}", flush=True)
    if good or gone:
        print(f"gallery: {len(good):,} images embedded, {len(gone):,} removed, {len(found):,} now")


def _version(file):
    status = file.stat()
    return f"{status.st_size}-{status.st_mtime_ns}"


def calibrate(workdir: pathlib.Path) -> evaluation.Accepted | None:
    """The threshold by the run's validation split; None, and says why, where it cannot be had."""
    try:
        of_run = run.load(workdir)
        held_out = of_run.where("validation")
        return gallery.threshold(
            of_run.embeddings[held_out], of_run.labels[held_out], false_accept_rate=RATE.value
        )
    except errors.InputError as error:
        if not 0 < RATE.value < 1:
            raise
        print(f"no threshold: {error}")
        return None


def show(
    query: pathlib.Path, nearest, folder: pathlib.Path, accepted: evaluation.Accepted | None
) -> None:
    """Prints the neighbours, by their paths in the folder."""
    table = rich.table.Table("", "distance", "class", title=f"nearest to {query} in {folder}")
    table.add_column("image", overflow="fold")
    if accepted:
        table.add_column("verdict")
    for rank, row in enumerate(nearest.itertuples(), start=1):
        path = pathlib.Path(from_text(row.path)).relative_to(folder)
        cells = [str(rank), f"{row.distance:.3f}", row.label, to_text(str(path))]
        if accepted:
            cells.append("same" if row.distance <= accepted.threshold else "different")
        table.add_row(*cells)
    rich.console.Console().print(table)
    if accepted:
        print(
            f"same: up to a distance of {accepted.threshold:.3f}. So near are, on the validation"
            f" split, {accepted.true_accepts:.1%} of the pairs of one class and"
            f" {accepted.false_accepts:.2%} of those of two."
        )


def draw(query: pathlib.Path, nearest, sheet: pathlib.Path) -> None:
    """The query and its neighbours as one picture."""
    form = images.ImageForm(size=160, channels=3)
    row = [(form.read(str(query)), "query", "black")]
    for found in nearest.itertuples():
        title = f"{found.label}\n{found.distance:.3f}".strip()
        row.append((form.read(from_text(found.path)), title, plots.GREY))
    figure = plots.contact_sheet([row])
    plots.write(figure, sheet)
    plt.close(figure)


if __name__ == "__main__":
    command.run(main, again="Run the same command again: the images embedded so far are kept.")
