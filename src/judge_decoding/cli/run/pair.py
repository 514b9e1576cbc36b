"""Load the models whose tokens are labelled."""

from __future__ import annotations

from transformers import GenerationConfig

from judge_decoding.cli.court_swaps import pair_names
from judge_decoding.decoder import JudgeDecoder
from judge_decoding.loading.models import cannot_load, check_same_vocabulary, default_device, load_model, load_tokenizer


def load_decoder(target: str, draft: str | None, dtype: str, device: str | None = None) -> JudgeDecoder:
    """The pair; 'reference' is the embedded one."""
    large, small = pair_names(target, draft, dtype)
    return JudgeDecoder.from_pretrained(large, small, dtype=dtype, device=device or default_device())


def draft_with_tokenizer_of(target: str, draft: str | None, dtype: str, device: str | None = None) -> JudgeDecoder:
    """What is needed here of a pair whose target is elsewhere."""
    large, small = pair_names(target, draft, dtype)
    tokenizer = load_tokenizer(large)
    check_same_vocabulary(tokenizer, load_tokenizer(small))
    model = load_model(small, dtype=dtype, device=device or default_device())
    try:  # the target's end tokens end an answer
        ends = GenerationConfig.from_pretrained(large).eos_token_id
    except OSError:
        ends = None
    except Exception as error:  # transformers reads an untrusted file here
        raise cannot_load("generation configuration", large, error) from error
    if ends is not None and model.generation_config is not None:
        model.generation_config.eos_token_id = ends
    return JudgeDecoder(model, tokenizer, model)
