"""The section `mining`: which triplets of a batch count."""

from experiments.config.fields import loss, memory
from experiments.config.fields.declaration import (
    Field,
    Knob,
    Knobs,
    Section,
    When,
    at_least,
    more_than,
)
from triplet_jax import mining

SECTION = Section(
    "mining",
    "Which triplets of a batch count.",
    {
        "miner": Field("semi_hard", "The miner, which picks the triplets.", memory.MINER),
        "second": Field(
            "",
            "Another miner, with its own defaults, whose loss is mixed in; empty for none.",
            memory.MINER.or_none(),
            when=(loss.HAS_TRIPLETS, memory.WITHOUT_AVERAGE),
        ),
        "mix": Field(
            0.0,
            "The share of the second miner in the loss.",
            at_least(0, at_most=1),
            when=(When("another miner in mining.second", ("mining.second",), bool),),
            moves=True,
        ),
        "metric": Field(
            "",
            "The metric by which triplets are picked, one without parameters of its own; empty"
            " for loss.metric.",
            loss.METRIC.or_none(),
            when=(loss.HAS_TRIPLETS,),
        ),
        "tile_size": Field(
            0, "The most anchors that are mined at a time; 0 chooses by the memory.", at_least(0)
        ),
    },
    Knobs(
        (mining.MINERS,),
        {
            "beta": Knob("How sharply hard examples are preferred; 0 is uniform.", at_least(0)),
            "cutoff": Knob(
                "The distance below which all negatives are drawn alike.", more_than(0, at_most=1.9)
            ),
            "degrees": Knob(
                "The angle under which the negative sees the pair, in degrees, above which a"
                " triplet counts.",
                at_least(0, at_most=90),
            ),
            "epsilon": Knob(
                "How much easier than the hardest of the other kind a pair may be and still count."
            ),
            "farthest": Knob("The distance beyond which no negative is drawn.", more_than(0)),
            "first": Knob(
                "The rank of the nearest negative that counts; 1 is the nearest.", at_least(1)
            ),
            "fraction": Knob(
                "The share of each anchor's hardest candidates that is left out.",
                at_least(0, at_most=1),
            ),
            "hardness": Knob(
                "The negative's quantile: 1 is the nearest, 0 the farthest.",
                at_least(0, at_most=1),
            ),
            "high": Knob("The largest d(a, n) - d(a, p) that counts."),
            "last": Knob("The rank of the farthest negative that counts.", at_least(1)),
            "low": Knob("The smallest d(a, n) - d(a, p) that counts."),
            "margin": Knob("The d(a, n) - d(a, p) above which a triplet counts as easy."),
            "n": Knob("The rank of the negative; 1 is the nearest.", at_least(1)),
            "share": Knob(
                "The share of the negatives, from the hardest, whose last one is picked.",
                more_than(0, at_most=1),
            ),
            "width": Knob("The largest d(a, n) - d(a, p) that is semi-hard.", more_than(0)),
        },
    ),
)
