"""Functions of the user's own by their import path, such as `my_parts:nth_band`.

A path is a module, a colon and a name in it: `package.module:function`. The module is looked for
in the working directory and among the installed packages. A run's folder is refused: it may come
from somebody else, and to import code is to run it.
"""

import difflib
import hashlib
import importlib
import importlib.util
import inspect
import os
import pathlib
import re
import sys
import traceback
from collections.abc import Callable
from typing import Any

from triplet_jax import errors

_PATH = re.compile(r"([^\W\d]\w*(?:\.[^\W\d]\w*)*):([^\W\d]\w*)")


def is_path(name: Any) -> bool:
    """Whether a name is an import path: `package.module:function`."""
    return isinstance(name, str) and _PATH.fullmatch(name) is not None


def function(path: str) -> Callable:
    """The function at an import path; its module is imported once.

    Raises:
      InputError: it is no import path, there is no such module, importing it fails, the module has
        no such name, or the name is not that of a function.
    """
    if not is_path(path):
        raise errors.InputError(f"{path!r} is no import path, such as 'my_parts:nth_band'.")
    module_name, _, name = path.partition(":")
    module = _module(path, module_name)
    if not hasattr(module, name):
        near = difflib.get_close_matches(name, dir(module), n=3, cutoff=0.5)
        hint = f" Did you mean {' or '.join(map(repr, near))}?" if near else ""
        raise errors.InputError(f"{path!r}: {_file_of(module)} has no {name!r}.{hint}")
    found = getattr(module, name)
    if not callable(found):
        raise errors.InputError(
            f"{path!r} is a {type(found).__name__} in {_file_of(module)}, and no function."
        )
    try:
        inspect.signature(found)
    except ValueError as error:  # of some functions in C
        raise errors.InputError(f"{path!r} does not say which arguments it takes.") from error
    return found


def _module(path, name):
    working = os.getcwd()
    if not {"", working} & set(sys.path):
        sys.path.insert(0, working)
    importlib.invalidate_caches()  # for a file that was written a moment ago
    top = name.partition(".")[0]
    try:
        spec = importlib.util.find_spec(top)
    except ValueError:  # of __main__, and of modules that are none
        spec = None
    if spec is None:
        raise errors.InputError(
            f"{path!r}: there is no module {top!r}, neither in the working directory {working} nor"
            " among the installed packages. Start the program where the module is, or install it."
        )
    for place in [spec.origin, *(spec.submodule_search_locations or ())]:
        _check_place(path, place)
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise errors.InputError(f"{path!r}: {failure(error)}") from error
        raise errors.InputError(f"{path!r}: there is no module {error.name!r}.") from error
    except Exception as error:
        raise errors.InputError(f"{path!r} cannot be imported: {failure(error)}") from error


def _check_place(path, place):
    """Refuses a file in the folder of a run, which may come from somebody else."""
    for folder in pathlib.Path(place or "").absolute().parents:
        if (folder / "config.json").exists() and (folder / "checkpoints").is_dir():
            raise errors.InputError(
                f"{path!r} is {place}, in the folder of a run, from which no code is taken. If you"
                " trust it, put it into the directory that you start the program in, or install it."
            )


def failure(error: BaseException) -> str:
    """An error of a user's function in one line, with its place: which line of which file."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if "importlib" not in f.filename and "site-packages" not in f.filename]
    where = f" ({own[-1].filename}, line {own[-1].lineno})" if own else ""
    if isinstance(error, SyntaxError):
        where = f" ({error.filename}, line {error.lineno})"
    why = (str(error).strip().splitlines() or [""])[0]
    return f"{type(error).__name__}: {why}{where}"


def source(path: str) -> pathlib.Path | None:
    """The file that defines the function at an import path; None if it is built into Python."""
    found = function(path)
    defined = inspect.unwrap(getattr(found, "func", found))  # of a partial, and under decorators
    try:
        file = inspect.getsourcefile(defined)
    except TypeError:
        file = None
    file = file or getattr(sys.modules[path.partition(":")[0]], "__file__", None)
    return pathlib.Path(file) if file else None


def digest(path: str) -> str | None:
    """The SHA-256 of the file that `source` finds; None if there is none."""
    file = source(path)
    return hashlib.sha256(file.read_bytes()).hexdigest() if file else None


def _file_of(module):
    return getattr(module, "__file__", None) or f"the module {module.__name__}"
