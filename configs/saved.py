"""The config of a run that was written to a file.

python -m experiments.train --config=configs/saved.py:runs/digits/config.json --workdir=runs/digits
"""

import json
import pathlib

from configs import base


def get_config(path: str):
    config = base.get_config()
    config.update(_with_tuples(json.loads(pathlib.Path(path).read_text())))
    return config


def _with_tuples(content):
    """JSON has no tuples, and configs no lists."""
    if isinstance(content, dict):
        return {name: _with_tuples(value) for name, value in content.items()}
    return tuple(map(_with_tuples, content)) if isinstance(content, list) else content
