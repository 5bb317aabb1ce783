"""The section `offline`: batches that bring near examples of other classes together."""

from experiments.config.fields.declaration import Field, Section, When, at_least

_MINES_OFFLINE = When(
    "offline.every above 0 or a file in offline.table",
    ("offline.every", "offline.table"),
    lambda every, table: every or table,
)

SECTION = Section(
    "offline",
    "Embeds the whole training set from time to time, and draws the nearest examples of other"
    " classes into a batch together.",
    {
        "every": Field(0, "The steps from one embedding to the next; 0 is never.", at_least(0)),
        "neighbours": Field(
            10,
            "How many near examples of other classes are kept for each example.",
            at_least(1),
            when=(_MINES_OFFLINE,),
        ),
        "near": Field(
            3,
            "How many of those are drawn for an example of a batch.",
            at_least(1),
            when=(_MINES_OFFLINE,),
        ),
        "table": Field("", "The file of another run, offline/step_*.npz, to start from."),
    },
)
