#!/usr/bin/env bash
# jax: broadcast_one_to_all, from one process to all, turns -0.0 into 0.0, also on the process that sends.
#
# Expected: all processes get the bits of the first, so that weights which one of them has read, or the state of a
# run that goes on, are everywhere what the file holds.
#
# Seen (jax 0.10.2 and 0.12.0.1, Linux x86-64, two processes on CPUs): the sign of a zero is lost; other values,
# infinities and NaN arrive. Sent as bytes, all do:
#
#   sent       [-0.0, 1.5, -inf, nan]
#   process 0  [0.0, 1.5, -inf, nan], as bytes [-0.0, 1.5, -inf, nan]
#   process 1  [0.0, 1.5, -inf, nan], as bytes [-0.0, 1.5, -inf, nan]
#
# A comparison by == does not see it; one of checksums does, and 1 / x has the other sign.
#
# Source: the other processes put zeros beside the value, and it is summed over all:
# `broadcast_one_to_all` in jax/experimental/multihost_utils.py of https://github.com/jax-ml/jax
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3.11 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet jax==0.10.2 jaxlib==0.10.2
cat > "$folder/one.py" <<'PYTHON'
import sys

import jax
import numpy as np
from jax.experimental import multihost_utils

process, port = int(sys.argv[1]), sys.argv[2]
jax.config.update("jax_platforms", "cpu")
jax.distributed.initialize(f"127.0.0.1:{port}", num_processes=2, process_id=process)
sent = np.array([-0.0, 1.5, -np.inf, np.nan], np.float32)
given = sent if process == 0 else np.zeros_like(sent)
found = np.asarray(multihost_utils.broadcast_one_to_all(given))
as_bytes = np.asarray(multihost_utils.broadcast_one_to_all(given.view(np.uint8))).view(np.float32)
if process == 0:
    print("sent      ", sent.tolist())
print(f"process {process}  {found.tolist()}, as bytes {as_bytes.tolist()}")
lost = not np.signbit(found[0]) and np.array_equal(found, sent, equal_nan=True)
sys.exit(0 if lost and as_bytes.tobytes() == sent.tobytes() else "The behaviour has changed.")
PYTHON
port=$("$folder/venv/bin/python" -c '
import socket
with socket.socket() as one:
    one.bind(("127.0.0.1", 0))
    print(one.getsockname()[1])
')
"$folder/venv/bin/python" "$folder/one.py" 1 "$port" > "$folder/other" &
"$folder/venv/bin/python" "$folder/one.py" 0 "$port"
wait $!
cat "$folder/other"
