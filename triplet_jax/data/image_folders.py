"""A data set of a folder of images: its classes, and how its splits are made."""

import pathlib

import numpy as np

from triplet_jax import errors
from triplet_jax.data import folder_layout, folder_listing, splits
from triplet_jax.data.dataset import Dataset
from triplet_jax.data.file_names import to_text
from triplet_jax.data.images import ImageForm, Images

SPLIT_BY = ("image", "class", "group", "official")


def folder(
    path: str,
    *,
    form: ImageForm,
    split_by: str,
    test_fraction: float,
    validation_fraction: float,
    seed: int,
    bad_images: str,
    class_level: int = 1,
) -> Dataset:
    """A folder with a folder of images for every class, listed by `folder_listing.find`.

    Args:
      path: the folder; `path/cat/1.jpg` is an image of the class "cat".
      form: what every image is brought to.
      split_by: "image" holds out images of every class and "class" whole classes. "group" holds
        out whole sessions, the folders below a class, as in `path/cat/monday/1.jpg`; sessions of
        one name in several classes are one session. "official" takes the splits from the first
        folder, as in `path/train/cat/1.jpg`, by `folder_layout.SPLIT_FOLDERS`.
      test_fraction: held out for the test; not for "official".
      validation_fraction: held out for validation. For "official", where there is no folder for
        validation: of training, by class where training and test share none, else by image.
      seed: of the choice.
      bad_images: "refuse" or "skip" files that are no readable image.
      class_level: how many folders make the class; with 2, `path/cat/tabby/1.jpg` is of the class
        "cat/tabby".

    Raises:
      InputError: there is no such folder, it holds no class folders with images, a file cannot be
        read as an image, a link leads nowhere, or its folders do not fit `split_by`.
    """
    errors.check_known("dataset.split_by", split_by, SPLIT_BY)
    root = pathlib.Path(path)
    if not path or not root.is_dir():
        raise errors.InputError(
            f"dataset.path={path!r} is not a folder. Give a folder that holds one folder of"
            " images for every class."
        )
    layout = folder_layout.layout_of(root, class_level=class_level)
    listing = folder_listing.in_classes(folder_listing.find(root, layout))
    _check_splits(path, listing.files, layout, split_by)
    listing = folder_listing.only_images(
        listing, bad_images, field="dataset.bad_images", max_pixels=form.max_pixels
    )
    if not listing.files:
        raise errors.InputError(
            f"dataset.path={path!r} holds no images in class folders. Put the images of every"
            f" class into a folder of its own, such as {root / 'cat' / '1.jpg'}."
        )
    names, labels = np.unique([file.label for file in listing.files], return_inverse=True)
    labels = labels.astype(np.int32)
    notes = [f"passed over in {to_text(path)}:\n{listing.report}"] if listing.report else []
    fractions = {"test_fraction": test_fraction, "validation_fraction": validation_fraction}
    if split_by == "official":
        split = _official(path, listing.files, labels, validation_fraction, seed)
    elif split_by == "group":
        _check_sessions(path, listing.files)
        sessions = np.array([file.session for file in listing.files])
        split, more = split_groups(path, labels, sessions, seed=seed, **fractions)
        notes += more
    else:
        notes += _notes_on_nesting(path, listing.files, names, class_level)
        split = splits.at_random(labels, by=split_by, seed=seed, **fractions)
    return Dataset(
        Images([str(file) for file in listing.paths], form),
        labels,
        split,
        tuple(map(str, names)),
        notes=tuple(notes),
        names=np.array([to_text(str(file.relative_to(root))) for file in listing.paths]),
    )


def _check_splits(path, files, layout, split_by):
    """Refuses splits as classes, and official splits whose folders are not called so.

    Raises:
      InputError: naming the folders.
    """
    first = sorted({file.split or file.label.split("/")[0] for file in files})
    if layout.has_splits and split_by != "official":
        raise errors.InputError(
            f"dataset.path={path!r}: dataset.split_by={split_by!r} would take the folders"
            f" {_some(first)} for classes, and they are called as splits are. Set"
            " dataset.split_by='official' to use them as splits, or dataset.path to the one that"
            " holds the class folders. If they are classes, rename them."
        )
    if split_by != "official":
        return
    known = ", ".join(folder_layout.SPLIT_FOLDERS)
    unknown = [name for name in first if name.lower() not in folder_layout.SPLIT_FOLDERS]
    if unknown or not layout.has_splits:
        raise errors.InputError(
            f"dataset.path={path!r}: dataset.split_by='official' takes the first folders for"
            f" splits, which may be called {known}, and there are {_some(first)}. Rename or move"
            " the others, or set dataset.split_by to 'image', 'class' or 'group'."
        )


def _official(path, files, labels, validation_fraction, seed):
    """The split of every example by its folder; validation out of training where it has none."""
    split = np.array([folder_layout.SPLIT_FOLDERS[file.split.lower()] for file in files])
    for needed in ("train", "test"):
        if needed not in split:
            raise errors.InputError(
                f"dataset.path={path!r}: no folder holds images of the split {needed!r}, only"
                f" {_some(sorted({file.split for file in files}))}. Add one, or set dataset.path"
                " to the folder of the classes, and dataset.split_by to 'image' or 'class'."
            )
    if "validation" in split:
        return split
    held_test = split == "test"
    shared = np.intersect1d(labels[held_test], labels[~held_test]).size > 0
    by = "image" if shared else "class"
    return splits.hold_out_of_rest(labels, held_test, validation_fraction, by=by, seed=seed)


def _check_sessions(path, files):
    without = [file for file in files if not file.session]
    if without:
        raise errors.InputError(
            f"dataset.path={path!r}: dataset.split_by='group' needs a folder for each session below"
            f" each class, such as cat/monday/1.jpg, and {len(without)} of {len(files)} images lie"
            f" in none, such as {to_text(str(without[0].path))}. Move them, or split by image or"
            " class."
        )


def split_groups(path, labels, groups, *, test_fraction, **how):
    """The split by groups, and notes on classes of which nothing can be held out.

    Raises:
      InputError: nothing can be held out at all.
    """
    split = splits.of_groups(labels, groups, test_fraction=test_fraction, **how)
    _, codes = np.unique(groups, return_inverse=True)
    if test_fraction and "test" not in split:
        raise errors.InputError(
            f"dataset.path={path!r}: dataset.split_by='group' can hold out none of the"
            f" {codes.max() + 1} groups, since each holds all examples of some class. Have two"
            " groups or more of every class, or split by image or class."
        )
    pairs = np.unique(np.stack([labels, codes]), axis=1)
    alone = int((np.bincount(pairs[0]) == 1).sum())
    return split, [f"{alone} classes have a single group, which stays in training"] if alone else []


def _notes_on_nesting(path, files, names, class_level):
    """A note where every class folder holds folders alone; a single such class is refused."""
    if not all(file.session for file in files):
        return []
    below = sorted({file.session for file in files})
    said = (
        f"dataset.path={to_text(path)}: the folders {_some(names)} are taken for classes. They hold"
        f" no images but the folders {_some(below)}. If these are the classes, set"
        f" dataset.class_level={class_level + 1}; if they are sessions, set"
        " dataset.split_by='group'."
    )
    if len(names) == 1:
        raise errors.InputError(said)
    return [said]


def _some(names):
    more = len(names) - 8
    return ", ".join(repr(str(n)) for n in names[:8]) + (f" and {more} more" if more > 0 else "")
