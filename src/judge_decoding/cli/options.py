"""Options, one definition for all commands that have them; `option` makes those of a single command, too."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

MODELS = "Models"
TASK = "Task and prompts"
DECODING = "Decoding"
TRAINING = "Labels and training"
OUTPUT = "Output"
RUN = "Running"
OTHER = "Other"

PANELS = (MODELS, TASK, DECODING, TRAINING, OUTPUT, RUN, OTHER)
"""Headings under which ``--help`` and the documentation group the options, in this order."""


def option(panel: str, text: str, *names: str, **more: Any) -> typer.models.OptionInfo:  # noqa: ANN401  (typer's own)
    """An option whose help is ``text``, under a heading of `PANELS`; by default it is named like its parameter."""
    made: typer.models.OptionInfo = typer.Option(*names, help=text, rich_help_panel=panel, **more)
    return made


def out_option(what: str) -> typer.models.OptionInfo:
    """The option ``--out`` of a command that writes ``what``."""
    return option(OUTPUT, what, "--out", "-o")


# Models

_DRAFT_MODEL = "Draft model: Hub name or folder, with the target's vocabulary."
_FIRST_LAYERS = "Number of the target's first layers that form the draft model."
_JUDGE = "Judge head: folder or Hub repository; 'reference' is the embedded one."

Target = Annotated[str, option(MODELS, "Target model: Hub name or folder; 'reference' is the embedded pair.")]
DraftOption = Annotated[
    str | None,
    option(MODELS, "Draft model: Hub name or folder, or 'prompt-lookup'. Without one the target decodes alone."),
]
DraftModelOption = Annotated[str | None, option(MODELS, _DRAFT_MODEL)]
Translate = Annotated[
    bool,
    option(MODELS, "Let a draft model with another tokenizer propose text instead of token ids.", "--translate"),
]
FirstLayers = Annotated[int | None, option(MODELS, _FIRST_LAYERS, "--draft-layers", min=1)]
NumLayers = Annotated[int, option(MODELS, _FIRST_LAYERS, "--draft-layers", min=1)]
JudgeOption = Annotated[str | None, option(MODELS, _JUDGE)]
Head = Annotated[str, option(MODELS, _JUDGE, "--judge")]
Tokenizer = Annotated[str | None, option(MODELS, "Tokenizer: Hub name or folder.")]

# Task and prompts

_DRAWN = "Use at most this many, drawn at random with --seed."
_CHECKER = "What makes an answer correct: number, choice, exact, regex:PATTERN{more}."

TaskName = Annotated[str, option(TASK, "Task, such as gsm8k or 'arithmetic(family=comparison)'.", "--task")]
Data = Annotated[Path | None, option(TASK, "Local file with the task's data, instead of the Hub's.")]
PromptsOption = Annotated[Path, option(TASK, "Prompts: JSONL (question, optionally reference), or text, one per line.")]
PromptField = Annotated[str | None, option(TASK, "Field of the prompt; by default question or prompt.")]
ReferenceField = Annotated[str | None, option(TASK, "Field of the reference answer; by default reference.")]
Template = Annotated[str | None, option(TASK, r"Prompt template with fields in braces, such as 'Q: {question}\nA:'.")]
Limit = Annotated[int | None, option(TASK, "Use at most this many, the first ones.", min=1)]
Drawn = Annotated[int | None, option(TASK, _DRAWN, "--limit", min=1)]
DrawnOf = Annotated[int, option(TASK, _DRAWN, "--limit", min=1, max=2000)]
Chat = Annotated[
    bool | None,
    option(
        TASK,
        "Apply the chat template. By default if there is one, unless the prompt is rendered already or has a "
        "--template.",
        "--chat/--no-chat",
    ),
]
System = Annotated[str, option(TASK, "System message, for chats.")]
CheckerOption = Annotated[str, option(TASK, _CHECKER.format(more=" or module:function"), "--checker")]
"""Compares two answers by their results: `judge_decoding.tasks.results.result_function`."""
AnyChecker = Annotated[str | None, option(TASK, _CHECKER.format(more=", tests, or that of a package"), "--checker")]
"""Checks an answer against a reference: `judge_decoding.tasks.checkers.checker_of`."""
Margin = Annotated[float, option(TASK, "Allowed loss of accuracy, in percentage points.", min=0, max=100)]
Grader = Annotated[
    str | None, option(TASK, "Model that grades the answers of mt_bench, at the endpoint OPENAI_BASE_URL.")
]
TrainedOn = Annotated[
    list[Path] | None,
    option(TASK, "TokenCourt file that the head was trained on; its questions may not be asked. Repeatable."),
]
AllowCode = Annotated[bool, option(TASK, "Allow running code written by models.", "--allow-code-execution")]
SandboxName = Annotated[
    str | None,
    option(TASK, "Where code runs: bwrap (bubblewrap, the default), docker:IMAGE or podman:IMAGE.", "--sandbox"),
]
NoSandbox = Annotated[bool, option(TASK, "Run code without a sandbox, with all of your permissions.", "--no-sandbox")]
CODE_OPTIONS = ("--allow-code-execution", "--sandbox", "--no-sandbox")
"""Options that apply only to tasks that run code."""

# Decoding

_RULE = "Verification rule, such as 'top_k(k=4)'; `judge-decoding rules` lists them."
_THRESHOLD = "The judge's threshold: 1 is exact verification, 0 keeps every draft token. By default the head's own."
_LENGTH = "Draft length: number of tokens drafted per round."
_BUDGET = "Token budget of each answer."
_TEMPERATURE = "Sampling temperature; 0 is greedy."
_SEED = "Random seed."

Rule = Annotated[str | None, option(DECODING, _RULE)]
Rules = Annotated[list[str] | None, option(DECODING, _RULE, "--rule")]
Threshold = Annotated[float | None, option(DECODING, _THRESHOLD)]
Thresholds = Annotated[list[float] | None, option(DECODING, _THRESHOLD, "--threshold")]
DraftLengthOption = Annotated[int | None, option(DECODING, _LENGTH, "--num-draft-tokens", min=1)]
OneDraftLength = Annotated[int, option(DECODING, _LENGTH, "--num-draft-tokens", min=1)]
DraftLengths = Annotated[list[int] | None, option(DECODING, _LENGTH, "--num-draft-tokens", min=1)]
Guards = Annotated[
    list[str] | None,
    option(DECODING, "Where no token may be rescued, such as 'strict_start(tokens=8)'. Repeatable.", "--guard"),
]
StopOption = Annotated[list[str] | None, option(DECODING, "String that ends the answer. Repeatable.")]
BudgetOption = Annotated[int | None, option(DECODING, _BUDGET, "--max-new-tokens")]
FixedBudget = Annotated[int, option(DECODING, _BUDGET, "--max-new-tokens")]
Temperature = Annotated[float, option(DECODING, _TEMPERATURE)]
OwnTemperature = Annotated[float | None, option(DECODING, _TEMPERATURE, "--temperature")]
TopP = Annotated[float | None, option(DECODING, "Nucleus sampling; 1 is off.")]
TopKOption = Annotated[int | None, option(DECODING, "Sample among this many tokens; 0 is off.")]
MinP = Annotated[float | None, option(DECODING, "Minimum probability relative to the best token's; 0 is off.")]
Seed = Annotated[int, option(DECODING, _SEED)]
OptionalSeed = Annotated[int | None, option(DECODING, _SEED, "--seed")]
Tune = Annotated[
    int, option(DECODING, "Items used to choose each method's draft length; they are not among those measured.", min=1)
]

# Labels and training

CalibrateOn = Annotated[
    str | None,
    option(
        TRAINING,
        "Task that chooses the threshold: a name such as gsm8k, or a JSONL file with question (the whole prompt) and "
        "reference.",
    ),
]
CalibrateData = Annotated[
    Path | None, option(TRAINING, "Local file with the data of --calibrate-on, instead of the Hub's.")
]
CalibrateLimit = Annotated[
    int | None, option(TRAINING, "Use at most this many of --calibrate-on, drawn at random.", min=1)
]
LabelThreshold = Annotated[float, option(TRAINING, "Tokens whose label score is above it count as correct.")]
Annotator = Annotated[str | None, option(TRAINING, "Name of the annotator; by default your login name.")]

# Output

Yes = Annotated[bool, option(OUTPUT, "Do not ask for confirmation.", "--yes", "-y")]
LogTo = Annotated[str | None, option(OUTPUT, "Log metrics with trackio, on this machine, or with wandb.", "--log-to")]
Overwrite = Annotated[bool, option(OUTPUT, "Replace existing outputs.", "--overwrite")]
Json = Annotated[bool, option(OUTPUT, "Print the result as JSON.", "--json")]
Html = Annotated[Path | None, option(OUTPUT, "Self-contained web page to write.")]
Show = Annotated[int, option(OUTPUT, "Answers shown on the page.", min=0)]
Cases = Annotated[Path, out_option("TokenCourt file (JSONL) to write.")]
Aside = Annotated[Path | None, option(OUTPUT, "TokenCourt file (JSONL) for the answers without a label.")]

# Running

_BATCH = "Answers decoded together in one batch."

Device = Annotated[
    str | None,
    option(
        RUN,
        "Device, such as cpu or cuda; 'auto' divides the target over all GPUs. By default a GPU if there is one.",
    ),
]
BackendOption = Annotated[
    str, option(RUN, "eager, or static: compiled once for this machine, then faster with the same tokens.")
]
DtypeOption = Annotated[str, option(RUN, "auto, float32, bfloat16 or float16.")]
BatchSize = Annotated[int, option(RUN, _BATCH, min=1)]
BatchSizes = Annotated[list[int] | None, option(RUN, _BATCH, "--batch-size", min=1)]
Loads = Annotated[
    list[int] | None,
    option(
        RUN,
        "Also find the fastest draft length where so many answers are decoded together. Repeatable.",
        "--batch-size",
        min=1,
    ),
]
Concurrency = Annotated[int, option(RUN, "Concurrent requests to the endpoint.", min=1)]
Retries = Annotated[int, option(RUN, "Retries of a failed request.", min=0)]
Port = Annotated[int, option(OTHER, "Local port; 0 is any free one.")]
Browser = Annotated[bool, option(OTHER, "Open the page in a browser.")]

# Operands

CasesFile = Annotated[Path, typer.Argument(help="TokenCourt file (JSONL).")]
RecipeName = Annotated[str, typer.Argument(help="Recipe: a name such as llama-3.1-8b-405b, or a YAML file.")]
