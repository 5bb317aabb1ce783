"""Parts of a run that a config names: by a name of the library, or by an import path.

`mining.miner="semi_hard"` is the library's, `mining.miner="my_parts:nth_band"` the function
`nth_band` of the user's own `my_parts.py`. docs/components.md says what each kind is given and what
it returns. This module finds them, tries them out on small inputs, and records the hashes of their
files in a run's config.json.
"""

import functools
import json
import pathlib
from collections.abc import Callable

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from flax import linen as nn

from experiments.config import fields, import_paths
from experiments.config.fields import declaration
from triplet_jax import contrastive, data, distances, errors
from triplet_jax.engine import rules
from triplet_jax.runs import files

FIELDS = {
    name: field.allowed
    for name, field in fields.FIELDS.items()
    if isinstance(field.allowed, declaration.Part)
}
"""The fields that name a part of a run."""

# What each table held before a config file could put something into it.
_OF_LIBRARY = {name: dict(kind.table) for name, kind in FIELDS.items()}


def find(field: str, name: str) -> Callable:
    """The function that a field names: one of the library, or the user's own.

    Raises:
      InputError: there is no function of that name; the message names the field.
    """
    kind = FIELDS[field]
    if import_paths.is_path(name):
        try:
            return import_paths.function(name)
        except errors.InputError as error:
            raise errors.InputError(f"{field}={error}") from error
    try:
        errors.check_known(field, name, kind.table)
    except errors.InputError as error:
        raise errors.InputError(
            f"{error} A {kind.word} of your own is named by its import path, such as"
            " 'my_parts:function': see docs/components.md."
        ) from error
    return kind.table[name]


def check(config: ml_collections.ConfigDict) -> None:
    """Refuses unknown names of parts, and parts of the user's own that break their contract.

    Backbones, data sets and augmentations are tried out later, where their inputs are known.

    Raises:
      InputError: naming the field, its value, and what is expected.
    """
    for field, kind in FIELDS.items():
        name = _value(config, field)
        if (kind.may_be_empty and not name) or name in kind.others:
            continue
        if field == "dataset.name" and not import_paths.is_path(name):
            continue  # of the library, or of tensorflow-datasets
        function = find(field, name)
        if import_paths.is_path(name) and kind.word in _TRIALS:
            _TRIALS[kind.word](field, name, function, config)


def _value(config, field):
    section, _, name = field.partition(".")
    return config[section][name]


def tried(field: str, name: str, call: Callable, is_right: Callable[[object], bool], wanted: str):
    """Calls a part of the user's own, and checks what it returns.

    Args:
      field: the field that names the part.
      name: its import path.
      call: calls the part with its arguments.
      is_right: whether an answer is of the kind that is wanted.
      wanted: that kind, as the message describes it.

    Returns:
      The answer.

    Raises:
      InputError: the part cannot be called like this, fails, or returns something else.
    """
    kind = FIELDS[field]
    expected = f"A {kind.word} is {kind.contract}: see docs/components.md."
    try:
        answer = call()
    except errors.InputError:
        raise
    except Exception as error:
        raise errors.InputError(
            f"{field}={name!r} fails: {import_paths.failure(error)}. {expected}"
        ) from error
    if not is_right(answer):
        raise errors.InputError(
            f"{field}={name!r} returns {_described(answer)}, and not {wanted}. {expected}"
        )
    return answer


def _described(answer):
    if isinstance(answer, tuple):
        return f"{type(answer).__name__} of {', '.join(map(_described, answer))}"
    if hasattr(answer, "shape"):
        return f"an array of shape {list(answer.shape)}"
    return f"a {type(answer).__name__}"


def _answer(function, *given):
    """What a function returns for arrays of these shapes; nothing is computed."""
    answers = []
    jax.eval_shape(lambda *arrays: answers.append(function(*arrays)), *given)
    return answers[0]


def _row(size, kind=jnp.float32):
    return jax.ShapeDtypeStruct((size,), kind)


# The four arrays that a miner and a loss see of an anchor with two positives and three negatives.
_SEEN = (_row(2), _row(2, bool), _row(3), _row(3, bool))


def _try_miner(field, name, function, config):
    offered = {"key": jax.random.key(0), "positives_to_negatives": jnp.zeros((2, 3))}
    given = rules.asked(function, offered)
    given |= rules.asked(function, {"dim": config.model.dim})

    def is_right(answer):
        if not isinstance(answer, tuple) or len(answer) != 3:
            return False
        try:
            shapes = [x.shape if x.ndim != 1 else (*x.shape, 1) for x in answer]
            return np.broadcast_shapes((2, 3), *shapes) == (2, 3)
        except (AttributeError, ValueError):  # no arrays, or of other shapes
            return False

    tried(
        field,
        name,
        lambda: _answer(functools.partial(function, **given), *_SEEN),
        is_right,
        "mining.Triplets of scalars, of rows [positives], or of matrices [positives, negatives]",
    )


def _try_penalty(field, name, function, config):
    rows = [_row(3)] * 2
    given = rules.asked(function, {"d_pn": jnp.ones(3)})
    tried(
        field,
        name,
        lambda: _answer(
            functools.partial(function, **given), *rows, jax.ShapeDtypeStruct((), jnp.float32)
        ),
        lambda answer: getattr(answer, "shape", None) == (3,),
        "one value for each triplet",
    )


