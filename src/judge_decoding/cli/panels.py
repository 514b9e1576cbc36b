"""Headings under which ``--help`` and the documentation group the options, in this order."""

from __future__ import annotations

MODELS = "Models"
TASK = "Task and prompts"
DECODING = "Decoding"
TRAINING = "Labels and training"
OUTPUT = "Output"
RUN = "Running"
OTHER = "Other"

PANELS = (MODELS, TASK, DECODING, TRAINING, OUTPUT, RUN, OTHER)
