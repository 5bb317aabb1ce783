"""Calls the `main` of a program with flags, several times in one process.

Two programs whose flags have the same names cannot be imported by one process: see `said`.
"""

import contextlib
import importlib
import io
import json
import sys

from absl import flags
from absl.testing import flagsaver

from tests.support import programs


def call(main, *given):
    """Calls it in this process, with these flags for as long."""
    with flagsaver.flagsaver():
        flags.FLAGS(["program", *map(str, given)])
        main()


def said(program, *given):
    """What a program prints for each list of flags, in a process of its own.

    A refusal begins with "error: ".
    """
    every = json.dumps([[*map(str, one)] for one in given])
    done = programs.run_code("from tests.support import mains; mains.say()", program, every)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def say():
    """Prints the answers, in the process of `said`."""
    from triplet_jax import errors

    main = importlib.import_module(f"experiments.{sys.argv[1]}").main
    answers = []
    for given in json.loads(sys.argv[2]):
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            try:
                call(main, *given)
            except errors.InputError as error:
                print(f"error: {error}")
        answers.append(printed.getvalue())
    print(json.dumps(answers))
