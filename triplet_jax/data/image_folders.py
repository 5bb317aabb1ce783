"""A data set from a folder of images: its classes, and how its splits are made."""

import os
import pathlib
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

from triplet_jax import errors
from triplet_jax.data import folder_layout, folder_listing, named_splits, splits
from triplet_jax.data.dataset import Dataset
from triplet_jax.data.file_names import some, to_text
from triplet_jax.data.folder_layout import Layout
from triplet_jax.data.folder_listing import File
from triplet_jax.data.images import ImageForm, Images
from triplet_jax.data.splits import HeldOut

SPLIT_BY = ("image", "class", "group", "official")


def folder(
    path: str,
    *,
    form: ImageForm,
    split_by: str,
    held_out: HeldOut,
    bad_images: str,
    class_level: int = 1,
) -> Dataset:
    """A data set of a folder that holds a folder of images for every class.

        birds = data.folder(
            "birds",
            form=images.ImageForm(size=64, channels=3),
            split_by="class",
            held_out=data.HeldOut(test=0.2, validation=0.1, seed=0),
            bad_images="skip",
        )

    Args:
      path: the folder; `path/cat/1.jpg` is an image of the class "cat". `folder_listing.find`
        says which files count.
      form: what every image is brought to when it is read.
      split_by: what is held out: "image" images of every class, "class" whole classes, "group"
        whole sessions. A session is a folder below a class, as in `path/cat/monday/1.jpg`;
        folders of one name in several classes are one session. "official" takes the split from
        the first folder, as in `path/train/cat/1.jpg`; `named_splits.SPLITS` has the
        names.
      held_out: how much is held out. For "official" only the share of validation counts, and
        only if no folder is for validation: `splits.with_test` then holds it out of training.
      bad_images: whether to "refuse" or to "skip" files that cannot be read as images.
      class_level: how many folders make the class; with 2, `path/cat/tabby/1.jpg` has the class
        "cat/tabby". The first of several is the category of the class: its `groups`.

    Raises:
      InputError: there is no such folder, it cannot be listed, it holds no class folders with
        images, a file cannot be read as an image, a link leads nowhere, or its folders do not fit
        `split_by`.
    """
    errors.check_known("split_by", split_by, SPLIT_BY)
    root = pathlib.Path(path)
    if not os.path.isdir(path):
        raise errors.InputError(
            f"path={path!r} is not a folder. Give a folder that holds one folder of images for"
            " every class."
        )
    layout = folder_layout.layout_of(root, class_level=class_level)
    listing = folder_listing.in_classes(folder_listing.find(root, layout))
    _check_splits(path, listing.files, layout, split_by)
    listing = folder_listing.only_images(listing, bad_images, max_pixels=form.max_pixels)
    if not listing.files:
        raise errors.InputError(
            f"path={path!r} holds no images in class folders. Put the images of every class into a"
            f" folder of its own, such as {root / 'cat' / '1.jpg'}."
        )
    found, labels = np.unique([file.label for file in listing.files], return_inverse=True)
    class_names, labels = tuple(map(str, found)), labels.astype(np.int32)
    notes = [f"passed over in {to_text(path)}:\n{listing.report}"] if listing.report else []
    sessions = np.array([file.session for file in listing.files])
    is_query = None
    if split_by == "official":
        names = np.array([file.split for file in listing.files])
        split = named_splits.official(f"path={path!r}", names, labels, held_out)
        is_query = named_splits.queries_of(names)
    elif split_by == "group":
        _check_sessions(path, listing.files)
        split = splits.of_groups(labels, sessions, held_out)
        source = f"path={path!r}"
        notes += splits.notes_on_groups(split, labels, sessions, held_out, source=source)
    else:
        notes += _notes_on_nesting(path, listing.files, class_names, class_level)
        split = splits.at_random(labels, held_out, by=split_by)
    return Dataset(
        Images([str(file) for file in listing.paths], form),
        labels,
        split,
        class_names,
        groups=_categories(class_names) if class_level > 1 else None,
        notes=tuple(notes),
        names=np.array([to_text(str(file.relative_to(root))) for file in listing.paths]),
        sessions=sessions if sessions.all() else None,
        is_query=is_query,
    )


def _check_splits(path: str, files: Sequence[File], layout: Layout, split_by: str) -> None:
    """Refuses split folders that would become classes, and official splits without such folders.

    Raises:
      InputError: the message names the folders.
    """
    first = sorted({file.split or file.label.split("/")[0] for file in files})
    if layout.has_splits and split_by != "official":
        raise errors.InputError(
            f"path={path!r}: split_by={split_by!r} would take the folders {some(first)} for"
            " classes, but they have the names of splits. Set split_by='official' to use them as"
            " splits, or give the folder that holds the class folders. If they are classes, rename"
            " them."
        )
    if split_by != "official":
        return
    known = ", ".join(named_splits.SPLITS)
    unknown = [name for name in first if name.lower() not in named_splits.SPLITS]
    if unknown or not layout.has_splits:
        raise errors.InputError(
            f"path={path!r}: split_by='official' takes the first folders for splits, which may"
            f" be called {known}, and there are {some(first)}. Rename or move the others, or set"
            " split_by='image', 'class' or 'group'."
        )


def _categories(class_names: Sequence[str]) -> Int[np.ndarray, "classes"]:
    """The first folder of each class, as a number."""
    first = [name.split("/")[0] for name in class_names]
    return np.unique(first, return_inverse=True)[1]


def _check_sessions(path: str, files: Sequence[File]) -> None:
    without = [file for file in files if not file.session]
    if without:
        raise errors.InputError(
            f"path={path!r}: split_by='group' needs a folder for each session below"
            f" each class, such as cat/monday/1.jpg, and {len(without)} of {len(files)} images lie"
            f" in none, such as {to_text(str(without[0].path))}. Move them, or split by image or"
            " class."
        )


def _notes_on_nesting(
    path: str, files: Sequence[File], names: Sequence[str], class_level: int
) -> list[str]:
    """A note if all class folders hold only folders. If there is one such class, it is refused."""
    if not all(file.session for file in files):
        return []
    below = sorted({file.session for file in files})
    note = (
        f"path={to_text(path)}: the folders {some(names)} are taken for classes. They hold"
        f" no images, only the folders {some(below)}. If these are the classes, set"
        f" class_level={class_level + 1}; if they are sessions, set"
        " split_by='group'."
    )
    if len(names) == 1:
        raise errors.InputError(note)
    return [note]
