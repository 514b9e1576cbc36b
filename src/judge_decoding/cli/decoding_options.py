"""Options of verification and sampling, one definition for all commands."""

from __future__ import annotations

from typing import Annotated

import typer

from judge_decoding.cli.panels import DECODING

_RULE = "Verification rule, such as 'top_k(k=4)'; `judge-decoding rules` lists them."
_THRESHOLD = "The judge's threshold: 1 is exact verification, 0 keeps every draft token. By default the head's own."
_LENGTH = "Draft length: number of tokens drafted per round."

Rule = Annotated[str | None, typer.Option(help=_RULE, rich_help_panel=DECODING)]
Rules = Annotated[list[str] | None, typer.Option("--rule", help=_RULE, rich_help_panel=DECODING)]
Threshold = Annotated[float | None, typer.Option(help=_THRESHOLD, rich_help_panel=DECODING)]
Thresholds = Annotated[list[float] | None, typer.Option("--threshold", help=_THRESHOLD, rich_help_panel=DECODING)]
DraftLengthOption = Annotated[
    int | None, typer.Option("--num-draft-tokens", min=1, help=_LENGTH, rich_help_panel=DECODING)
]
OneDraftLength = Annotated[int, typer.Option("--num-draft-tokens", min=1, help=_LENGTH, rich_help_panel=DECODING)]
DraftLengths = Annotated[
    list[int] | None, typer.Option("--num-draft-tokens", min=1, help=_LENGTH, rich_help_panel=DECODING)
]
Guards = Annotated[
    list[str] | None,
    typer.Option(
        "--guard",
        help="Where no token may be rescued, such as 'strict_start(tokens=8)'. Repeatable.",
        rich_help_panel=DECODING,
    ),
]
StopOption = Annotated[
    list[str] | None, typer.Option(help="String that ends the answer. Repeatable.", rich_help_panel=DECODING)
]
_BUDGET = "Token budget of each answer."
BudgetOption = Annotated[int | None, typer.Option("--max-new-tokens", help=_BUDGET, rich_help_panel=DECODING)]
FixedBudget = Annotated[int, typer.Option("--max-new-tokens", help=_BUDGET, rich_help_panel=DECODING)]
_TEMPERATURE = "Sampling temperature; 0 is greedy."
Temperature = Annotated[float, typer.Option(help=_TEMPERATURE, rich_help_panel=DECODING)]
OwnTemperature = Annotated[float | None, typer.Option("--temperature", help=_TEMPERATURE, rich_help_panel=DECODING)]
TopP = Annotated[float | None, typer.Option(help="Nucleus sampling; 1 is off.", rich_help_panel=DECODING)]
TopKOption = Annotated[
    int | None, typer.Option(help="Sample among this many tokens; 0 is off.", rich_help_panel=DECODING)
]
MinP = Annotated[
    float | None,
    typer.Option(help="Minimum probability relative to the best token's; 0 is off.", rich_help_panel=DECODING),
]
_SEED = "Random seed."
Seed = Annotated[int, typer.Option(help=_SEED, rich_help_panel=DECODING)]
OptionalSeed = Annotated[int | None, typer.Option("--seed", help=_SEED, rich_help_panel=DECODING)]
Tune = Annotated[
    int,
    typer.Option(
        min=1,
        help="Items used to choose each method's draft length; they are not among those measured.",
        rich_help_panel=DECODING,
    ),
]
