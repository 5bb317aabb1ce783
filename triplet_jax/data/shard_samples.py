"""The samples in a tar shard of WebDataset, and what is known of each."""

import collections
import dataclasses
import json
import pathlib
import re
from collections.abc import Iterator
from typing import Any, BinaryIO, NamedTuple

from triplet_jax import errors
from triplet_jax.data import tar_members
from triplet_jax.data.decoding import SUFFIXES
from triplet_jax.data.file_names import some
from triplet_jax.data.image_rows import Columns
from triplet_jax.data.tar_members import Member

CELL = "cell "
"""Begins the names of columns of a user in an index, beside those of its own."""


class Sample(NamedTuple):
    """The members of one sample."""

    key: str
    members: dict[str, Member]
    """By what follows the key and a dot in their names, in lower case."""


def samples(path: str) -> Iterator[Sample]:
    """The samples of a shard, by the rule of WebDataset.

    Members without a dot in their names, and those whose names begin with `__` and go on to another
    `__`, as `__meta__`, belong to none.

    Args:
      path: the shard.

    Raises:
      InputError: the shard cannot be read, a sample comes twice, or has two members of one name.
    """
    sample, seen = None, set()
    for member in tar_members.members(path):
        named = re.match(r"((?:.*/|)[^.]+)[.]([^/]*)$", member.name)
        if not named or re.match(r"__[^/]*__($|/)", member.name):
            continue
        key, extension = named[1], named[2].lower()
        if sample is None or key != sample.key:
            if sample is not None:
                yield sample
            if key in seen:
                raise errors.InputError(
                    f"{path}: the members of the sample {key!r} do not stand one after the other,"
                    f" or two samples have this key. {_SORT}"
                )
            seen.add(key)
            sample = Sample(key, {})
        if extension in sample.members:
            raise errors.InputError(f"{path}: {member.name!r} is there twice. {_SORT}")
        sample.members[extension] = member
    if sample is not None:
        yield sample


_SORT = "Pack the shard again with `tar --sort=name`, with a key of its own for every sample."


@dataclasses.dataclass(frozen=True)
class Plan:
    """Where the samples of a data set say what is known of them.

    Args:
      image: what follows the key of the image; "" for the only image.
      label: the column of classes.
      label_in: where its cells are: "json", "cls" or "folder".
      facts: the other columns, all in the .json.
    """

    image: str
    label: str
    label_in: str
    facts: tuple[str, ...]


def plan_of(shard: str, columns: Columns, split_by: str) -> Plan:
    """What is read of every sample, as the first one decides."""
    first = next(samples(shard), None)
    if first is None:
        raise errors.InputError(f"{shard} holds no samples, such as 0001.jpg with 0001.cls.")
    with open(shard, "rb") as file:
        facts = _facts(shard, first, file)
    optional = [columns.group] + ([columns.split] if split_by == "official" else [])
    wanted = columns.needed(split_by) + [name for name in optional if name in facts]
    label_in = "folder"
    if columns.label in facts:
        label_in = "json"
    elif "cls" in first.members:
        label_in = "cls"
    return Plan(columns.image.lower(), columns.label, label_in, tuple(dict.fromkeys(wanted)))


def read(shard: str, plan: Plan) -> dict[str, list]:
    """The columns of the index for the samples of one shard.

    Args:
      shard: the file.
      plan: what is read of every sample.

    Returns:
      For each sample its key, the start and the size of its image, and its cells by `CELL` and the
      name of the column.

    Raises:
      InputError: a sample lacks what the plan asks for.
    """
    found: dict[str, list] = collections.defaultdict(list)
    with open(shard, "rb") as file:
        for sample in samples(shard):
            image = _image(shard, sample, plan.image)
            found["key"].append(sample.key)
            found["start"].append(image.start)
            found["size"].append(image.size)
            needs_facts = plan.facts or plan.label_in == "json"
            facts = _facts(shard, sample, file) if needs_facts else {}
            found[CELL + plan.label].append(_class(shard, sample, plan, facts, file))
            for name in plan.facts:
                found[CELL + name].append(_cell(shard, sample, facts, name))
    return found


def _image(shard: str, sample: Sample, wanted: str) -> Member:
    there = [wanted] if wanted else [x for x in sample.members if f".{x}".endswith(SUFFIXES)]
    there = [extension for extension in there if extension in sample.members]
    if len(there) == 1:
        return sample.members[there[0]]
    named = some([f".{extension}" for extension in sample.members])
    if there:
        remedy = f"Name one of them, as in image={there[0]!r}."
        raise _refused(shard, sample, f"has {len(there)} images: {named}. {remedy}")
    missing = f"no .{wanted}" if wanted else "no image"
    raise _refused(shard, sample, f"has {missing}, but {named}. Add it, or remove the sample.")


def _class(shard: str, sample: Sample, plan: Plan, facts: dict[str, Any], file: BinaryIO) -> str:
    if plan.label_in == "json":
        return _cell(shard, sample, facts, plan.label)
    if plan.label_in == "folder":
        folder = str(pathlib.PurePosixPath(sample.key).parent)  # without the ./ of some programs
        if folder == ".":
            raise _refused(
                shard,
                sample,
                f"has no class: neither a .cls, nor {plan.label!r} in a .json, nor a folder. Add"
                " one, or name the column of the .json.",
            )
        return folder
    if "cls" not in sample.members:
        raise _refused(shard, sample, "has no .cls, where others have their class. Add it.")
    label = _text(shard, sample, "cls", file).strip()
    if not label:
        raise _refused(shard, sample, "has an empty .cls. Write its class into it.")
    return label


def _facts(shard: str, sample: Sample, file: BinaryIO) -> dict[str, Any]:
    """What the .json of a sample says; nothing where there is none."""
    if "json" not in sample.members:
        return {}
    try:
        facts = json.loads(_text(shard, sample, "json", file))
    except json.JSONDecodeError as error:
        raise _refused(shard, sample, f"has a .json that is none: {error}.") from error
    if not isinstance(facts, dict):
        raise _refused(shard, sample, "has a .json without names: it must hold an object, {...}.")
    return facts


def _cell(shard: str, sample: Sample, facts: dict[str, Any], name: str) -> str:
    cell = facts.get(name)
    if isinstance(cell, str | int) and str(cell):
        return str(cell)
    what = f"it is {cell!r}" if name in facts else f"there are {some(list(facts)) or 'none'}"
    raise _refused(shard, sample, f"needs a text or a whole number {name!r} in its .json; {what}.")


def _text(shard: str, sample: Sample, extension: str, file: BinaryIO) -> str:
    member = sample.members[extension]
    file.seek(member.start)
    try:
        return file.read(member.size).decode()
    except UnicodeDecodeError as error:
        raise _refused(shard, sample, f"has a .{extension} that is not in UTF-8.") from error


def _refused(shard: str, sample: Sample, why: str) -> errors.InputError:
    return errors.InputError(f"{shard}: the sample {sample.key!r} {why}")
