"""The page of all fields, docs/fields.md, by what they declare."""

import re
from collections.abc import Iterable

from experiments.config import fields
from experiments.config.fields import declaration
from experiments.config.fields.declaration import Field, Knobs, Part, Section

_INTRODUCTION = """\
# Every field of a config

This page is written from the table in `experiments/config/fields`, which declares each field once:

    python -m experiments.config.fields > docs/fields.md

A config file sets a field by `config.SECTION.FIELD = VALUE`, the command line by
`--config.SECTION.FIELD=VALUE`, which counts more. A program refuses a value that is not allowed,
and a field that differs from its default where nothing reads it. A miner, a loss, a metric, a
backbone, a data set or an augmentation of your own is named by its import path: see
[components](components.md).

A run that goes on keeps its fields, except those that say "May change on resume" and
`train.steps`. This number may grow if nothing depends on the last step: if
`optimizer.decay=constant` and no schedule moves by the share of all steps.
"""
_KNOBS_ARE = (
    "A knob that is not set keeps the default of the function that takes it. A schedule may move"
    " every knob. A number that a function of your own takes by keyword is a knob too."
)
_SCHEDULES_ARE = (
    f"{fields.SCHEDULE.meaning} Make one by `config.schedules.NAME ="
    " base.schedule(FIELD, start=..., end=...)`; [schedules](schedules.md) shows what they do."
)
_SWEEPS_ARE = (
    f"{fields.SWEEP.meaning.replace(' run.', ' `run`.')} A sweep file makes them by"
    " `configs.sweeps.base.get_config(run)`."
)
_STUDIES_ARE = (
    f"{fields.TUNE.meaning.replace(' run.', ' `run`.')} A study's file makes them by"
    " `configs.tune.base.get_config(run)`; [tuning](tuning.md) shows how."
)
_KINDS = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
    tuple: "a list",
}


def page() -> str:
    """The page, in Markdown."""
    parts = [_INTRODUCTION]
    for section in fields.SECTIONS:
        title = f"## `{section.name}`" if section.name else "## At the top"
        parts += [title, _section(section)]
        if section.knobs:
            title = f"### `{section.name}.knobs`"
            parts += [title, _KNOBS_ARE, _knobs(section.name, section.knobs)]
    parts += ["## `schedules`", _SCHEDULES_ARE, _table(_rows("schedules.NAME", fields.SCHEDULE))]
    parts += ["## A sweep", _SWEEPS_ARE, _table(_rows("", fields.SWEEP))]
    parts += [f"### `{fields.SLURM.name}`", _section(fields.SLURM)]
    parts += ["## A study", _STUDIES_ARE, _table(_rows("", fields.TUNE))]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def _section(section: Section) -> str:
    meaning = [section.meaning] if section.meaning else []
    return "\n\n".join([*map(_marked, meaning), _table(_rows(section.name, section))])


def _rows(prefix: str, section: Section) -> Iterable[tuple[str, str, str, str]]:
    for name, field in section.fields.items():
        default = "not set" if field.default is None else f"`{field.default!r}`"
        yield f"{prefix}.{name}".removeprefix("."), default, _meaning(field), _values(field)


def _meaning(field):
    notes = [field.meaning]
    if field.when:
        notes.append(f"Needs {', and '.join(condition.needs for condition in field.when)}.")
    notes += ["A schedule may move it."] * field.moves
    notes += ["May change on resume."] * field.may_change
    return _marked(" ".join(notes))


def _values(field: Field) -> str:
    allowed = field.allowed
    if isinstance(allowed, Part):
        return _parts(field, allowed)
    if isinstance(allowed, declaration.OneOf):
        return ", ".join(f"`{value!r}`" for value in allowed.values)
    return _numbers(_KINDS[field.type], allowed)


def _parts(field, part):
    """The names of a part of a run, which are listed at one of the fields that must name one."""
    listed = {
        id(other.allowed.table): name
        for name, other in reversed(fields.FIELDS.items())
        if isinstance(other.allowed, Part) and not other.allowed.may_be_empty
    }
    first = listed.get(id(part.table))
    empty = "empty, or " * part.may_be_empty
    if part.table and fields.FIELDS[first] is not field:
        return f"{empty}a {part.word}, as in `{first}`"
    names = ", ".join(f"`{name}`" for name in (*part.others, *part.table))
    return f"{empty}{names}, or an import path" if names else f"{empty}an import path"


def _numbers(kind, allowed):
    if allowed is None or allowed == declaration.FINITE:
        return kind
    return f"{kind}, {allowed}"


def _knobs(section: str, knobs: Knobs) -> str:
    types = knobs.types()
    rows = []
    for name, knob in knobs.described.items():
        owners = [f"`{owner}` {default:g}" for owner, default in knobs.owners(name).items()]
        values = _numbers(_KINDS[types[name]], knob.allowed)
        rows.append((f"{section}.knobs.{name}", ", ".join(owners), _marked(knob.meaning), values))
    return _table(rows, second="Default, by what takes it")


def _table(rows: Iterable[tuple[str, str, str, str]], *, second: str = "Default") -> str:
    lines = [f"| Field | {second} | Meaning | Values |", "| --- | --- | --- | --- |"]
    lines += [f"| `{name}` | {' | '.join(rest)} |" for name, *rest in rows]
    return "\n".join(lines)


def _marked(text):
    """The text with the names of fields, and what they are set to, marked as code."""
    names = "|".join(re.escape(name) for name in fields.FIELDS if "." in name)
    pattern = rf"(?<![\w.])(?:{names})(?:=[\w']+)?(?!\w)|'\w+'"
    return re.sub(pattern, lambda found: f"`{found[0]}`", text)
