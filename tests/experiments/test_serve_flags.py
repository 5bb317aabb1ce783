"""The flags of `experiments.serve`, and what it says of its address."""

import re
import socket
import sys

import pytest

from experiments import serve
from tests.support import mains
from triplet_jax import errors


def test_flags_that_make_no_sense_are_refused(capsys):
    for wrong in (
        *("--port=-1", "--port=65536", "--upload_limit=0", "--known_as=*", "--known_as=a/b"),
        *("--neighbours=0", "--false_accept_rate=1"),
    ):
        with pytest.raises(errors.InputError, match=f"^{re.escape(wrong)}(.0)? must be"):
            mains.call(serve.check_flags, wrong)

    def known(*given):
        mains.call(lambda: print(*serve.host_names()), *given)
        return capsys.readouterr().out.split()

    own = ["localhost", "127.0.0.1", "[::1]"]
    assert known("--host=localhost") == own
    assert known("--known_as=shop") == [*own, "shop"]
    assert known("--host=::") == [*own, "[::]", socket.gethostname()]


def test_the_extra_that_is_not_installed_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    with pytest.raises(errors.InputError, match=re.escape("pip install -e '.[serve]'")):
        serve.web()


def test_a_page_for_others_says_who_can_see_the_images(capsys):
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        mains.call(lambda: serve.listen(listener), "--host=0.0.0.0", "--known_as=shop")
        port = listener.getsockname()[1]
    said = capsys.readouterr().out
    assert "Everybody who can reach this machine can search the gallery" in said
    assert f"{socket.gethostname()}, shop; --known_as adds one" in said
    assert f"listening on http://0.0.0.0:{port} (Ctrl-C ends it)" in said
