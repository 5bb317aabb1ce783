"""How `make docs` builds the site: Markdown pages, the notebooks, and the API by its docstrings."""

import importlib.metadata
import pathlib
import posixpath
import re
import shutil

from docutils import nodes

project = "triplet_jax"
author = "the authors of triplet_jax"
release = importlib.metadata.version("triplet_jax")

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
]
templates_path = ["_templates"]
exclude_patterns = ["**.ipynb_checkpoints"]
nitpicky = True
# Types and shapes in signatures, most of them of other libraries, are shown and not linked.
nitpick_ignore_regex = [("py:.*", ".*")]

html_theme = "furo"
html_title = "triplet_jax"
html_copy_source = False
html_show_copyright = False

myst_enable_extensions = ["colon_fence", "dollarmath"]
myst_heading_anchors = 3
nb_execution_mode = "off"  # they show runs, which the site does not train
nb_merge_streams = True
suppress_warnings = ["mystnb.unknown_mime_type"]  # of plotly, which has HTML beside it

autosummary_generate = True
autodoc_default_options = {"members": True, "member-order": "bysource", "no-value": True}
autodoc_preserve_defaults = True
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 88
napoleon_numpy_docstring = False
napoleon_custom_sections = ["Returns"]  # as prose, which may have a colon
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True

# The notebooks stand beside docs/, and Sphinx reads no further than that.
HERE = pathlib.Path(__file__).parent
shutil.rmtree(HERE / "notebooks", ignore_errors=True)
shutil.copytree(HERE.parent / "notebooks", HERE / "notebooks")

# Pages that stand elsewhere in the repository, and where the site has them.
ELSEWHERE = {
    "CHANGELOG.md": "changelog.md",
    "benchmarks/RESULTS.md": "results/benchmarks.md",
    "experiments/RESULTS.md": "results/claims.md",
    "findings/README.md": "results/findings.md",
    "tests/faults/RESULTS.md": "results/faults.md",
}


def link_to_pages(app, docname, source):
    """Lets links to pages and notebooks elsewhere in the repository lead to the site's."""

    def on_the_site(link):
        there = posixpath.normpath(posixpath.join("docs", posixpath.dirname(docname), link[1]))
        here = there if there.startswith("notebooks/") else ELSEWHERE.get(there)
        return f"](/{here}{link[2] or ''})" if here else link[0]

    source[0] = re.sub(r"\]\((\.\./[^)#]+)(#[^)]*)?\)", on_the_site, source[0])


def as_restructured_text(app, what, name, obj, options, lines):
    """Docstrings are Markdown: `code`, indented blocks of it, and lists right after a line."""
    text = "\n".join(lines)
    text = re.sub(r"(?<!`)`([^`\n]+(?:\n[^`\n]+)?)`(?!`)", r"``\1``\\ ", text)
    text = re.sub(r"(?m)^(\S.*\n\n)(?=    \S)", r"\1::\n\n", text)
    text = re.sub(r"(?m)^( *)((?!\* )\S.*\n)(?=\1\* )", r"\1\2\n", text)
    text = re.sub(r"Alias for field number \d+", "", text)  # where a NamedTuple explains no field
    lines[:] = text.split("\n")


def shorten(app, doctree):
    """Shows `Array` for the long name that jax's arrays have in annotations."""
    for text in list(doctree.findall(nodes.Text)):
        if "jaxlib._jax." in text:
            text.parent.replace(text, nodes.Text(text.replace("jaxlib._jax.", "")))


def without_paths(app, doctree):
    """Leaves out the head of a difference, which names files by where the site was built."""
    for block in list(doctree.findall(nodes.literal_block)):
        if block.get("language") == "udiff":
            text = "".join(block.astext().splitlines(keepends=True)[2:])
            block.rawsource, block.children = text, []
            block += nodes.Text(text)


def without_navigation(app, pagename, templatename, context, doctree):
    """Pages of source code have no list of all pages, which took a fifth of the build's time."""
    if pagename.startswith("_modules/"):
        context.pop("toctree", None)


def setup(app):
    app.connect("source-read", link_to_pages)
    app.connect("autodoc-process-docstring", as_restructured_text, priority=400)
    app.connect("doctree-read", shorten)
    app.connect("doctree-read", without_paths)
    app.connect("html-page-context", without_navigation, priority=400)
