#!/usr/bin/env bash
# jax's errors about traced values cannot be sent from one process to another: they pickle, and do not unpickle.
#
# One would expect: an error that a worker of a ProcessPoolExecutor or of a grid search raises reaches the caller, with its
# message, as Python's own errors do.
# What happens: pickle.dumps takes a TracerBoolConversionError, and pickle.loads raises "AttributeError: 'str' object has
# no attribute '_error_repr'", since the class is made anew from its message and wants a tracer. A pool then raises
# BrokenProcessPool, "a process in the process pool was terminated abruptly", which looks like a lack of memory, and is
# of no use afterwards. TracerIntegerConversionError and ConcretizationTypeError behave alike.
# Seen with jax 0.10.2, Python 3.11. To send such an error, send its traceback as text.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3.11}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check jax==0.10.2 jaxlib==0.10.2
cd "$folder"
cat > work.py <<'PY'
import concurrent.futures
import multiprocessing
import pickle

import jax


def of_traced(x):
    return jax.jit(lambda x: 1 if x > 0 else 0)(x)


def of_python(x):
    raise ValueError("its message")


if __name__ == "__main__":
    try:
        of_traced(1.0)
    except jax.errors.TracerBoolConversionError as error:
        sent = pickle.dumps(error)
    try:
        pickle.loads(sent)
        raise SystemExit("CHANGED: the error can be read again")
    except AttributeError as error:
        print("pickle.loads:       ", error)

    spawn = multiprocessing.get_context("spawn")
    for work in (of_python, of_traced):
        with concurrent.futures.ProcessPoolExecutor(1, mp_context=spawn) as pool:
            raised = pool.submit(work, 1.0).exception(timeout=120)
            print(f"{work.__name__} in a pool:", type(raised).__name__, "-", str(raised).splitlines()[0])
    assert isinstance(raised, concurrent.futures.process.BrokenProcessPool), "CHANGED"
PY
JAX_PLATFORMS=cpu "$folder/venv/bin/python" work.py
