"""The table of fields: what it declares holds together, and is what the code reads."""

import ast
import itertools
import pathlib
import re
import runpy

import pytest

import experiments
from configs import base
from configs.sweeps import base as sweeps
from experiments.config import check, fields, settings
from experiments.config.fields import declaration, page
from experiments.sweeps import executors
from tests.support.configs import config
from triplet_jax import errors

ALL = fields.FIELDS | {f"schedules.{n}": f for n, f in fields.SCHEDULE.fields.items()}
ALL |= {f"sweep.{n}": f for n, f in fields.SWEEP.fields.items()}
ALL |= {f"study.{n}": f for n, f in fields.TUNE.fields.items()}
ALL |= {f"sweep.slurm.{n}": f for n, f in fields.SLURM.fields.items()}
CHECKED = {
    name: field
    for name, field in ALL.items()
    if isinstance(field.allowed, declaration.Range | declaration.Each | declaration.OneOf)
}


def test_a_config_has_the_fields_of_the_table_and_its_defaults():
    made = settings.flat(base.get_config())
    knobs = {name for name in made if fields.is_knob(name)}
    assert {name: made[name] for name in made.keys() - knobs - {"schedules"}} == {
        name: field.default for name, field in fields.FIELDS.items()
    }
    assert knobs == set(fields.KNOBS), "each knob of a signature has a meaning in the table"


@pytest.mark.parametrize("name", CHECKED)
def test_a_default_is_allowed(name):
    if CHECKED[name].default is not None:
        CHECKED[name].allowed.check(name, CHECKED[name].default)


def test_a_default_of_a_knob_is_allowed():
    for section in fields.SECTIONS:
        for name, knob in section.knobs.described.items() if section.knobs else ():
            owners = section.knobs.owners(name)
            assert owners, name
            for value in owners.values():
                knob.allowed.check(name, value)


@pytest.mark.parametrize("name", ALL)
def test_a_meaning_is_one_sentence(name):
    meaning = ALL[name].meaning
    assert meaning.endswith(".") and not meaning.endswith("..")
    assert ". " not in meaning
    assert meaning[0].isupper() or meaning[0].isdigit() or meaning.split()[0].islower()


def test_a_condition_names_fields_and_holds_of_some_values_alone():
    """Otherwise a field could never be set, or would never be refused."""
    values = {
        "dataset.name": [
            "digits",
            "folder",
            "table",
            "webdataset",
            "huggingface",
            "sop",
            "arrays",
            "pairs",
            "omniglot",
            "my:own",
        ],
        "loss.name": ["triplet", "pairs"],
        "loss.proxies": ["", "references"],
        "model.freeze": ["", "backbone"],
        "model.weights": ["", "a.safetensors"],
        "model.norm": ["batch", "group"],
        "optimizer.name": ["adam", "adamw", "sgd"],
        "mining.second": ["", "random"],
        "offline.table": ["", "step_1.npz"],
    }
    for name, field in ALL.items():
        for condition in field.when:
            of_each = [values.get(other, [0, 1, 2]) for other in condition.fields]
            assert set(condition.fields) <= set(fields.FIELDS)
            found = [
                condition.failing(dict(zip(condition.fields, drawn, strict=True)))
                for drawn in itertools.product(*of_each)
            ]
            assert "" in found and any(found), (name, condition.needs)


def test_a_field_concerns_one_of_four_things():
    kinds = {
        declaration.MACHINE,
        declaration.JUDGING,
        declaration.TRAINING,
        declaration.EXAMPLES,
    }
    assert {field.concerns for field in fields.FIELDS.values()} == kinds
    assert fields.concerns("schedules.hardness.start") == declaration.TRAINING
    assert fields.concerns("mining.knobs.hardness") == declaration.TRAINING
    assert not fields.may_change("mining.knobs.hardness")
    assert not fields.may_change("dataset.split_seed")
    assert fields.may_change("dataset.workers")


