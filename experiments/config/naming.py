"""Errors of the library in the user's words: arguments by the fields or flags that set them.

The library knows no field, flag or program, and writes an argument of its own as NAME=VALUE. The
functions of this module put in the name that the user knows, and add which program helps.
"""

import contextlib
from collections.abc import Callable, Iterator

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


def as_fields(section: str, **others: str) -> contextlib.AbstractContextManager[None]:
    """Names arguments by config fields, as `in_fields` does, in errors about input.

    A `with` block, or a decorator.
    """
    return rewriting(lambda message: in_fields(message, section, **others))


def as_fields_of_schedule(name: str) -> contextlib.AbstractContextManager[None]:
    """Names arguments by the fields of one of the config's schedules, in errors about input."""
    own = {field: f"schedules.{name}.{field}" for field in fields.SCHEDULE.fields}
    return rewriting(
        lambda message: errors.renamed(message, own | {"values": own["levels"]}),
    )


def as_flags(*names: str) -> contextlib.AbstractContextManager[None]:
    """Names arguments by the flags of the same name, in errors about input."""
    flags = {name: f"--{name}" for name in names}
    return rewriting(lambda message: errors.renamed(message, flags))


def with_advice(advice: str) -> contextlib.AbstractContextManager[None]:
    """Adds a sentence to errors about input."""
    return rewriting(lambda message: f"{message} {advice}")


@contextlib.contextmanager
def rewriting(rewrite: Callable[[str], str]) -> Iterator[None]:
    """Rewrites the messages of errors that a user is to read."""
    try:
        yield
    except (errors.InputError, errors.LostError) as error:
        error.args = (rewrite(str(error)),)
        raise
