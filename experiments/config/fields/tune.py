"""Every field of a study, declared once: a search for the numbers and names that suit a config."""

from experiments.config.fields.declaration import (
    JUDGING,
    MACHINE,
    Field,
    OneOf,
    Section,
    at_least,
)

ENGINES = ("vectorised", "here")
METRICS = ("map_at_r", "precision_at_1")

SECTION = Section(
    "",
    "A search for the values of some fields with which a config scores best on its validation"
    " split. The config is the section run.",
    {
        "space": Field(
            (),
            "Pairs of a field and its values, configs.tune.base.between(low, high) or"
            " one_of(values); or pairs of any name and alternatives(name={fields}).",
        ),
        "trials": Field(
            30,
            "The trials of the study, failed and pruned ones among them; it may grow.",
            at_least(1),
            concerns=JUDGING,
        ),
        "metric": Field(
            "map_at_r",
            "The score of the validation split that is to be high; the test split cannot be named.",
            OneOf(METRICS),
        ),
        "seeds": Field((0,), "The seeds of every trial, whose mean score counts."),
        "also_seeds": Field(("seed",), "The fields that are set to the seed."),
        "sampler": Field(
            "tpe",
            "How Optuna chooses a trial: tpe, from what earlier trials scored, or random.",
            OneOf(("tpe", "random")),
        ),
        "sampler_seed": Field(0, "The seed of the sampler.", at_least(0)),
        "startup": Field(
            10,
            "The first trials, which tpe draws at random, and which median does not prune.",
            at_least(1),
        ),
        "pruner": Field(
            "none",
            "How Optuna ends bad trials early, by their validation scores, with the engine here and"
            " one seed: none, median, or hyperband.",
            OneOf(("none", "median", "hyperband")),
        ),
        "engine": Field(
            "vectorised",
            "What trains the trials: vectorised (several at once in one program), or here (one"
            " after the other).",
            OneOf(ENGINES),
            concerns=MACHINE,
        ),
        "parallel": Field(
            4,
            "The trials that a process asks for and trains at a time with the engine vectorised.",
            at_least(1),
            concerns=MACHINE,
        ),
        "fresh_seeds": Field(
            5,
            "The number of seeds of confirm.py, the sweep that compares the best trial with run; it"
            " takes the first seeds that no trial had.",
            at_least(2),
            concerns=JUDGING,
        ),
    },
)
