"""File names as text that can be printed and stored, even if they are not UTF-8."""

import re
from collections.abc import Sequence

_SHOWN = 8


def to_text(path: str) -> str:
    r"""Turns a path into text that can be printed and stored; `from_text` turns it back.

    Linux keeps names as bytes. Python holds a byte that is not UTF-8 as half of a surrogate pair,
    which cannot be printed. Such a byte becomes its escape, such as `\xe9`, and the backslashes of
    that name are doubled. A name in UTF-8 stays as it is, unless it looks like an escaped one.

    >>> to_text("caf\udce9.jpg")
    'caf\\xe9.jpg'
    """
    if from_text(path) == path and not re.search("[\udc80-\udcff]", path):
        return path
    doubled = path.replace("\\", "\\\\")
    return re.sub("[\udc80-\udcff]", lambda half: f"\\x{ord(half[0]) - 0xDC00:02x}", doubled)


def from_text(text: str) -> str:
    """Turns text from `to_text` back into the path."""
    return re.sub(
        r"\\(?:\\|x([89a-f][0-9a-f]))",
        lambda found: chr(0xDC00 + int(found[1], 16)) if found[1] else "\\",
        text,
    )


def some(names: Sequence[str]) -> str:
    """The first names for a message, and how many more there are.

    >>> some(["a", "b"])
    "'a', 'b'"
    """
    more = len(names) - _SHOWN
    shown = ", ".join(repr(str(name)) for name in names[:_SHOWN])
    return shown + (f" and {more} more" if more > 0 else "")
