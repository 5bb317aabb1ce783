"""Galleries that follow folders of images: where each is kept, and how it is brought up to date."""

import contextlib
import hashlib
import math
import pathlib
from collections.abc import Iterator

from experiments import command
from experiments.config import naming
from experiments.run import embedders, lock
from triplet_jax.data import folder_listing
from triplet_jax.data.file_names import to_text
from triplet_jax.evaluation import gallery

# Files that are embedded before they are written: a killed search loses no more.
_AT_A_TIME = 1024
# The most files that a message names.
_SHOWN = 5


def place_of(
    workdir: pathlib.Path, folder: pathlib.Path, gallery_dir: str | None = None
) -> pathlib.Path:
    """The folder that keeps the gallery of a folder of images, which its whole path tells apart.

    Args:
      workdir: of the run.
      folder: of the images.
      gallery_dir: the folder of galleries, which several runs may share; None for `galleries` in
        the workdir.
    """
    followed = str(folder.absolute())
    whose = followed if gallery_dir is None else f"{workdir.absolute()}\n{followed}"
    mark = hashlib.sha256(whose.encode(errors="surrogateescape")).hexdigest()[:8]
    place = workdir.absolute() / "galleries" if gallery_dir is None else pathlib.Path(gallery_dir)
    return place.absolute() / f"{to_text(folder.absolute().name)}-{mark}"


def make_place(place: pathlib.Path) -> None:
    """Makes the folder of a gallery.

    Raises:
      InputError: it cannot be written.
    """
    command.make_folder(
        place, f"The gallery's folder {place}", "Give a folder that can by --gallery_dir."
    )


@contextlib.contextmanager
def following(
    place: pathlib.Path,
    listing: folder_listing.Listing,
    embedder: embedders.Embedder,
    *,
    dim: int,
    bad_images: str = "refuse",
) -> Iterator[gallery.Gallery]:
    """Opens a gallery, embeds what is new in a folder, and locks the gallery until the block ends.

    A process that finds another one at work waits for it, and then has less to embed. A damaged
    gallery is built anew.

    Args:
      place: the folder of the gallery; see `make_place`.
      listing: what the folder holds now.
      embedder: from `embedders.load_embedder`.
      dim: values of an embedding.
      bad_images: "refuse" or "skip" files that are no images.

    Raises:
      InputError: a file is no image, and `bad_images` is "refuse".
    """
    if lock.is_claimed(place):
        print(f"waiting for another process, which uses the gallery in {place}", flush=True)
    with lock.claimed(place, patience=math.inf):
        try:
            found = gallery.Gallery(place, dim=dim)
            if not found.is_compact:
                found.table()  # reads all of it once, since no seal vouches for it
            follow(found, listing, embedder, bad_images)
        except gallery.UnusableError as error:
            print(f"warning: the gallery in {place} {error.why}. It is built anew.", flush=True)
            gallery.remove(place)
            found = gallery.Gallery(place, dim=dim)
            follow(found, listing, embedder, bad_images)
        yield found


@naming.as_flags("bad_images", "max_pixels")
def follow(
    found: gallery.Gallery,
    listing: folder_listing.Listing,
    embedder: embedders.Embedder,
    bad_images: str,
) -> None:
    """Brings a gallery up to date with a folder, and prints what changed.

    Args:
      found: the gallery.
      listing: of the folder.
      embedder: from `embedders.load_embedder`.
      bad_images: "refuse" or "skip" files that are no images.
    """
    files = {to_text(str(file.path)): file for file in listing.files}
    before = found.marks
    encoder = embedder.mark
    marks = {path: f"{_version(file)}-{encoder}" for path, file in files.items()}
    put, gone = gallery.changes(before, marks)
    others = [path for path in put if path in before and not before[path].endswith(f"-{encoder}")]
    if others:
        print(
            f"gallery: {len(others):,} images were embedded by another encoder, or read by other"
            " rules, and are embedded anew.",
            flush=True,
        )
    changed = folder_listing.Listing(tuple(files[path] for path in put), ())
    good = folder_listing.only_images(
        changed, bad_images, max_pixels=embedder.form.max_pixels
    ).files
    bad = sorted(set(put) - {to_text(str(file.path)) for file in good})
    if bad:
        more = f" and {len(bad) - _SHOWN:,} more" if len(bad) > _SHOWN else ""
        print(f"passed over, as no images: {', '.join(bad[:_SHOWN])}{more}")
    gone += [path for path in bad if path in before]
    found.remove(gone)
    for start in range(0, len(good), _AT_A_TIME):
        some = good[start : start + _AT_A_TIME]
        paths = [to_text(str(file.path)) for file in some]
        embeddings = embedder([file.path for file in some])
        found.put(paths, [file.label for file in some], [marks[p] for p in paths], embeddings)
        if len(good) > _AT_A_TIME:
            print(f"embedded {start + len(some):,} of {len(good):,}", flush=True)
    if not found.is_compact:
        found.compact()
    if good or gone:
        print(f"gallery: {len(good):,} images embedded, {len(gone):,} removed, {len(found):,} now")


def _version(file):
    """A text that changes whenever the gallery has to take a file anew."""
    status = file.path.stat()
    return f"{status.st_size}-{status.st_mtime_ns}-{file.label}"
