#!/usr/bin/env bash
# pytorch-metric-learning: AccuracyCalculator compares labels as float32, so that large class numbers become one class.
#
# Expected: the scores of a retrieval depend on which labels are equal, not on their values. A constant that is
# added to all of them, as where item or product numbers serve as labels, changes nothing. The losses and miners
# of the library compare them as the integers that they are.
#
# Seen (pytorch-metric-learning 2.9.0, torch 2.14.1, faiss-cpu 1.15.1, Linux x86-64): random embeddings of 50
# classes score 1.0 once the class numbers have 12 digits; from 2^24 on, every second number is lost:
#
#   classes from 0:            MAP@R 0.0119, P@1 0.020
#   classes from 16777216:     MAP@R 0.0219, P@1 0.045
#   classes from 111085122871: MAP@R 1.0000, P@1 1.000
#
# Number the classes from 0 (numpy.unique(labels, return_inverse=True)) before they are evaluated.
#
# Source: get_accuracy makes float32 of the embeddings and of the labels alike:
# pytorch_metric_learning/utils/accuracy_calculator.py of https://github.com/KevinMusgrave/pytorch-metric-learning
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3.11 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet pytorch-metric-learning==2.9.0 torch==2.14.1 faiss-cpu==1.15.1
"$folder/venv/bin/python" - <<'PYTHON'
import sys

import torch
from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator

embeddings = torch.randn(200, 16, generator=torch.Generator().manual_seed(0))
classes = torch.arange(50).repeat_interleave(4)
calculator = AccuracyCalculator(include=("mean_average_precision_at_r", "precision_at_1"))
found = []
for first in (0, 2**24, 111085122871):
    scores = calculator.get_accuracy(embeddings, classes + first)
    map_at_r, first_right = scores["mean_average_precision_at_r"], scores["precision_at_1"]
    print(f"classes from {first}: MAP@R {map_at_r:.4f}, P@1 {first_right:.3f}")
    found.append(map_at_r)
if not (found[0] < found[1] < 0.1 and found[2] == 1.0):
    sys.exit("The behaviour has changed.")
PYTHON
