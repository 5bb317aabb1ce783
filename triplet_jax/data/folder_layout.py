"""What a file's place in a folder says of it: its split, its class and its session.

A path below the folder reads `[SPLIT/]CLASS[/SESSION]/file`.
"""

import dataclasses
import os
import pathlib

from triplet_jax import errors
from triplet_jax.data.file_names import to_text
from triplet_jax.data.named_splits import SPLITS


@dataclasses.dataclass(frozen=True)
class Layout:
    """What the folders above a file mean.

    >>> Layout(class_level=2).place(pathlib.PurePath("cat/tabby/monday/1.jpg"))
    ('', 'cat/tabby', 'monday')
    >>> Layout(has_splits=True).place(pathlib.PurePath("train/cat/1.jpg"))
    ('train', 'cat', '')

    Args:
      class_level: how many folders make the class. With 1, `cat/tabby/1.jpg` has the class "cat"
        and the session "tabby"; with 2 it has the class "cat/tabby".
      has_splits: whether the first folder names the split, as in `train/cat/1.jpg`.
    """

    class_level: int = 1
    has_splits: bool = False

    def place(self, relative: pathlib.PurePath) -> tuple[str, str, str]:
        """The split, the class and the session of a file; "" for each that it does not have.

        Args:
          relative: the path of the file, from the top of the folder.
        """
        folders = [to_text(part) for part in relative.parts[:-1]]
        split = folders.pop(0) if self.has_splits and folders else ""
        below = folders[self.class_level :]
        return split, "/".join(folders[: self.class_level]), below[0] if below else ""


def layout_of(root: pathlib.Path, *, class_level: int = 1) -> Layout:
    """The layout of a folder, which has splits where the names of its first folders say so.

    They say so if every one of them is in `named_splits.SPLITS`, or if one is for training and one
    for another split. A lone folder "train" among others is a class.

    Raises:
      InputError: the folder cannot be listed.
      OSError: the file system does not answer.
    """
    try:
        listed = os.listdir(root)
    except OSError as error:
        errors.check_answers(error)
        raise errors.InputError(
            f"path={str(root)!r} cannot be listed: {error.strerror}. See whether this user may read"
            " it."
        ) from error
    # Not by scandir, whose is_dir raises an error for a link to itself.
    names = [n for n in listed if n[0] != "." and os.path.isdir(os.path.join(root, n))]
    splits = {SPLITS.get(name.lower()) for name in names}
    known = splits - {None}
    has_splits = bool(known) and (None not in splits or ("train" in known and len(known) > 1))
    return Layout(class_level=class_level, has_splits=has_splits)
