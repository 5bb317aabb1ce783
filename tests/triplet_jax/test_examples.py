"""The examples in docstrings run, and every public name has one and a link to its paper."""

import doctest
import importlib
import inspect
import pathlib
import re

import pytest

import triplet_jax
from triplet_jax import (
    contrastive,
    distances,
    evaluation,
    mining,
    penalties,
    regularisers,
    schedules,
)

ROOT = pathlib.Path(triplet_jax.__file__).parent
WITH_EXAMPLES = [
    ".".join(("triplet_jax", *path.relative_to(ROOT).with_suffix("").parts))
    for path in sorted(ROOT.rglob("*.py"))
    if ">>> " in path.read_text()
]
SCHEDULES = {
    name: function
    for name, function in inspect.getmembers(schedules, inspect.isfunction)
    if function.__module__ == schedules.__name__ and not name.startswith("_")
}
TABLES = {
    "mining": mining.MINERS,
    "penalties": penalties.PENALTIES,
    "contrastive": contrastive.LOSSES,
    "distances": distances.METRICS | {"pairwise": distances.pairwise},
    "schedules": SCHEDULES,
    "regularisers": regularisers.REGULARISERS,
    "evaluation": {name: getattr(evaluation, name) for name in evaluation.__all__},
}
PUBLIC = {f"{module}.{name}": x for module, table in TABLES.items() for name, x in table.items()}
# What no paper introduced: sums, products and conventions that are older than the field.
WITHOUT_PAPER = {
    "mining.band",
    "mining.hardest_share",
    "mining.quantile",
    "mining.rank_range",
    "penalties.squared_hinge",
    "distances.cosine",
    "distances.dot",
    "distances.euclidean",
    "distances.manhattan",
    "distances.minkowski",
    "distances.pairwise",
    "distances.squared_euclidean",
    "schedules.between",
    "schedules.constant",
    "schedules.geometric",
    "schedules.piecewise",
    "evaluation.Distances",
    "evaluation.ClosePairs",
    "evaluation.by_tiles",
    "evaluation.make_ranking",
    "evaluation.nearest",
    "evaluation.of_items",
    "evaluation.pair_distances",
    "evaluation.pairs_within",
}


@pytest.mark.parametrize("module", WITH_EXAMPLES)
def test_examples_print_what_they_show(module):
    failed, tried = doctest.testmod(importlib.import_module(module))
    assert tried > 0
    assert failed == 0


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_name_has_an_example_that_shows_its_use(name):
    function = PUBLIC[name]
    examples = doctest.DocTestParser().get_examples(function.__doc__)
    shown = "".join(example.source + example.want for example in examples)
    assert re.search(rf"\b{function.__name__}\b", shown)
    assert any(example.want for example in examples)


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_name_links_its_paper(name):
    assert ("https://" in PUBLIC[name].__doc__) != (name in WITHOUT_PAPER)


@pytest.mark.parametrize("kind", schedules.PACINGS)
def test_the_example_of_pacing_shows_every_kind(kind):
    assert f'"{kind}"' in schedules.pacing.__doc__.split("Example:")[1]
