"""Seals a folder: a file of digests shows whether any other file in it has changed since."""

import pathlib

from triplet_jax import errors
from triplet_jax.runs import files

NAME = "seal.json"


def close(folder: pathlib.Path) -> None:
    """Writes the seal: the SHA-256 of every file below a folder.

    Raises:
      OSError: a file cannot be read, or the seal cannot be written.
    """
    files.write_json(folder / NAME, {"files": _digests(folder)})


def is_closed(folder: pathlib.Path) -> bool:
    """Whether a folder has a seal, even one that no longer matches its files."""
    return (folder / NAME).exists()


def open(folder: pathlib.Path) -> None:
    """Removes the seal, before files change. A folder without a seal is not checked."""
    (folder / NAME).unlink(missing_ok=True)


def fault(folder: pathlib.Path) -> str:
    """The first difference from the sealed files; "" if there is none, or no seal."""
    if not is_closed(folder):
        return ""
    try:
        sealed = files.read_json(folder / NAME, "files")["files"]
        if not isinstance(sealed, dict):
            return f"{NAME} holds no digests"
    except errors.InputError:
        return f"{NAME} cannot be read"
    found = _digests(folder)
    for name in sorted(sealed.keys() | found.keys()):
        if name not in found:
            return f"{name} is gone"
        if name not in sealed:
            return f"{name} was added"
        if sealed[name] != found[name]:
            return f"{name} has changed"
    return ""


def _digests(folder: pathlib.Path) -> dict[str, str]:
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    names = [path.relative_to(folder).as_posix() for path in paths]
    return {
        name: files.sha256(path) for name, path in zip(names, paths, strict=True) if name != NAME
    }
