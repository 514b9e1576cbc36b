"""The model card of a head: what it is, what it was made from, what it can be trusted with."""

from __future__ import annotations

import json
from collections.abc import Container, Mapping, Sequence
from typing import Any

PICTURES = {
    "reliability.svg": "Share of correct tokens at each score",
    "roc.svg": "Correct tokens kept against wrong tokens kept, over all thresholds",
}
"""The pictures a card can show, by file name."""

_CARD = """\
---
library_name: judge-decoding
base_model: {base_model}
tags: [judge-decoding, speculative-decoding, custom_generate]
---
# Judge head for {base_model}

A linear layer of {numbers} numbers on the {place} of `{architecture}`{too}. For a draft
token it gives the probability that the token is *correct*, so that speculative decoding keeps correct
tokens which the target would have worded otherwise (Judge Decoding, arXiv 2501.19309).

```python
from judge_decoding import JudgeDecoder

decoder = JudgeDecoder.from_pretrained({base_model!r}, draft={draft!r}, judge="THIS-REPOSITORY")
print(decoder.generate("Your prompt", max_new_tokens=256).text)
```

or, with `judge-decoding` installed, in transformers itself, which asks for `trust_remote_code=True` because it runs the
one import in `custom_generate/generate.py`:

```python
model.generate(**inputs, custom_generate="THIS-REPOSITORY", trust_remote_code=True, draft="THE-DRAFT-MODEL")
```
{serve}
* Threshold: {threshold:g} (1 keeps only what standard verification keeps, 0 keeps everything)
* Wrong tokens: `{labels}`
* Distance of a prompt to the training questions: {familiarity}

## Data

```json
{data}
```

## Calibration

Out of fold: {out_of_fold}.

```json
{calibration}
```
{warnings}{comparison}{curve}{pictures}

## Limits

Judge decoding gives up the guarantee that the target's distribution is kept. The head knows the kind of text it
was trained on; measure its cost on yours before you rely on it.
"""

_SERVE = """
or in [vLLM](https://github.com/vllm-project/vllm), with `judge-decoding` installed beside it:

```
vllm serve {base_model} \\
  --speculative-config '{{"method": "draft_model", "model": "THE-DRAFT-MODEL", "num_speculative_tokens": {length}}}' \\
  --additional-config '{{"judge": {{"head": "THIS-REPOSITORY"}}}}'
```
"""


def model_card(config: dict[str, Any], pictures: Container[str] = ()) -> str:
    """The card, as Markdown, of a head with this configuration; ``pictures`` are those of `PICTURES` beside it."""
    target, draft, known = config["target"], config["draft"], config["familiarity"]
    figures = dict(config["calibration"])
    lists = {name: figures.pop(name) for name in _LISTS if name in figures}
    shown = [f"\n![{text}]({name})\n" for name, text in PICTURES.items() if name in pictures]
    place = f"last hidden state ({config['norm']} the final norm)"
    return _CARD.format(
        base_model=target["name_or_path"],
        architecture=target["architecture"],
        draft=draft["name_or_path"] if draft else "THE-DRAFT-MODEL",
        # vLLM does not hand over the draft's states.
        serve=""
        if draft
        else _SERVE.format(base_model=target["name_or_path"], length=config["num_draft_tokens"] or 16),
        too=f" and on that of its draft, `{draft['architecture']}`" if draft else "",
        numbers=target["hidden_size"] + (draft["hidden_size"] if draft else 0) + 1,
        place=place if config["layer"] == -1 else f"hidden state behind layer {config['layer']}",
        threshold=config["threshold"],
        labels=config["labels"],
        familiarity=(
            f"told with each answer; below 1 for {known['quantile']:.0%} of {known['questions']} questions"
            if known
            else "not known"
        ),
        data=json.dumps(config["data"], indent=2),
        out_of_fold=figures.pop("out_of_fold", "not told"),
        calibration=json.dumps(figures, indent=2),
        warnings="".join(f"\n**{sentence}**\n" for sentence in lists.get("warnings", ())),
        comparison=_table("Compared with", lists.get("comparison", ()), _COMPARED),
        curve=_table("Learning curve", lists.get("learning_curve", ()), {"questions": "questions", "auc": "AUC"}),
        pictures="".join(shown),
    )


_LISTS = ("warnings", "comparison", "learning_curve", "reliability", "roc")
_COMPARED = {
    "detector": "detector",
    "auc": "AUC, all tokens",
    "auc_numbers": "AUC, numbers",
    "log_loss": "log-loss",
    "threshold": "threshold",
    "kept_correct": "correct tokens kept",
    "caught_wrong": "wrong tokens caught",
}


def _table(title: str, rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str]) -> str:
    """A Markdown table, nothing without rows."""
    if not rows:
        return ""
    lines = [" | ".join(columns.values()), " | ".join("---" for _ in columns)]
    lines += [" | ".join(_cell(row.get(name)) for name in columns) for row in rows]
    return f"\n### {title}\n\n" + "".join(f"| {line} |\n" for line in lines)


def _cell(value: object) -> str:
    return f"{value + 0.0:.3f}" if isinstance(value, float) else "-" if value is None else str(value)
