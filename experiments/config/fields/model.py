"""The section `model`: the encoder, from an example to its embedding."""

from experiments.config.fields.declaration import (
    MACHINE,
    Field,
    OneOf,
    Part,
    Section,
    When,
    at_least,
)
from triplet_jax import models

_BACKBONE = Part(
    "backbone", models.BACKBONES, "(**settings) -> a flax module, called with (inputs, train)"
)

BACKBONE_LEARNS = (
    When("model.freeze other than 'backbone'", ("model.freeze",), lambda name: name != "backbone"),
)
"""Fields need it that have an effect only where part of the backbone learns."""

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
        "weights": Field(
            "",
            "Published weights that the backbone starts from: a .safetensors file, or"
            " hf://ORG/NAME of the Hugging Face Hub; empty for random ones.",
        ),
        "init_from": Field(
            "",
            "The folder of a run whose encoder this one starts from, by its best checkpoint; the"
            " head is taken too, where it has the same shape.",
            when=(When("model.weights=''", ("model.weights",), lambda weights: not weights),),
        ),
        "pixels": Field(
            "auto",
            "What is done to the values of an image: unit leaves them from 0 to 1, half brings them"
            " to -1 to 1, imagenet and clip normalise them by the statistics of those images; auto"
            " does what the weights expect, and is unit without weights.",
            OneOf(("auto", "unit", "imagenet", "half", "clip")),
        ),
        "stem": Field(
            "auto",
            "The first layer of a resnet: 7x7 with a stride of 2 and pooling, or 3x3 without; auto"
            " is 7x7 with weights, and without them 3x3 for images below 64 pixels.",
            OneOf(("auto", "7x7", "3x3")),
        ),
        "dim": Field(64, "The number of values of an embedding.", at_least(1, at_most=2**16)),
        "normalize": Field(True, "Scales each embedding to length 1."),
        "norm": Field("batch", "The normalisation of the layers.", OneOf(models.NORMS)),
        "freeze": Field(
            "",
            "What training leaves as it is: 'backbone', or a stage of it, such as 'layer2' of a"
            " resnet, with all stages before it; empty for nothing.",
        ),
        "head": Field(
            "random",
            "The first weights of the layer after the backbone: random, or principal, the principal"
            " axes of the training split's features, half whitened.",
            OneOf(("random", "principal")),
            when=(
                When(
                    "model.weights and model.towers=1",
                    ("model.weights", "model.towers"),
                    lambda weights, towers: weights and towers == 1,
                ),
            ),
        ),
        "features_dir": Field(
            "",
            "The folder that keeps the features of a frozen backbone for later runs; empty for"
            " triplet_jax/features in the user's cache folder.",
            concerns=MACHINE,
        ),
        "fixed_statistics": Field(
            False,
            "Normalises by the running statistics of batch normalisation in training, too, and"
            " leaves them as they are.",
            when=(When("model.norm='batch'", ("model.norm",), lambda norm: norm == "batch"),),
        ),
        "stochastic_depth": Field(
            0.0,
            "The probability that training skips the last block of the backbone; that of earlier"
            " blocks rises to it from 0.",
            at_least(0, at_most=0.9),
            when=BACKBONE_LEARNS,
        ),
        "dtype": Field(
            "float32",
            "The number type in which the backbone computes; weights, statistics of normalisation"
            " and the loss stay in float32.",
            OneOf(("float32", "bfloat16")),
        ),
        "remat": Field(
            False, "Computes the blocks of the backbone again for the gradient, to save memory."
        ),
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
            "The number of encoders; with 2, each encoder embeds one row of every pair.",
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
