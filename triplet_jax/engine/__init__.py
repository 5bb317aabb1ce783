"""The engine: the sums of a loss over all anchors, and their gradient.

`sweep` is the entry. What it works on are `batches` (anchors and candidates) and `rules` (a miner
with a penalty, or a loss of one anchor). `accumulators` names the two ways to add up tiles of
anchors: `picks` and `all_pairs`.
"""
