"""Make the tokenizer both reference models share: one token a word, a number or a sign.

python recipes/reference_pair/make_tokenizer.py OUT
"""

from __future__ import annotations

import random
import re
import sys
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from grammar import CLOSING, EQUATION, OPENING, STORY, TOKEN, split_tokens
from judge_decoding.reference.pair import prompt_of
from judge_decoding.reference.problems import GAINS, HOLDERS, ITEMS, LARGEST, LOSSES, NAMES, draw_from

CHAT_TEMPLATE = (
    "{% for message in messages %}{% if message['role'] == 'user' %}Q: {{ message['content'] | trim }}"
    "{% else %}{{ message['content'] }}\n{% endif %}{% endfor %}"
    # A line break right behind a block would be trimmed.
    "{% if add_generation_prompt %}{{ '\\nA:' }}{% endif %}"
)


def vocabulary() -> list[str]:
    """Every token the generator can write, numbers first."""
    tokens = [f" {n}" for n in range(LARGEST + 1)]
    words = [*NAMES, *ITEMS, *HOLDERS, *GAINS, *LOSSES]
    words += [
        w
        for text in (*EQUATION, *OPENING.values(), *CLOSING.values(), *(t for ts in STORY.values() for t in ts))
        for w in _words(text)
    ]
    rng = random.Random(0)
    for _ in range(5000):
        words += split_tokens(draw_from(rng, "pretrain").question)
    tokens += [" " + w.strip() for w in words if w.strip().isalpha()]
    tokens += [" +", " -", " *", " =", ",", ".", ":", "?", "\n", "Q", "A", " no"]
    return list(dict.fromkeys(tokens))


def _words(template: str) -> list[str]:
    return re.findall(r"[A-Za-z]+", re.sub(r"\{[a-z]+\}", " ", template))


def main(out: Path) -> None:
    """Write the tokenizer to ``out``."""
    specials = ["<pad>", "<eos>", "<unk>"]
    vocab = {token: i for i, token in enumerate([*specials, *vocabulary()])}
    core = Tokenizer(models.WordLevel(vocab, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Split(Regex(TOKEN.pattern), "isolated")
    core.decoder = decoders.Fuse()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token="<pad>",
        eos_token="<eos>",
        unk_token="<unk>",
        padding_side="left",
        clean_up_tokenization_spaces=False,
        model_max_length=256,
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    tokenizer.save_pretrained(out)
    text = prompt_of(draw_from(random.Random(1), "test"))
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    assert tokenizer.unk_token_id not in tokenizer(text)["input_ids"]
    print(f"{len(vocab)} tokens -> {out}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
