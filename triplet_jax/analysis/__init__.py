"""Analysis of embeddings and of mining, for notebooks and reports.

* `run`: reads what a run's folder holds.
* `projection`: maps of embeddings in two dimensions.
* `geometry`: alignment, uniformity, spectrum, hubness, CKA.
* `classes`: statistics of each class, confusion, clusters and a tree of classes.
* `suspects`: labels that look wrong.
* `queries`: which queries got better or worse from one run to another.
* `plots`, `training_plots`: draw all of this with matplotlib, in the look of `plot_style`.
* `interactive`: maps to hover over, with plotly.
"""

from triplet_jax import errors

if lacking := errors.lacking("triplet_jax.analysis", "analysis", "matplotlib", "pandas", "plotly"):
    raise lacking
