"""Which files a folder holds, and the class of each: one answer for every program.

A path below the folder reads `[SPLIT/]CLASS[/SESSION]/file`. Links are followed, and every file is
listed once, however many names lead to it.
"""

import collections
import dataclasses
import os
import pathlib
import stat

from triplet_jax import errors
from triplet_jax.data import decoding, images
from triplet_jax.data.file_names import to_text

# What the folders of a data set with official splits are called, in any case.
SPLIT_FOLDERS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation"), "validation"),
    # Queries are looked for in a gallery: both are for the test.
    **dict.fromkeys(("test", "testing", "query", "gallery"), "test"),
}


@dataclasses.dataclass(frozen=True)
class Layout:
    """What the folders above a file mean.

    Args:
      class_level: how many folders make the class. With 1, `cat/tabby/1.jpg` is of the class "cat"
        and the session "tabby"; with 2 it is of the class "cat/tabby".
      has_splits: whether the first folder is the split, as in `train/cat/1.jpg`, and no class.
    """

    class_level: int = 1
    has_splits: bool = False

    def place(self, relative: pathlib.PurePath) -> tuple[str, str, str]:
        """The split, the class and the session of a file, each "" where it has none.

        Args:
          relative: the path of the file, from the top of the folder.
        """
        folders = [to_text(part) for part in relative.parts[:-1]]
        split = folders.pop(0) if self.has_splits and folders else ""
        below = folders[self.class_level :]
        return split, "/".join(folders[: self.class_level]), below[0] if below else ""


@dataclasses.dataclass(frozen=True)
class File:
    """One file of a folder, with its place by the layout; what it has not is "".

    Args:
      path: where it can be opened.
      split: the name of the split's folder.
      label: its class; "" for a file that lies in no class folder.
      session: the folder below the class.
    """

    path: pathlib.Path
    split: str
    label: str
    session: str


@dataclasses.dataclass(frozen=True)
class PassedOver:
    """What was met and is not in the list.

    Args:
      path: of it.
      why: such as "is a link to x.jpg, which does not exist".
      is_lost: whether an image, or a class of it, may be missing because of it. It is not where
        the same file is listed already with the same split and class.
    """

    path: pathlib.Path
    why: str
    is_lost: bool

    def __str__(self) -> str:
        return f"{to_text(str(self.path))} {self.why}"


@dataclasses.dataclass(frozen=True)
class Listing:
    """The files of a folder in the order of their paths, and what was passed over."""

    files: tuple[File, ...]
    passed_over: tuple[PassedOver, ...]

    @property
    def paths(self) -> list[pathlib.Path]:
        return [file.path for file in self.files]

    @property
    def lost(self) -> list[PassedOver]:
        """What may be missing from the list."""
        return [one for one in self.passed_over if one.is_lost]

    @property
    def report(self) -> str:
        """What was passed over and why, a line each, the first few; "" where nothing was."""
        return _first_lines(self.passed_over)

    def check_nothing_is_lost(self, bad_images: str, *, field: str = "bad_images") -> None:
        """Refuses a folder with links that lead nowhere, files of two classes, and the like.

        Args:
          bad_images: "refuse" or "skip", which leaves them out.
          field: what that choice is called in messages.

        Raises:
          InputError: naming them, if `bad_images` is "refuse".
        """
        if self.lost and bad_images == "refuse":
            raise errors.InputError(
                f"{len(self.lost)} names in the folder have no file of their own to read:\n"
                f"{_first_lines(self.lost)}\n"
                f"Mend or remove them, or set {field}='skip' to leave them out."
            )


def _first_lines(passed_over):
    more = len(passed_over) - errors.MOST_LISTED
    lines = [f"  {one}" for one in passed_over[: errors.MOST_LISTED]]
    return "\n".join([*lines, *([f"  ... and {more} more"] if more > 0 else [])])


def layout_of(root: pathlib.Path, *, class_level: int = 1) -> Layout:
    """The layout of a folder; its first folders are splits where their names say so.

    They do where all are called by a name in `SPLIT_FOLDERS`, or where there is one for training
    and one for another split. A single class that is called "train" beside others is a class.
    """
    # Not by scandir, whose is_dir raises an error for a link to itself.
    names = [n for n in os.listdir(root) if n[0] != "." and os.path.isdir(os.path.join(root, n))]
    splits = {SPLIT_FOLDERS.get(name.lower()) for name in names}
    known = splits - {None}
    has_splits = bool(known) and (None not in splits or ("train" in known and len(known) > 1))
    return Layout(class_level=class_level, has_splits=has_splits)


def find(root: pathlib.Path, layout: Layout) -> Listing:
    """All files of a folder and the folders below it, each once, but for what is hidden.

    A name that begins with a dot is hidden. Links to files and folders are followed. Of several
    names of one file, its own place comes before links to it, a place in a class folder before one
    in none, and then the first in order; hard links count as files of their own. A link that leads
    to a folder it lies in is passed over.

    Args:
      root: the folder.
      layout: says what class a file is of.
    """
    walk = _Walk(root, layout)
    walk.go()
    files = [
        File(root / relative, *layout.place(relative))
        for relative in sorted(walk.files, key=lambda path: path.parts)
    ]
    passed_over = sorted(walk.passed_over, key=lambda one: one.path.parts)
    return Listing(tuple(files), tuple(passed_over))


