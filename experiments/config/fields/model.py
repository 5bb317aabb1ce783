"""The section `model`: the encoder, from an example to its embedding."""

from experiments.config.fields.declaration import Field, OneOf, Part, Section, When, at_least
from triplet_jax import models

_BACKBONE = Part(
    "backbone", models.BACKBONES, "(**settings) -> a flax module, called with (inputs, train)"
)

SECTION = Section(
    "model",
    "The encoder, from an example to its embedding.",
    {
        "name": Field("conv4", "The backbone.", _BACKBONE),
        "width": Field(
            64,
            "The channels of conv4 and of a resnet's first stage, or the units of mlp.",
            at_least(1, at_most=2**16),
        ),
        "dim": Field(64, "The number of values of an embedding.", at_least(1, at_most=2**16)),
        "normalize": Field(True, "Scales each embedding to length 1."),
        "norm": Field("batch", "The normalisation of the layers.", OneOf(models.NORMS)),
        "dropout": Field(
            0.0,
            "The share of the features before the embedding that training sets to 0.",
            at_least(0, at_most=0.95),
        ),
        "projection": Field(
            0,
            "The hidden units of a head between the embedding and the loss, which evaluation"
            " leaves out; 0 is no head.",
            at_least(0, at_most=2**16),
        ),
        "projection_dim": Field(
            64,
            "The number of values that this head gives.",
            at_least(1, at_most=2**16),
            when=(When("model.projection above 0", ("model.projection",), bool),),
        ),
        "towers": Field(
            1,
            "The number of encoders; of each pair of rows, two encoders get one each.",
            at_least(1, at_most=2),
        ),
        "second": Field(
            "",
            "The backbone of the second encoder; empty for that of the first.",
            _BACKBONE.or_none(),
            when=(When("model.towers=2", ("model.towers",), lambda towers: towers == 2),),
        ),
    },
)
