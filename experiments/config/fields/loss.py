"""The section `loss`: what is minimised."""

from experiments.config.fields.declaration import (
    Field,
    Knob,
    Knobs,
    OneOf,
    Part,
    Range,
    Section,
    When,
    at_least,
    more_than,
)
from triplet_jax import contrastive, distances, losses
from triplet_jax.xla import products

METRIC = Part("metric", distances.METRICS, "() or (*, p) -> distances.Metric")

HAS_TRIPLETS = When(
    "triplets, of loss.name='triplet'", ("loss.name",), lambda name: name == "triplet"
)
HAS_PROXIES = When("loss.proxies='references' or 'anchors'", ("loss.proxies",), bool)
HAS_REFERENCES = When(
    "loss.proxies='references'", ("loss.proxies",), lambda proxies: proxies == "references"
)
HAS_CENTRES = When("loss.centres above 1", ("loss.centres",), lambda centres: centres > 1)

SECTION = Section(
    "loss",
    "What is minimised.",
    {
        "name": Field(
            "triplet",
            "The loss: triplet, whose triplets mining.miner picks, or one that no miner goes with.",
            Part(
                "loss",
                contrastive.LOSSES,
                "(to_positives, is_positive, to_negatives, is_negative) -> contrastive.Terms",
                others=("triplet",),
            ),
        ),
        "proxies": Field(
            "",
            "A learned vector for each class: with references, the batch is compared with these"
            " vectors, with anchors, they are compared with the batch; empty for none.",
            OneOf(("", "references", "anchors")),
        ),
        "same_tower": Field(
            False,
            "Compares the rows of an encoder with each other too, as negatives.",
            when=(When("model.towers=2", ("model.towers",), lambda towers: towers == 2),),
        ),
        "num_classes": Field(
            0,
            "The number of training classes, each of which has its proxies.",
            at_least(0, at_most=2**24),
        ),
        "centres": Field(
            1,
            "The proxies of each class, of which the nearest to an embedding counts.",
            at_least(1, at_most=1024),
            when=(HAS_REFERENCES,),
        ),
        "centres_temperature": Field(
            0.0,
            "The temperature of the softmax that averages the cosines to the proxies of a class; 0"
            " takes the nearest proxy alone.",
            at_least(0),
            when=(HAS_CENTRES,),
        ),
        "metric": Field("euclidean", "The distance between embeddings.", METRIC),
        "p": Field(None, "The power of the metric minkowski.", at_least(1), number=float),
        "precision": Field(
            "float32",
            "The precision of the matrix products of distances, for metrics that are computed by"
            " products; sums and the distances of picked triplets are always in float32.",
            OneOf(tuple(products.PRECISIONS)),
        ),
        "penalty": Field(
            "hinge",
            "What a triplet costs, by its two distances.",
            Part("penalty", losses.PENALTIES, "(d_ap, d_an, margin) -> values"),
            when=(HAS_TRIPLETS,),
        ),
        "margin": Field(
            0.1,
            "The margin of triplets; other losses have the knob margin.",
            at_least(0),
            moves=True,
        ),
        "average": Field(
            "active",
            "The triplets that the mean is over: active ones, whose loss is above 0, or all valid"
            " ones.",
            OneOf(losses.AVERAGES),
            when=(HAS_TRIPLETS,),
        ),
        "learned": Field(
            (), "The knobs of the penalty or the loss that are learned, such as beta."
        ),
        "nested_dims": Field(
            (),
            "The numbers of leading values whose losses are averaged (Matryoshka), the last of"
            " which is model.dim; evaluation then reports each.",
        ),
        "norm_weight": Field(
            0.0,
            "The weight of the mean squared length of the embeddings.",
            at_least(0),
            moves=True,
        ),
        "spread_weight": Field(
            0.0,
            "The weight of how far the cosines between classes are from 0 (global orthogonal"
            " regularisation).",
            at_least(0),
            moves=True,
        ),
        "pair_variance_weight": Field(
            0.0,
            "The weight of how far the cosines within classes are below their mean, and those"
            " between classes above it.",
            at_least(0),
            moves=True,
        ),
        "threshold_consistency_weight": Field(
            0.0,
            "The weight of how far the cosines within classes are below 0.9, and those between"
            " classes above 0.5 (threshold-consistent margin).",
            at_least(0),
            moves=True,
        ),
        "histogram_weight": Field(
            0.0,
            "The weight of the chance that a pair of two classes is more alike than one of one"
            " class (histogram loss).",
            at_least(0),
            moves=True,
        ),
        "variance_weight": Field(
            0.0,
            "The weight of how far the deviations of an embedding's values are below 1 (VICReg).",
            at_least(0),
            moves=True,
        ),
        "covariance_weight": Field(
            0.0,
            "The weight of the covariances of an embedding's values (VICReg).",
            at_least(0),
            moves=True,
        ),
        "coding_rate_weight": Field(
            0.0,
            "The weight of how far the coding rate of the embeddings is below its maximum, against"
            " collapse.",
            at_least(0),
            moves=True,
        ),
    },
    Knobs(
        (losses.PENALTIES, contrastive.LOSSES),
        {
            "absolute_margin": Knob(
                "How much less similar than the positive a negative has to be, or it is left out."
            ),
            "alpha": Knob("The sharpness over positive pairs.", more_than(0)),
            "base": Knob("The similarity that separates positive from negative pairs."),
            "beta": Knob(
                "The distance between positive and negative pairs of margin_based, or the"
                " sharpness over negative pairs of multi_similarity.",
                more_than(0),
            ),
            "bias": Knob("What is added to the scaled similarity of sigmoid."),
            "bins": Knob("The parts into which fast_ap divides the distances.", at_least(1)),
            "boundary": Knob("The distance that separates negatives from positives.", more_than(0)),
            "ceiling": Knob("The similarity above which a negative is only pushed away."),
            "concentration": Knob("How much more harder negatives weigh in debiased.", at_least(0)),
            "hardness_strength": Knob(
                "How much more harder negatives weigh: by the exponential of so many times their"
                " similarity. Below 0 they weigh less."
            ),
            "margin": Knob("The margin of a loss other than triplet.", at_least(0)),
            "most": Knob(
                "The longest list of nearest candidates that recall_at_k looks at.",
                at_least(1, at_most=1024),
            ),
            "multiplier": Knob("The factor of the angle to the example's own class.", at_least(1)),
            "negative_share": Knob(
                "The share of the negatives in the loss.", at_least(0, at_most=1)
            ),
            "positive_margin": Knob(
                "The distance up to which positive pairs cost nothing.", at_least(0)
            ),
            # At the margin, the slope of a lower power is infinite.
            "power": Knob(
                "The power of a distance beyond its margin, or of a positive's rank in pnp.",
                at_least(1),
            ),
            "prior": Knob(
                "The share of the negatives that are in fact positives.",
                Range(0, 1, without_highest=True),
            ),
            "rank_temperature": Knob(
                "The divisor of ranks that are compared with a length.", more_than(0)
            ),
            "relative_margin": Knob(
                "A margin in proportion to the positive's similarity, added to absolute_margin."
            ),
            "scale": Knob("The factor of the similarities.", more_than(0)),
            "slack": Knob("The angle that a positive is forgiven, in radians.", at_least(0)),
            "temperature": Knob("The divisor of the similarities, or of distances.", more_than(0)),
            "weight": Knob(
                "The weight of a triplet that is ranked wrongly, whose negative is pushed away."
            ),
        },
    ),
)