def in_classes(listing: Listing) -> Listing:
    """The files that lie in a class folder; others are passed over."""
    loose = [
        PassedOver(file.path, "lies in no class folder", is_lost=False)
        for file in listing.files
        if not file.label and file.path.suffix.lower() in images.SUFFIXES
    ]
    files = tuple(file for file in listing.files if file.label)
    return Listing(files, (*listing.passed_over, *loose))


def only_images(
    listing: Listing,
    bad_images: str,
    *,
    field: str = "bad_images",
    max_pixels: int = decoding.MAX_PIXELS,
) -> Listing:
    """The files that can be read as images; a choice is needed where names lead to no file, too.

    Args:
      listing: from `find`.
      bad_images: "refuse" or "skip" what is no readable image.
      field: what that choice is called in messages.
      max_pixels: an image of more pixels cannot be read.

    Raises:
      InputError: some cannot be read, or `Listing.lost` is not empty, and `bad_images` is "refuse".
    """
    kept = set(images.keep_images(listing.paths, bad_images, field=field, max_pixels=max_pixels))
    listing.check_nothing_is_lost(bad_images, field=field)
    return dataclasses.replace(listing, files=tuple(f for f in listing.files if f.path in kept))


class _Walk:
    """Folders first, then links in the order in which they were met, at last loose files."""

    def __init__(self, root: pathlib.Path, layout: Layout):
        self.root, self.layout = root, layout
        self.files, self.passed_over = [], []
        # By its real path, the name under which a file or a folder was first met.
        self._first_names = {}
        self._folders, self._links, self._loose = [], collections.deque(), []

    def go(self):
        self._add_folder(pathlib.PurePath(), os.path.realpath(self.root))
        while self._folders or self._links:
            if self._folders:
                self._open(*self._folders.pop())
            else:
                self._follow(*self._links.popleft())
        for relative, real in self._loose:
            self._add_file(relative, real)

    def _open(self, folder, real):
        try:
            with os.scandir(real) as entries:
                found = sorted(entries, key=lambda entry: entry.name)
        except OSError as error:
            self._pass_over(folder, f"cannot be listed: {error.strerror}", is_lost=True)
            return
        for entry in found:
            relative = folder / entry.name
            if entry.name[0] == ".":
                continue
            if entry.is_symlink():
                self._links.append((relative, real))
            elif entry.is_dir():
                self._add_folder(relative, entry.path)
            elif not entry.is_file():
                self._pass_over(relative, "is no regular file", is_lost=False)
            elif self.layout.place(relative)[1]:
                self._add_file(relative, entry.path)
            else:
                self._loose.append((relative, entry.path))

    def _follow(self, relative, folder):
        """Follows a link that lies in the folder with this real path."""
        try:
            real = os.path.realpath(os.path.join(folder, relative.name), strict=True)
            mode = os.stat(real).st_mode
        except OSError as error:
            target = to_text(os.readlink(os.path.join(folder, relative.name)))
            why = {FileNotFoundError: "which does not exist"}.get(type(error), error.strerror)
            self._pass_over(relative, f"is a link to {target}: {why}", is_lost=True)
            return
        if stat.S_ISDIR(mode):
            if pathlib.PurePath(folder).is_relative_to(real):
                self._pass_over(relative, "is a link to a folder that it lies in", is_lost=False)
            else:
                self._add_folder(relative, real)
        elif not stat.S_ISREG(mode):
            self._pass_over(relative, "is no regular file", is_lost=False)
        elif self.layout.place(relative)[1]:
            self._add_file(relative, real)
        else:
            self._loose.append((relative, real))

    def _add_file(self, relative, real):
        first = self._first_names.setdefault(real, relative)
        if first == relative:
            self.files.append(relative)
            return
        here, there = (self.layout.place(name)[:2] for name in (relative, first))
        self._pass_over_again(relative, first, differs=here[1] != "" and here != there)

    def _add_folder(self, relative, real):
        first = self._first_names.setdefault(real, relative)
        if first == relative:
            self._folders.append((relative, real))
        elif relative.is_relative_to(first):
            self._pass_over(relative, "is a link to a folder that it lies in", is_lost=False)
        else:
            here, there = (self.layout.place(name / "file")[:2] for name in (relative, first))
            self._pass_over_again(relative, first, differs=here != there)

    def _pass_over_again(self, relative, first, *, differs):
        other = ", which has another class or split" if differs else ""
        why = f"is another name of {to_text(str(self.root / first))}{other}"
        self._pass_over(relative, why, is_lost=differs)

    def _pass_over(self, relative, why, *, is_lost):
        self.passed_over.append(PassedOver(self.root / relative, why, is_lost))
