"""Errors of the library in the user's words: arguments by the fields or flags that set them.

The library knows no field, flag or program, and writes an argument of its own as NAME=VALUE. The
functions of this module put in the name that the user knows, and add which program helps.
"""

import contextlib
from collections.abc import Iterator

from experiments.config import fields
from triplet_jax import errors

_SECTIONS = {section.name: section for section in fields.SECTIONS}


def in_fields(message: str, section: str, **others: str) -> str:
    """A message with arguments named by config fields.

    Args:
      message: of the library.
      section: the section whose fields have the names of arguments.
      others: the dotted names of fields, by arguments of other names.
    """
    names = {name: f"{section}.{name}" for name in _SECTIONS[section].fields} | others
    return errors.renamed(message, names)


@contextlib.contextmanager
def as_fields(section: str, **others: str) -> Iterator[None]:
    """Names arguments by config fields, as `in_fields` does, in errors about input.

    A `with` block, or a decorator.
    """
    with _rewriting(lambda message: in_fields(message, section, **others)):
        yield


@contextlib.contextmanager
def as_flags(*names: str) -> Iterator[None]:
    """Names arguments by the flags of the same name, in errors about input."""
    flags = {name: f"--{name}" for name in names}
    with _rewriting(lambda message: errors.renamed(message, flags)):
        yield


@contextlib.contextmanager
def with_advice(advice: str) -> Iterator[None]:
    """Adds a sentence to errors about input."""
    with _rewriting(lambda message: f"{message} {advice}"):
        yield


@contextlib.contextmanager
def _rewriting(rewrite):
    try:
        yield
    except errors.InputError as error:
        error.args = (rewrite(str(error)),)
        raise
