"""What becomes of errors that LanceDB raises."""

import pathlib
import sys

import pytest

from triplet_jax import errors
from triplet_jax.evaluation import gallery_errors


class PanicException(BaseException):
    """As Rust's panics are called."""


@pytest.mark.parametrize(
    ("raised", "expected", "words"),
    [
        (errors.InputError("metric='x'"), errors.InputError, "^metric='x'$"),
        (KeyboardInterrupt("SIGINT"), KeyboardInterrupt, "^SIGINT$"),
        (PanicException("cut off\nat 9"), gallery_errors.UnusableError, r"is damaged: cut off\. "),
        (ValueError("no magic"), gallery_errors.UnusableError, r"is damaged: no magic\. "),
        (RuntimeError("IO (os error 2)"), gallery_errors.UnusableError, "is damaged: IO"),
        (RuntimeError("IO (os error 28)"), OSError, "No space left on device: 'gallery'"),
    ],
)
def test_an_error_is_of_the_gallery_of_the_system_or_of_another(raised, expected, words):
    with pytest.raises(expected, match=words), gallery_errors.naming(pathlib.Path("gallery")):
        raise raised


def test_without_lancedb_the_message_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "lancedb", None)
    with pytest.raises(errors.InputError, match=r"pip install 'triplet_jax\[search\]'"):
        gallery_errors.libraries()
