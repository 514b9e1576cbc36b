"""The model card of a head: what it is, what it was made from, what it can be trusted with."""

from __future__ import annotations

import json
from typing import Any

_CARD = """\
---
library_name: judge-decoding
base_model: {base_model}
tags: [judge-decoding, speculative-decoding, custom_generate]
---
# Judge head for {base_model}

A linear layer of {numbers} numbers on the last hidden state ({norm} the final norm) of `{architecture}`{too}. For a
draft token it gives the probability that the token is *correct*, so that speculative decoding keeps correct
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

* Threshold: {threshold:g} (1 keeps only what standard verification keeps, 0 keeps everything)
* Labels after the error: `{labels}`
* Distance of a prompt to the training questions: {familiarity}

## Data

```json
{data}
```

## Calibration

```json
{calibration}
```

## Limits

Judge decoding gives up the guarantee that the target's distribution is kept. The head knows the kind of text it
was trained on; measure its cost on yours before you rely on it.
"""


def model_card(config: dict[str, Any]) -> str:
    """The card, as Markdown, of a head with this configuration."""
    target, draft, known = config["target"], config["draft"], config["familiarity"]
    return _CARD.format(
        base_model=target["name_or_path"],
        architecture=target["architecture"],
        draft=draft["name_or_path"] if draft else "THE-DRAFT-MODEL",
        too=f" and on that of its draft, `{draft['architecture']}`" if draft else "",
        numbers=target["hidden_size"] + (draft["hidden_size"] if draft else 0) + 1,
        norm=config["norm"],
        threshold=config["threshold"],
        labels=config["labels"],
        familiarity=(
            f"told with each answer; below 1 for {known['quantile']:.0%} of {known['questions']} questions"
            if known
            else "not known"
        ),
        data=json.dumps(config["data"], indent=2),
        calibration=json.dumps(config["calibration"], indent=2),
    )
