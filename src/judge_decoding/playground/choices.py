"""What the page offers: models, rules and guards with their parameters, back ends, and examples."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, get_args

from jinja2.utils import htmlsafe_json_dumps
from markupsafe import Markup

from judge_decoding.core.rounds import Cause
from judge_decoding.decoding.engines import Backend
from judge_decoding.decoding.guards import GUARDS
from judge_decoding.names import REFERENCE
from judge_decoding.playground.asking import MOST_TEXT, MOST_TOKENS
from judge_decoding.playground.pairs import ModelPair
from judge_decoding.reference.problems import draw_many
from judge_decoding.report.verdicts import MEANING
from judge_decoding.rules.spelling import available_rules, described
from judge_decoding.spelling import parameters

# Values to begin with for parameters that have no default.
_BEGIN = {
    "top_k.k": 4, "min_probability.p": 0.1, "strict_start.tokens": 8, "budget.tokens": 16, "overshoot.ratio": 8,
    "phase.begin": "<think>", "phase.end": "</think>",
}  # fmt: skip
_EXAMPLES = 3


def choices(pairs: Mapping[str, ModelPair], cases: str | None) -> Markup:
    """Return all that the page offers, as JSON that is safe inside HTML.

    Args:
        pairs: the models by name.
        cases: the file to which marked answers go, as shown to people.
    """
    return htmlsafe_json_dumps(
        {
            "pairs": [_pair(pair) for pair in pairs.values()],
            "rules": [_begun(described(rule)) for rule in available_rules().values()],
            "guards": [_begun(_guard(name)) for name in GUARDS],
            "backends": list(get_args(Backend)),
            "causes": {cause.value: MEANING[cause] for cause in Cause},
            "cases": cases,
            "most_text": MOST_TEXT,
            "most_tokens": MOST_TOKENS,
        }
    )


def _pair(pair: ModelPair) -> dict[str, Any]:
    decoder = pair.decoder
    embedded = pair.target == REFERENCE
    return {
        "name": pair.name,
        "models": "the embedded pair, which solves word problems" if embedded else " · ".join(
            f"{role} {name}" for role, name in
            (("target", pair.target), ("draft", pair.draft), ("judge", pair.judge)) if name
        ),
        "chat": bool(decoder.tokenizer.chat_template),
        "threshold": None if decoder.judge is None else decoder.judge.config.threshold,
        "num_draft_tokens": decoder.num_draft_tokens,
        "temperature": decoder.sampling().temperature,
        "max_new_tokens": min(decoder.max_new_tokens(0), MOST_TOKENS),
        "backend": decoder.backend,
        "examples": [p.question.strip() for p in draw_many(0, "test", _EXAMPLES)] if embedded else [],
    }  # fmt: skip


def _guard(name: str) -> dict[str, Any]:
    known = parameters(GUARDS[name], name, "guard")
    return {
        "name": name,
        "summary": (inspect.getdoc(GUARDS[name]) or "").partition("\n")[0],
        "parameters": {key: parameter.default for key, parameter in known.items()},
        "types": {key: parameter.type.__name__ for key, parameter in known.items()},
    }


def _begun(row: dict[str, Any]) -> dict[str, Any]:
    """Give a value to begin with to each parameter that has no default."""
    found = {key: _BEGIN.get(f"{row['name']}.{key}", value) for key, value in row["parameters"].items()}
    return {**row, "parameters": found}
