"""`config.json` of a run: read, written, and compared with the config of a run that goes on."""

import json
import pathlib

import ml_collections

from experiments.config import check, components, saved_configs, settings
from experiments.config.fields import declaration
from experiments.run import changes
from triplet_jax import errors
from triplet_jax.runs import files
from triplet_jax.runs.checkpoint import Checkpoints


def read(workdir: pathlib.Path) -> ml_collections.FrozenConfigDict:
    """Reads the config of a run, and checks all of it that does not depend on the machine.

    Fields that are newer than the run get the values of `config.saved_configs`.

    Args:
      workdir: of the run.

    Raises:
      InputError: there is no run in this folder, or its config cannot be read, or makes no sense.
    """
    path = workdir / "config.json"
    if not path.exists():
        raise errors.InputError(
            f"--workdir={workdir} holds no run: there is no config.json. Train one with"
            f" python -m experiments.train --config=configs/digits.py --workdir={workdir}"
        )
    try:
        config = ml_collections.FrozenConfigDict(saved_configs.get_config(str(path)))
    except errors.InputError as error:
        raise errors.InputError(f"{path}: {error}") from error
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise errors.InputError(f"{path} cannot be read as a config: {error}") from error
    try:
        _check_once(config)
    except errors.InputError as error:
        raise errors.InputError(
            f"{path}: {error} If somebody edited the file, put it back as it was."
        ) from error
    return config


_CHECKED: set[str] = set()


def _check_once(config):
    """Checks a config once for all seeds: a report reads hundreds that differ in nothing else."""
    seed = config.seed
    any_other = type(seed) is int and 0 <= seed <= declaration.MOST_COUNTED
    fields = config.to_dict() | ({"seed": 0} if any_other else {})
    text = json.dumps(fields, sort_keys=True, default=repr)
    if text not in _CHECKED:
        check.check_anywhere(config)
        _CHECKED.add(text)


def refused(workdir: pathlib.Path, config: ml_collections.FrozenConfigDict) -> str:
    """The changes with which the run in a folder cannot go on, in lines; empty if it can.

    Args:
      workdir: of the run.
      config: that it would go on with.

    Raises:
      InputError: as from `read`.
    """
    return "\n".join(changes.refused(settings.flat(read(workdir)), settings.flat(config)))


def remember(workdir: pathlib.Path, config: ml_collections.FrozenConfigDict) -> None:
    """Writes the config of a new run, or checks that a run may go on with this one.

    Args:
      workdir: of the run.
      config: that it is to be trained with.

    Raises:
      InputError: fields differ that may not (see `changes`); the message shows them.
    """
    path = workdir / "config.json"
    if not path.exists():
        _write_config(path, config)
        return
    components.check_unchanged(workdir, config)
    if lines := refused(workdir, config):
        raise errors.InputError(
            f"--workdir={workdir} holds a run with another config:\n{lines}\nGive another"
            " --workdir, or the same fields to continue that run."
        )


def update(workdir: pathlib.Path, config: ml_collections.FrozenConfigDict, step: int) -> list[str]:
    """Writes the config that a run goes on with, and adds what changed to its history.

    Args:
      workdir: of the run.
      config: that it goes on with; `remember` has accepted it.
      step: the steps that it has taken.

    Returns:
      The fields that changed.
    """
    before, now = settings.flat(read(workdir)), settings.flat(config)
    names = changes.different(before, now)
    if names:
        changes.note(workdir, before, now, step)
        _write_config(workdir / "config.json", config)
    return names


def _write_config(path, config):
    """Writes the config, with hashes of the files of the user's own components, if it names any."""
    own = components.recorded(config)
    content = json.loads(config.to_json()) | ({"components": own} if own else {})
    files.write_json(path, content)


def check_checkpoints(config: ml_collections.FrozenConfigDict, checkpoints: Checkpoints) -> None:
    """Refuses a config that was edited since the checkpoints were made.

    Checkpoints of an old version, which carry no config, pass.

    Args:
      config: of the run.
      checkpoints: of the run.

    Raises:
      InputError: fields differ; the message shows them.
    """
    for step in reversed(checkpoints.steps):
        content = checkpoints.config_of(step)
        try:
            made = None if content is None else settings.flat(saved_configs.from_content(content))
        except (ValueError, TypeError, KeyError, AttributeError):
            made = None  # damaged: the arrays decide
        refused = [] if made is None else changes.refused(made, settings.flat(config))
        if refused:
            lines = "\n".join(refused).replace(" there, ", " in the checkpoint, ")
            lines = lines.replace(" now", " in the config")
            raise errors.InputError(
                f"The checkpoint of step {step} in {checkpoints.folder} belongs to another"
                f" config:\n{lines}\nIf somebody edited config.json, put it back as it was."
            )
