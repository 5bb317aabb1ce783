"""Fetches weights from the Hugging Face Hub, into the cache of huggingface_hub and out of it.

What was fetched once is read from the cache, and the Hub is not asked again: a second run needs no
network, and gets the same weights although their repository may have changed. HF_HOME names the
folder of the cache; HF_HUB_OFFLINE=1 keeps everything from the network.
"""

import json
import pathlib
import re
from typing import Any, NamedTuple

from triplet_jax import errors

SCHEME = "hf://"
_ADDRESS = re.compile(r"hf://([\w.-]+/[\w.-]+)(?:@([\w./-]+?))?(?:/([\w./-]+\.safetensors))?")
_WHOLE, _INDEX = "model.safetensors", "model.safetensors.index.json"


class Fetched(NamedTuple):
    """Files of weights on this machine."""

    paths: tuple[pathlib.Path, ...]
    licence: str | None = None
    """As the page of the repository states it."""


def is_address(weights: str) -> bool:
    """Whether weights are named by their address on the Hub."""
    return weights.startswith(SCHEME)


def fetch(weights: str) -> Fetched:
    """The files of an address, downloaded if the cache does not have them.

    Args:
      weights: `hf://ORG/NAME`, also with `@REVISION` or with `/FILE.safetensors` after it. Without
        a file it is model.safetensors, or the files that model.safetensors.index.json lists.

    Raises:
      InputError: it is no such address, the Hub has no such file or does not give it to this user,
        or huggingface_hub is not installed.
      LostError: the Hub cannot be reached.
    """
    found = _ADDRESS.fullmatch(weights)
    if found is None:
        raise errors.InputError(
            f"weights={weights!r} is no address of weights: it must be hf://ORG/NAME,"
            " hf://ORG/NAME@REVISION or hf://ORG/NAME/FILE.safetensors."
        )
    repository = _Repository(weights, found[1], found[2])
    path = repository.file(found[3] or _WHOLE)
    paths = None if path is None else (path,)
    if path is None and not found[3]:
        index = repository.file(_INDEX)
        paths = index and tuple(repository.file(name) for name in _names_in(index, weights))
    if not paths or None in paths:
        raise errors.InputError(
            f"weights={weights!r}: the repository has no {found[3] or _WHOLE}. Give one that has,"
            " or name the file: hf://ORG/NAME/FILE.safetensors."
        )
    return Fetched(paths, repository.licence())


def _names_in(index: pathlib.Path, weights: str) -> list[str]:
    """The names of the files that an index lists."""
    try:
        return sorted(set(json.loads(index.read_bytes())["weight_map"].values()))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise errors.InputError(
            f"weights={weights!r}: {index} is damaged. Remove it, and it is fetched again."
        ) from error


class _Repository:
    """A repository of the Hub, with what this machine has of it."""

    def __init__(self, weights: str, name: str, revision: str | None):
        try:
            import huggingface_hub
            from huggingface_hub import constants
            from huggingface_hub import errors as failures
        except ImportError as error:
            raise errors.InputError(
                f"weights={weights!r} needs the package huggingface_hub: pip install"
                " 'triplet_jax[hub]'. Or download the .safetensors file, and give its path."
            ) from error
        self._hub: Any = huggingface_hub
        self._failures: Any = failures
        self._constants: Any = constants
        self._weights, self._name, self._revision = weights, name, revision

    def file(self, name: str) -> pathlib.Path | None:
        """A file of this repository; None where the repository lacks it."""
        kept = self._hub.try_to_load_from_cache(self._name, name, revision=self._revision)
        if isinstance(kept, str):
            return pathlib.Path(kept)
        if kept is not None:
            return None  # known to be missing
        failures, level = self._failures, self._hub.logging.get_verbosity()
        # It prints every retry, twice where absl shows logs too. Our error says it once.
        self._hub.logging.set_verbosity_error()
        try:
            return pathlib.Path(
                self._hub.hf_hub_download(self._name, name, revision=self._revision)
            )
        except failures.LocalEntryNotFoundError as error:
            if self._constants.HF_HUB_OFFLINE:
                raise errors.InputError(
                    f"weights={self._weights!r} are not on this machine, and HF_HUB_OFFLINE is set:"
                    f" {name} of {self._name} is not in {self._constants.HF_HUB_CACHE}. Unset"
                    " HF_HUB_OFFLINE once, or give the path of a .safetensors file."
                ) from error
            raise self._unreachable(error) from error
        except failures.EntryNotFoundError:
            return None
        except failures.GatedRepoError as error:
            raise self._refused("are given to those alone who accept their terms there") from error
        except failures.RevisionNotFoundError as error:
            raise self._refused(f"have no revision {self._revision!r}") from error
        except (failures.RepositoryNotFoundError, failures.HFValidationError) as error:
            raise self._refused("are not there, or not for everybody") from error
        except Exception as error:  # the libraries of the network raise many kinds
            raise self._unreachable(error) from error
        finally:
            self._hub.logging.set_verbosity(level)

    def licence(self) -> str | None:
        """The licence that the page of the repository states, if that can be had."""
        try:
            page = self.file("README.md")
        except (errors.InputError, errors.LostError):
            return None
        return None if page is None else licence_of(page.read_text(errors="replace"))

    def _refused(self, why: str) -> errors.InputError:
        return errors.InputError(
            f"weights={self._weights!r} {why}. Look at https://huggingface.co/{self._name}, and run"
            " `hf auth login` if you need an account."
        )

    def _unreachable(self, error: Exception) -> errors.LostError:
        why = (str(error).strip().splitlines() or [type(error).__name__])[0]
        return errors.LostError(
            f"weights={self._weights!r} are not on this machine, and the Hugging Face Hub cannot be"
            f" reached ({why}). Download the .safetensors file elsewhere and give its path, or"
            " connect this machine."
        )


def licence_of(page: str) -> str | None:
    """The licence in the front matter of a model's page; None where it states none.

    >>> licence_of("---\\nlicense: apache-2.0\\ntags: [x]\\n---\\nA model.")
    'apache-2.0'
    """
    head = re.match(r"---\s*\n(.*?)\n---", page, re.DOTALL)
    stated = head and re.search(
        r"^license:[ \t]*(?:\n\s*-[ \t]*)?(\S[^\n]*)", head[1], re.MULTILINE
    )
    return stated[1].strip("'\" ") if stated else None
