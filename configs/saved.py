"""The config of a run that was written to a file.

python -m experiments.train --config=configs/saved.py:runs/digits/config.json --workdir=runs/digits
"""

from experiments.config.saved_configs import get_config as get_config
