"""The section `train`: how long, and in how many parts."""

from experiments.config.fields.declaration import Field, Section, at_least

SECTION = Section(
    "train",
    "How long, and in how many parts.",
    {
        "steps": Field(1000, "The steps of training, of one batch each.", at_least(1)),
        "patience": Field(
            0,
            "The number of evaluations without a better validation MAP@R after which training ends;"
            " 0 for no early end.",
            at_least(0),
        ),
        "micro_batches": Field(
            1,
            "The parts of a device's batch that are embedded one after the other, to save memory;"
            " batch normalisation then has the statistics of a part.",
            at_least(1),
        ),
    },
)
