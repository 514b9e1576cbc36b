"""What the commands of this recipe share."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from judge_decoding import JudgeDecodingError


@contextmanager
def running(parser: argparse.ArgumentParser) -> Iterator[None]:
    """Run the block on one thread, or as many as OMP_NUM_THREADS says; a mistake of the user ends it in a sentence."""
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    try:
        yield
    except JudgeDecodingError as error:
        parser.error(str(error))