def _try_loss(field, name, function, config):
    tried(
        field,
        name,
        lambda: _answer(function, *_SEEN),
        lambda answer: (
            isinstance(answer, contrastive.Terms)
            and answer.value.ndim == 1
            and answer.value.shape == answer.weight.shape
        ),
        "contrastive.Terms of two arrays [terms]",
    )


def _try_metric(field, name, function, config):
    given = {} if config.loss.p is None or field != "loss.metric" else {"p": config.loss.p}
    tried(
        field,
        name,
        lambda: function(**given),
        lambda answer: isinstance(answer, distances.Metric),
        "a distances.Metric, such as distances.of_differences makes",
    )


_TRIALS = {
    "miner": _try_miner,
    "penalty": _try_penalty,
    "loss": _try_loss,
    "metric": _try_metric,
}


def backbone(field: str, name: str, shape: tuple[int, ...]) -> str | Callable[..., nn.Module]:
    """What `models.encoder` takes for the name of a backbone.

    A backbone of the user's own is called with those of the settings that it has arguments for.

    Raises:
      InputError: it makes no module, or one that gives no features for inputs of this shape.
    """
    function = find(field, name)
    if not import_paths.is_path(name):
        return name

    def make(**settings):
        return function(**rules.asked(function, settings))

    def features():
        made = make(norm="batch", axis_name=None, width=8)
        if not isinstance(made, nn.Module):
            return made
        run = functools.partial(made.init_with_output, jax.random.key(0), train=False)
        return jax.eval_shape(run, jnp.zeros((3, *shape)))[0]

    tried(
        field,
        name,
        features,
        lambda answer: (
            isinstance(answer, jax.ShapeDtypeStruct) and answer.ndim == 2 and answer.shape[0] == 3
        ),
        "a flax module that gives [batch, features]",
    )
    return make


def dataset(c: ml_collections.ConfigDict) -> data.Dataset:
    """The examples of a data set of the user's own.

    Raises:
      InputError: it fails, or returns no `data.Dataset` whose arrays have one length.
    """
    function = find("dataset.name", c.name)
    made = tried(
        "dataset.name",
        c.name,
        lambda: function(c),
        lambda answer: isinstance(answer, data.Dataset),
        "a data.Dataset",
    )
    lengths = {"inputs": len(made.inputs), "labels": len(made.labels), "split": len(made.split)}
    if len(set(lengths.values())) > 1:
        raise errors.InputError(
            f"dataset.name={c.name!r} returns arrays of different lengths: {lengths}."
        )
    unknown = sorted(set(np.unique(made.split).tolist()) - set(data.SPLITS))
    if unknown:
        raise errors.InputError(
            f"dataset.name={c.name!r} returns the splits {unknown}; allowed:"
            f" {', '.join(data.SPLITS)}."
        )
    return made


def augmentation(name: str, shape: tuple[int, ...]) -> Callable:
    """The user's own augmentation.

    Raises:
      InputError: it fails, or changes the shape of an example.
    """
    function = find("augment.own", name)
    image = jax.ShapeDtypeStruct(shape, jnp.float32)
    tried(
        "augment.own",
        name,
        lambda: _answer(function, jax.random.key(0), image),
        lambda answer: getattr(answer, "shape", None) == shape,
        f"an example of shape {list(shape)}",
    )
    return function


def known_here_alone(config: ml_collections.ConfigDict) -> list[str]:
    """A complaint for each part that a config file put into a table: other processes lack it."""
    found = []
    for field, kind in FIELDS.items():
        name = _value(config, field)
        if kind.table.get(name) is not _OF_LIBRARY[field].get(name):
            found.append(
                f"{field}={name!r} is known to this process alone, and to no program or engine that"
                f" starts from config.json. Name the {kind.word} by its import path, such as"
                f" 'my_parts:{name}': see docs/components.md."
            )
    return found


# -- what a run was made with -------------------------------------------------------------


def recorded(config: ml_collections.ConfigDict) -> dict[str, str | None]:
    """The SHA-256 of the file of each part of the user's own, by its import path."""
    names = {_value(config, field) for field in FIELDS}
    return {name: import_paths.digest(name) for name in sorted(filter(import_paths.is_path, names))}


def changes(workdir: pathlib.Path, config: ml_collections.ConfigDict) -> list[str]:
    """A line for each file of the user's own parts that has changed since the run began."""
    now = recorded(config)
    path = workdir / "config.json"
    before = files.read_json(path).get("components", {}) if now and path.exists() else {}
    if not isinstance(before, dict):
        raise errors.InputError(f"{path} is damaged: components={json.dumps(before)} is no object.")
    return [
        f"{import_paths.source(name) or name} is not the file that {name!r} had when this run"
        f" began: its SHA-256 was {before[name]}, and is {now[name]}"
        for name in now
        if name in before and now[name] != before[name]
    ]


def check_unchanged(workdir: pathlib.Path, config: ml_collections.ConfigDict) -> None:
    """Refuses to go on with a run if the user's own parts have changed since it began.

    Raises:
      InputError: naming the files.
    """
    changed = changes(workdir, config)
    if changed:
        raise errors.InputError(
            f"--workdir={workdir} holds a run of other code. {'. '.join(changed)}. Put the file"
            " back as it was, or give another --workdir."
        )


def warn_of_changes(workdir: pathlib.Path, config: ml_collections.ConfigDict) -> None:
    """Prints a warning for each changed part, for programs that only read the run."""
    for change in changes(workdir, config):
        print(f"warning: {change}. What follows is by the code as it is now.")
