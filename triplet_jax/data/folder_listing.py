"""Lists the files of a folder, each with its split, class and session, for every program.

Links are followed, and every file is listed once, however many names lead to it.
"""

import collections
import dataclasses
import os
import pathlib
import stat
from collections.abc import Sequence

from triplet_jax import errors
from triplet_jax.data import decoding
from triplet_jax.data.file_names import to_text
from triplet_jax.data.folder_layout import Layout
from triplet_jax.data.image_checks import Faults


@dataclasses.dataclass(frozen=True)
class File:
    """One file of a folder.

    Args:
      path: where it can be opened.
      split: the name of its split folder; "" where the layout has no splits.
      label: its class; "" for a file outside of every class folder.
      session: the folder below its class folder; "" where there is none.
    """

    path: pathlib.Path
    split: str
    label: str
    session: str


@dataclasses.dataclass(frozen=True)
class PassedOver:
    """A name that was met and left out of the list.

    Args:
      path: the name.
      why: the reason, such as "is a link to x.jpg, which does not exist".
      is_lost: whether the list may now lack an image, or a class of an image. It lacks nothing
        if it has the same file with the same split and class under another name.
    """

    path: pathlib.Path
    why: str
    is_lost: bool

    def __str__(self) -> str:
        return f"{to_text(str(self.path))} {self.why}"


@dataclasses.dataclass(frozen=True)
class Listing:
    """The files of a folder in the order of their paths, and the names that were passed over."""

    files: tuple[File, ...]
    passed_over: tuple[PassedOver, ...]

    @property
    def paths(self) -> list[pathlib.Path]:
        """The path of every file."""
        return [file.path for file in self.files]

    @property
    def lost(self) -> list[PassedOver]:
        """The names by which the list may lack an image."""
        return [one for one in self.passed_over if one.is_lost]

    @property
    def report(self) -> str:
        """A line for each of the first names that were passed over; "" where there are none."""
        return _first_lines(self.passed_over)

    def check_nothing_is_lost(self, bad_images: str) -> None:
        """Refuses a folder in which a link leads nowhere, a file has two classes, and the like.

        Args:
          bad_images: "refuse" them, or "skip" them: they are then left out.

        Raises:
          InputError: names are lost, and `bad_images` is "refuse"; the message lists them.
        """
        if self.lost and bad_images == "refuse":
            raise errors.InputError(
                f"{len(self.lost)} names in the folder have no file of their own to read:\n"
                f"{_first_lines(self.lost)}\n"
                f"Mend or remove them, or set bad_images='skip' to leave them out."
            )


def _first_lines(passed_over: Sequence[PassedOver]) -> str:
    more = len(passed_over) - errors.MOST_LISTED
    lines = [f"  {one}" for one in passed_over[: errors.MOST_LISTED]]
    return "\n".join([*lines, *([f"  ... and {more} more"] if more > 0 else [])])


def find(root: pathlib.Path, layout: Layout) -> Listing:
    """Lists all files in a folder and below it, each once. Names that begin with a dot are hidden.

    Links to files and folders are followed, except for a link to a folder that contains it. Where
    several names lead to one file, its own name is preferred to a link, a name in a class folder
    to one outside, and then the first in order. Hard links count as files of their own.

    Args:
      root: the folder.
      layout: what the folders above a file mean.
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
    """Keeps the files in class folders, and passes over the images outside of them."""
    loose = [
        PassedOver(file.path, "lies in no class folder", is_lost=False)
        for file in listing.files
        if not file.label and file.path.suffix.lower() in decoding.SUFFIXES
    ]
    files = tuple(file for file in listing.files if file.label)
    return Listing(files, (*listing.passed_over, *loose))


def only_images(
    listing: Listing,
    bad_images: str,
    *,
    max_pixels: int = decoding.MAX_PIXELS,
) -> Listing:
    """Keeps the files that can be read as images, and passes over the others.

    Args:
      listing: from `find`.
      bad_images: whether to "refuse" or to "skip" unreadable files, and the names in
        `listing.lost`.
      max_pixels: an image of more pixels cannot be read.

    Raises:
      InputError: `bad_images` is "refuse", and there is an unreadable file or a lost name.
    """
    paths = list(map(str, listing.paths))
    faults = Faults.of(paths, lambda i: paths[i], max_pixels)
    faults.check(len(paths), bad_images)
    listing.check_nothing_is_lost(bad_images)
    why = dict(zip(faults.positions.tolist(), faults.reasons.tolist(), strict=True))
    bad = [
        PassedOver(listing.files[i].path, f"cannot be read as an image: {why[i]}", is_lost=True)
        for i in why
    ]
    files = tuple(file for i, file in enumerate(listing.files) if i not in why)
    return Listing(files, (*listing.passed_over, *bad))


class _Walk:
    """Visits folders first, then links in the order in which they were met, then loose files.

    A loose file lies in no class folder. In this order the name of a file that `find` prefers is
    met first, and decides. `relative` is a name seen from the root, `real` the path it leads to.
    """

    def __init__(self, root: pathlib.Path, layout: Layout):
        self.root, self.layout = root, layout
        self.files: list[pathlib.PurePath] = []
        self.passed_over: list[PassedOver] = []
        # The name under which each file or folder was first met, by its real path.
        self._first_names: dict[str, pathlib.PurePath] = {}
        self._folders, self._links, self._loose = [], collections.deque(), []

    def go(self) -> None:
        self._add_folder(pathlib.PurePath(), os.path.realpath(self.root))
        while self._folders or self._links:
            if self._folders:
                self._open(*self._folders.pop())
            else:
                self._follow(*self._links.popleft())
        for relative, real in self._loose:
            self._add_file(relative, real)

    def _open(self, folder: pathlib.PurePath, real: str) -> None:
        try:
            with os.scandir(real) as entries:
                found = sorted(entries, key=lambda entry: entry.name)
        except OSError as error:
            errors.check_answers(error)
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

    def _follow(self, relative: pathlib.PurePath, folder: str) -> None:
        """Follows a link that lies in the folder with the real path `folder`."""
        try:
            real = os.path.realpath(os.path.join(folder, relative.name), strict=True)
            mode = os.stat(real).st_mode
        except OSError as error:
            errors.check_answers(error)
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

    def _add_file(self, relative: pathlib.PurePath, real: str) -> None:
        first = self._first_names.setdefault(real, relative)
        if first == relative:
            self.files.append(relative)
            return
        here, there = (self.layout.place(name)[:2] for name in (relative, first))
        self._pass_over_again(relative, first, differs=here[1] != "" and here != there)

    def _add_folder(self, relative: pathlib.PurePath, real: str) -> None:
        first = self._first_names.setdefault(real, relative)
        if first == relative:
            self._folders.append((relative, real))
        elif relative.is_relative_to(first):
            self._pass_over(relative, "is a link to a folder that it lies in", is_lost=False)
        else:
            here, there = (self.layout.place(name / "file")[:2] for name in (relative, first))
            self._pass_over_again(relative, first, differs=here != there)

    def _pass_over_again(
        self, relative: pathlib.PurePath, first: pathlib.PurePath, *, differs: bool
    ) -> None:
        other = ", which has another class or split" if differs else ""
        why = f"is another name of {to_text(str(self.root / first))}{other}"
        self._pass_over(relative, why, is_lost=differs)

    def _pass_over(self, relative: pathlib.PurePath, why: str, *, is_lost: bool) -> None:
        self.passed_over.append(PassedOver(self.root / relative, why, is_lost))
