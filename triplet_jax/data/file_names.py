"""File names as text that can be printed and stored, also where they are not UTF-8."""

import re


def to_text(path: str) -> str:
    r"""A path as text that can be printed and stored; `from_text` makes the path of it again.

    Linux keeps names as bytes, and Python gives a byte that is not UTF-8 as half of a surrogate
    pair, which no encoder writes. Such a byte becomes `\xe9`, and each backslash beside it two. A
    name in UTF-8 is left as it is, unless it would read as one with such a byte.
    """
    if from_text(path) == path and not re.search("[\udc80-\udcff]", path):
        return path
    doubled = path.replace("\\", "\\\\")
    return re.sub("[\udc80-\udcff]", lambda half: f"\\x{ord(half[0]) - 0xDC00:02x}", doubled)


def from_text(text: str) -> str:
    """The path that `to_text` was given."""
    return re.sub(
        r"\\(?:\\|x([89a-f][0-9a-f]))",
        lambda found: chr(0xDC00 + int(found[1], 16)) if found[1] else "\\",
        text,
    )
