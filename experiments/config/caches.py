"""Folders that keep, for all runs, what takes long to find."""

import os
import pathlib


def folder(name: str) -> pathlib.Path:
    """A folder of this project in the user's cache folder."""
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return pathlib.Path(cache, "triplet_jax", name)
