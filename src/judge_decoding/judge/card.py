"""The bare model card of a head: what it is and how to load it, from its configuration alone.

All values from the configuration are escaped, because names are untrusted.
"""

from __future__ import annotations

from judge_decoding.intervals import fewest_digits
from judge_decoding.judge.config import JudgeHeadConfig
from judge_decoding.markdown import block, code, plain
from judge_decoding.names import is_repo_id
from judge_decoding.visible import one_line

_BARE = """\
---
{base}library_name: judge-decoding
tags:
- judge-decoding
- speculative-decoding
- custom_generate
---
# {title}

{introduction}

{usage}
* Target: {target}
* Layer: {layer}, {norm} the final norm
* Threshold: {threshold} (1 keeps only what standard verification keeps, 0 keeps everything)
* Polarity: {polarity}
"""

_INTRODUCTION = """\
A linear layer of {numbers} numbers on the {place} of {architecture}{too}. For a draft
token it gives the probability that the token is *correct*, so that speculative decoding keeps correct
tokens which the target would have worded otherwise (Judge Decoding, arXiv 2501.19309)."""

_USAGE = """\
from judge_decoding import JudgeDecoder

decoder = JudgeDecoder.from_pretrained({target!r}, draft={draft!r}, judge="THIS-REPOSITORY")
print(decoder.generate("Your prompt", max_new_tokens=256).text)"""


def bare_card(config: JudgeHeadConfig) -> str:
    """Return the card that is saved with a head, as Markdown; `judge_decoding.report` writes the full card."""
    name = one_line(config.target.name_or_path)
    return _BARE.format(
        base=f"base_model: {name}\n" if is_repo_id(name) else "",  # the Hub accepts only its own names
        title=plain(title(config)),
        introduction=introduction(config),
        usage=usage(config),
        target=code(name) if name else "a model without a name",
        layer=config.layer,
        norm=config.norm,
        threshold=fewest_digits(config.threshold),
        polarity=config.polarity,
    )


def title(config: JudgeHeadConfig) -> str:
    """Return the card's title, in plain text."""
    return f"Judge head for {one_line(config.target.name_or_path) or 'a model without a name'}"


def introduction(config: JudgeHeadConfig) -> str:
    """Describe the head in a paragraph of Markdown."""
    draft = config.draft
    place = f"last hidden state ({config.norm} the final norm)"
    return _INTRODUCTION.format(
        numbers=config.input_size + 1,
        place=place if config.layer == -1 else f"hidden state after layer {config.layer}",
        architecture=code(config.target.architecture),
        too=f" and on that of its draft, {code(draft.architecture)}" if draft else "",
    )


def usage(config: JudgeHeadConfig) -> str:
    """Return a block of Python that loads the head."""
    draft = one_line(config.draft.name_or_path) if config.draft else "THE-DRAFT-MODEL"
    text = _USAGE.format(target=one_line(config.target.name_or_path), draft=draft)
    return block(text, "python")
