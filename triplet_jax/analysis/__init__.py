"""What a run's embeddings look like, and what mining did: for notebooks and reports.

Numbers are in modules by topic, each of pure functions on arrays; pictures of them are in
`plots` (matplotlib) and `interactive` (plotly).

* `run`: what a run's folder holds.
* `projection`: maps of embeddings in two dimensions.
* `geometry`: alignment, uniformity, spectrum, hubness, CKA.
* `classes`: statistics of each class, confusion, clusters and a tree of classes.
* `suspects`: labels that look wrong.
* `compare`: which queries got better or worse from one run to another.
"""
