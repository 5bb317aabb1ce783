"""The engine: the sums of a loss over all anchors, and their gradient.

`anchor_sums` is the entry. It works on `batches` (anchors and candidates) by `rules` (a miner with
a penalty, or a loss of one anchor). `positive_masks` says which candidates are an anchor's
positives and which its negatives. `accumulators` names the two ways to add up tiles of anchors:
`picks` and `all_pairs`.
"""
