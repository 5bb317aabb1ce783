"""The section `memory`: past embeddings that a batch is also compared with."""

from experiments.config.fields import loss
from experiments.config.fields.declaration import Field, Part, Range, Section, When, at_least
from triplet_jax import mining

MINER = Part(
    "miner",
    mining.MINERS,
    "(to_positives, is_positive, to_negatives, is_negative) -> mining.Triplets",
)

WITHOUT_AVERAGE = When(
    "memory.of_average=False",
    ("memory.of_average",),
    lambda of_average: not of_average,
)
_HAS_MEMORY = When("memory.size above 0", ("memory.size",), bool)

SECTION = Section(
    "memory",
    "Past embeddings that a batch is also compared with (XBM).",
    {
        "size": Field(
            0, "How many past embeddings are kept; 0 is off.", at_least(0, at_most=2**24)
        ),
        "start": Field(
            0,
            "The first step that uses them; they are kept from step 0 on.",
            at_least(0),
            when=(_HAS_MEMORY,),
        ),
        "weight": Field(
            1.0,
            "The weight of their loss beside the batch's own.",
            at_least(0),
            when=(_HAS_MEMORY, WITHOUT_AVERAGE),
            moves=True,
        ),
        "noise_rate": Field(
            0.0,
            "The share of labels that are taken to be wrong: this share of a batch is left out, the"
            " rows that fit the past embeddings of their class least (PRISM).",
            Range(0, 1, without_highest=True),
            when=(_HAS_MEMORY, WITHOUT_AVERAGE),
            moves=True,
        ),
        "noise_window": Field(
            5,
            "The batches over which the threshold that leaves them out is averaged.",
            at_least(1, at_most=1000),
            when=(_HAS_MEMORY, WITHOUT_AVERAGE),
        ),
        "of_average": Field(
            False,
            "Compares the batch not with itself, but with what the moving average of the weights"
            " makes of it and of the past (MoCo).",
        ),
        "miner": Field(
            "",
            "The miner among past embeddings, with its own defaults; empty for mining.miner.",
            MINER.or_none(),
            when=(_HAS_MEMORY, loss.HAS_TRIPLETS, WITHOUT_AVERAGE),
        ),
    },
)
