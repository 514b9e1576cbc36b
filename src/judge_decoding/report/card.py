"""The model card of a head: what it is, what it was trained on, and where it can be trusted.

Everything from a head's configuration or from results is escaped, since names can come from anybody.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Container, Mapping, Sequence
from typing import TYPE_CHECKING

from huggingface_hub import ModelCardData

from judge_decoding.intervals import fewest_digits
from judge_decoding.judge.card import introduction, title, usage
from judge_decoding.judge.files import PICTURES, RUN_FILE
from judge_decoding.markdown import block, code, json_block, plain, table
from judge_decoding.names import is_repo_id
from judge_decoding.report.card_results import eval_results, limits, results_section
from judge_decoding.visible import one_line

if TYPE_CHECKING:
    from judge_decoding.core.results import Results
    from judge_decoding.judge.config import JudgeHeadConfig

_CARD = """\
---
{metadata}
---
# {title}

{introduction}

{usage}
or, with `judge-decoding` installed, in transformers itself, which asks for `trust_remote_code=True` because it runs the
one import in `custom_generate/generate.py`:

```python
model.generate(**inputs, custom_generate="THIS-REPOSITORY", trust_remote_code=True, draft="THE-DRAFT-MODEL")
```
{serve}
* Threshold: {threshold} (1 keeps only what standard verification keeps, 0 keeps everything)
* Wrong tokens: {labels}
* Distance of a prompt to the training questions: {familiarity}

## Results

{results}
## Data

{data}
{run}## Calibration

Out of fold: {out_of_fold}.

{calibration}{warnings}{comparison}{thresholds}{curve}{pictures}
## Limits

Judge decoding gives up the guarantee that the target's distribution is kept. The head knows the kind of text it
was trained on; measure its cost on yours before you rely on it.
{limits}"""

_RUN = f"""\
[`{RUN_FILE}`]({RUN_FILE}) has the options that made this head; `--config` repeats it.

"""

_SERVE = """
or in vLLM, with `judge-decoding` installed beside it:

{command}
"""


def model_card(
    config: JudgeHeadConfig,
    pictures: Container[str] = (),
    results: Sequence[Results] = (),
    plots: Sequence[str | None] = (),
    *,
    repeats: bool = False,
) -> str:
    """Return the card of a head, as Markdown.

    Args:
        config: the head's configuration.
        pictures: those of `PICTURES` that exist in the card's folder.
        results: the results measured with the head.
        plots: the plot file of each result, or None.
        repeats: whether the folder has the options that made the head, ``run.yaml``.
    """
    target, known = config.target, config.familiarity
    figures = dict(config.calibration)
    lists = {name: _list(figures.pop(name)) for name in _LISTS if name in figures}
    shown = [f"\n![{text}]({name})\n" for name, text in PICTURES.items() if name in pictures]
    return _CARD.format(
        metadata=_metadata(one_line(target.name_or_path), title(config), results),
        title=plain(title(config)),
        introduction=introduction(config),
        usage=usage(config),
        # vLLM does not expose the draft's hidden states.
        serve="" if config.draft else _serve(target.name_or_path, config.num_draft_tokens or 16),
        threshold=fewest_digits(config.threshold),
        labels=code(config.labels),
        familiarity=(
            f"reported with each answer; below 1 for {known.quantile:.0%} of {known.questions} questions"
            if known
            else "not known"
        ),
        results=results_section(results, plots),
        data=json_block(config.data),
        run=_RUN if repeats else "",
        out_of_fold=plain(str(figures.pop("out_of_fold", "not recorded"))),
        calibration=json_block(figures),
        warnings="".join(f"\n**{plain(str(sentence))}**\n" for sentence in lists.get("warnings", ())),
        comparison=_table("Compared with", lists.get("comparison", ()), _COMPARED),
        thresholds=_table("Thresholds, on the calibration questions", lists.get("curve", ()), _THRESHOLDS),
        curve=_table("Learning curve", lists.get("learning_curve", ()), {"questions": "questions", "auc": "AUC"}),
        pictures="".join(shown),
        limits=limits(results),
    )


def _metadata(name: str, heading: str, results: Sequence[Results]) -> str:
    """Return the card's metadata for the Hub, as YAML."""
    return ModelCardData(
        library_name="judge-decoding",
        base_model=name if is_repo_id(name) else None,  # the Hub accepts only its own names
        tags=["judge-decoding", "speculative-decoding", "custom_generate"],
        model_name=heading if results else None,
        eval_results=eval_results(results) or None,
    ).to_yaml()


_LISTS = ("warnings", "comparison", "curve", "learning_curve", "reliability", "roc")
_COMPARED = {
    "detector": "detector",
    "auc": "AUC, all tokens",
    "auc_numbers": "AUC, numbers",
    "log_loss": "log-loss",
    "threshold": "threshold",
    "kept_correct": "correct tokens kept",
    "caught_wrong": "wrong tokens caught",
}
_THRESHOLDS = {
    "threshold": "threshold",
    "accuracy": "accuracy",
    "accepted_per_round": "accepted draft tokens per round",
}


def _list(value: object) -> Sequence[object]:
    return value if isinstance(value, list) else ()


def _table(title: str, rows: Sequence[object], columns: Mapping[str, str]) -> str:
    """Return a Markdown table, or an empty string if there are no rows."""
    lines = [
        [_cell(row.get(name), exact=name == "threshold") for name in columns]
        for row in rows
        if isinstance(row, Mapping)
    ]
    return f"\n### {title}\n\n{table(list(columns.values()), lines)}" if lines else ""


def _cell(value: object, *, exact: bool) -> str:
    if exact and isinstance(value, float):
        return fewest_digits(value)
    return f"{value + 0.0:.3f}" if isinstance(value, float) else "-" if value is None else plain(str(value))


def _serve(target: str, num_draft_tokens: int) -> str:
    """Return instructions for serving the target with the head."""
    drafts = {"method": "draft_model", "model": "THE-DRAFT-MODEL", "num_speculative_tokens": num_draft_tokens}
    parts = (
        f"vllm serve {shlex.quote(one_line(target) or 'TARGET')}",
        f"--speculative-config '{json.dumps(drafts)}'",
        """--additional-config '{"judge": {"head": "THIS-REPOSITORY"}}'""",
    )
    return _SERVE.format(command=block(" \\\n  ".join(parts)))