def test_a_number_that_moves_is_a_number():
    for name in fields.MOVABLE:
        assert fields.FIELDS[name].type in (int, float)


def test_the_engines_of_a_sweep_are_those_that_there_are():
    allowed = fields.SWEEP.fields["engine"].allowed
    assert set(allowed.values) == set(executors.ENGINES)
    assert sweeps.get_config(base.get_config()).engine in executors.ENGINES


@pytest.mark.parametrize(
    ("differences", "message"),
    [
        ({"seed": -1}, "seed=-1 must be a finite number, at least 0 and at most 2147483647"),
        ({"seed": 2**31}, "seed=2147483648 must be .* at most 2147483647"),
        ({"dataset__channels": 2}, r"dataset.channels=2 must be 1 \(grey\) or 3 \(colour\)"),
        ({"optimizer__learning_rate": 0.0}, "must be a finite number, more than 0"),
        ({"loss__margin": float("inf")}, "loss.margin=inf must be a finite number"),
        ({"batch__order": "eas"}, "batch.order='eas' is not known. Did you mean 'easy'"),
        (
            {"memory__start": 5},
            "memory.start=5 has no effect with memory.size=0: it needs memory.size above 0",
        ),
        (
            {"schedules__w": {"field": "memory.weight"}},
            "A schedule of memory.weight has no effect with memory.size=0",
        ),
        (
            {"schedules__m": {"field": "mining.mix"}},
            "A schedule of mining.mix has no effect with mining.second=''",
        ),
        (
            {"dataset__path": "x"},
            "dataset.path='x' has no effect with dataset.name='digits': it needs dataset.name=",
        ),
        (
            {"offline__near": 2},
            "offline.near=2 has no effect with offline.every=0 and offline.table=''",
        ),
        (
            {"schedules__m": {"field": "loss.margin", "decay": 1.0}},
            "schedules.m.decay=1.0 must be a finite number, at least 0 and less than 1",
        ),
        (
            {"schedules__m": {"field": "loss.margin", "levels": (0.5, 2.0)}},
            r"schedules.m.levels=\(0.5, 2.0\).* at most 1",
        ),
        (
            {"schedules__m": {"field": "loss.margin", "boundaries": ("a",)}},
            "schedules.m.boundaries=.* must be a list of numbers",
        ),
        (
            {"schedules__m": {"field": "loss.margin", "end": -1.0}},
            "schedules.m.end=-1.0 must be a finite number, at least 0",
        ),
    ],
)
def test_what_the_table_does_not_allow_is_refused(differences, message):
    with pytest.raises(errors.InputError, match=message):
        check.check(config(**differences))


def test_no_program_imports_configs():
    """They are data of the clone, and the working directory may hold others of that name."""
    for path in pathlib.Path(experiments.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in getattr(node, "names", ()) if hasattr(alias, "asname")]
            for name in [getattr(node, "module", None) or "", *names]:
                assert name.partition(".")[0] != "configs", (path, node.lineno)


def test_the_page_of_all_fields_is_up_to_date(capsys):
    path = pathlib.Path(__file__).parents[3] / "docs" / "fields.md"
    runpy.run_module("experiments.config.fields", run_name="__main__")
    assert path.read_text() == capsys.readouterr().out, (
        "write it anew: python -m experiments.config.fields > docs/fields.md"
    )


def test_the_page_names_every_field_once():
    """In the first column of a row, which is its own. A study has some fields of a sweep."""
    row = re.compile(r"^\| `([\w.]+)` \|", re.MULTILINE)
    named, of_study = (row.findall(part) for part in page.page().split("## A study"))
    assert len(named) == len(set(named))
    assert of_study == list(fields.TUNE.fields)
    assert {*fields.FIELDS, *fields.KNOBS} <= set(named)
    assert {f"schedules.NAME.{name}" for name in fields.SCHEDULE.fields} <= set(named)
