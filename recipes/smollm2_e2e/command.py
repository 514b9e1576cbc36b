"""What the commands of this recipe share."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from judge_decoding import JudgeDecodingError
from judge_decoding.loading.models import load_draft, load_model, load_tokenizer


@contextmanager
def running(parser: argparse.ArgumentParser) -> Iterator[None]:
    """Run the block on one thread, or as many as OMP_NUM_THREADS says; a mistake of the user ends it in a sentence."""
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    try:
        yield
    except JudgeDecodingError as error:
        parser.error(str(error))


def load_pair(
    target: str, draft: str, dtype: torch.dtype
) -> tuple[PreTrainedTokenizerBase, PreTrainedModel, PreTrainedModel]:
    """Tokenizer, target and draft model by their folders."""
    tokenizer, model = load_tokenizer(target), load_model(target, dtype=dtype)
    small = load_draft(draft, tokenizer, dtype=dtype)
    assert isinstance(small, PreTrainedModel)
    return tokenizer, model, small
