"""The pages of the documentation: links between files, and what the site has."""

import pathlib
import pkgutil
import re

import pytest

import triplet_jax

ROOT = pathlib.Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.glob("*.md"))


def listed(page):
    """The lines of the tables of contents on a page."""
    return {line.strip() for line in (DOCS / page).read_text().splitlines()}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_files_that_pages_link_to_exist(page):
    for target in re.findall(r"\]\(((?!http|#)[^)#]+)[^)]*\)", page.read_text()):
        assert (page.parent / target).exists(), target


def test_every_page_and_notebook_is_on_the_site():
    pages = [*DOCS.rglob("*.md"), *(ROOT / "notebooks").glob("*.ipynb")]
    for page in {page for page in pages if page.stem != "index"}:
        base = ROOT if page.suffix == ".ipynb" else DOCS
        assert str(page.relative_to(base).with_suffix("")) in listed("index.md")


def test_every_module_is_on_the_site():
    modules = {module.name for module in pkgutil.iter_modules(triplet_jax.__path__)}
    assert {f"triplet_jax.{module}" for module in modules} <= listed("api.md")
