#!/usr/bin/env bash
# LanceDB: optimize() after one added row leaves an IVF index with one cell of the hundred it had.
#
# Expected: `optimize()` adds the new row to the index. `create_index` made 100 cells
# (num_partitions=100), as asked, and a query with nprobes(1) looks at about 100 of 10,000 rows, before
# and after.
#
# Seen (lancedb 0.40.0, pyarrow 26.0.1, numpy 2.4.2, Linux x86-64): the call merges the 100 cells into 1
# and reports nothing. A query with nprobes(1) then measures all 10,001 rows:
#
#   created: 100 cells, a query with nprobes(1) compares 100 rows
#   a row added, not optimized: 100 cells, a query with nprobes(1) compares 100 rows
#   optimized: 1 cells, a query with nprobes(1) compares 10000 rows
#
# (100,001 rows in 316 cells are left with 7.) Whoever chooses nprobes as a share of the cells, or relies
# on them for speed, has an exhaustive search from then on. list_indices() and index_stats() do not tell:
# they count rows and not cells; only analyze_plan() shows partitions_ranked. To keep the cells, drop the
# index before optimize(), and create it again after.
#
# Sources: https://docs.lancedb.com/maintenance/compaction says that folding new rows into an index keeps
# the structure that it was trained on. https://github.com/lance-format/lance/pull/9051 (merged) lets one
# pass of optimize join all cells that are smaller than a target of the index type, whatever
# num_partitions was asked for.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet lancedb==0.40.0 pyarrow==26.0.1 numpy==2.4.2
"$folder/venv/bin/python" - "$folder/database" <<'PYTHON'
import re
import sys

import lancedb
import numpy as np
import pyarrow as pa
from lancedb.index import IvfFlat

ROWS, CELLS, DIM = 10_000, 100, 8
random = np.random.default_rng(0)
centres = random.normal(size=(CELLS, DIM))
vectors = centres[np.arange(ROWS) % CELLS] + 0.1 * random.normal(size=(ROWS, DIM))
vectors = vectors.astype(np.float32)


def rows(x):
    values = pa.FixedSizeListArray.from_arrays(pa.array(x.reshape(-1)), DIM)
    return pa.table({"vector": values})


table = lancedb.connect(sys.argv[1]).create_table("vectors", rows(vectors))
table.create_index("vector", config=IvfFlat(distance_type="l2", num_partitions=CELLS))


def look(when):
    search = table.search(vectors[0]).distance_type("l2")
    plan = search.nprobes(CELLS).limit(10).analyze_plan()
    cells = int(re.search(r"partitions_ranked=(\d+)", plan)[1])
    plan = search.nprobes(1).limit(10).analyze_plan()
    compared = re.search(r"index_comparisons=([1-9][\d.]*)( K)?", plan)
    compared = round(float(compared[1]) * (1000 if compared[2] else 1))
    print(f"{when}: {cells} cells, a query with nprobes(1) compares {compared} rows")
    return cells


before = look("created")
table.add(rows(vectors[:1]))
look("a row added, not optimized")
table.optimize()
after = look("optimized")
print("indexed rows:", [index.num_indexed_rows for index in table.list_indices()])
if (before, after) != (CELLS, 1):
    sys.exit("The behaviour has changed.")
PYTHON
