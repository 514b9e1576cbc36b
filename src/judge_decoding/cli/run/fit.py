"""Implementation of ``judge-decoding fit``, called with checked options."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from functools import partial

from judge_decoding.cli.config_file import keep_config
from judge_decoding.cli.console import Terminal
from judge_decoding.cli.fit import FitOptions
from judge_decoding.cli.run.calibration import calibration
from judge_decoding.cli.run.draft import made
from judge_decoding.cli.run.swaps import duration, forecast, labelled, load_decoder
from judge_decoding.cli.shared import agree
from judge_decoding.cli.steps import Steps
from judge_decoding.cli.terminal import say, say_json, warn
from judge_decoding.core import tracking
from judge_decoding.data.cases import Case
from judge_decoding.fit.config import FitConfig
from judge_decoding.fit.pipeline import FitForecast, Fitted, draft_prompts, earlier_draft, fit_head
from judge_decoding.fit.table import Table
from judge_decoding.io.questions import Question
from judge_decoding.labelling.labels.progress import LabellingCost
from judge_decoding.loading.models import load_tokenizer
from judge_decoding.names import REFERENCE
from judge_decoding.report.card_files import write_card
from judge_decoding.report.tables import text_table
from judge_decoding.training.draft_options import LAYERS, DraftConfig


def run(options: FitOptions, questions: list[Question], screen: Steps) -> Fitted:
    """Fit the head, and save it with its card; with ``--make-draft``, make a draft first."""
    target, out = options.target, options.out
    config = FitConfig(
        options.checker, points=options.margin, share=options.share, max_new_tokens=options.max_new_tokens,
        batch_size=options.batch_size, seed=options.seed,
    )  # fmt: skip
    asked = None
    if options.calibrate_on is not None:
        asked = calibration(
            options.calibrate_on, options.calibrate_data, options.calibrate_limit, checker=options.checker,
            max_new_tokens=options.max_new_tokens, chat=options.chat, tokenizer=load_tokenizer(target),
        )  # fmt: skip
    draft = options.draft
    if options.make_draft:
        layers = options.draft_layers or LAYERS
        texts = draft_prompts([one.prompt for one in questions], config, all_of_them=asked is not None)
        if not earlier_draft(options.made_draft, target, layers, texts):
            how = DraftConfig(
                layers, max_new_tokens=options.max_new_tokens, batch_size=options.batch_size, seed=options.seed
            )
            made(options, texts, options.made_draft, how, screen)
        draft = str(options.made_draft)

    def ask(cost: FitForecast) -> bool:
        with screen.paused():
            agree(_cost(cost), yes=options.yes)
        return True

    def tell(cases: Sequence[Case], spent: LabellingCost | None) -> None:
        path = out.with_name(f"{out.name}.work") / "labels.jsonl"
        say(f"The labels already exist: {path}." if spent is None else labelled(cases, spent, path), err=True)

    with tracking.log_to(options.log_to, f"fit {out.name}", {"target": target, "draft": draft or ""}) as logger:
        found = fit_head(
            partial(load_decoder, target, draft, options.dtype, options.device),
            [one.prompt for one in questions], out, config,
            references=None if asked else [one.reference for one in questions], calibrate_on=asked,
            agree=ask, progress=screen, labelled=tell, logger=logger,
        )  # fmt: skip
    keep_config(options.context, out)
    write_card(found.head, out)  # with the configuration that repeats the run
    return found


def _cost(cost: FitForecast) -> str:
    """Describe the expected cost in words."""
    return (
        f"{forecast(cost.labelling)} Then the head is trained (one forward an answer), and "
        f"{cost.prompts} prompts are answered at {cost.thresholds} thresholds and some draft lengths: about "
        f"{duration(cost.seconds)}."
    )


def report(found: Fitted, options: FitOptions, *, chat: bool) -> None:
    """Print the result, and how to use it."""
    out, target = str(options.out), options.target
    if options.json:
        say_json(json.dumps({"head": out, **found.to_dict()}, indent=2))
        return
    title, notes = _of(found.table, found.prompts)
    names = {"target": "target alone", "exact": "standard", "judge": "judge decoding"}
    rows = [
        [
            name, f"{row.accuracy:.1%}",
            str(row.num_draft_tokens or "-"), f"{row.accepted_per_round:.2f}" if row.num_draft_tokens else "-",
            f"{row.tokens_per_second:.0f}", f"{row.speedup:.2f}x",
        ]
        for name, row in ((name, found.table.methods[key]) for key, name in names.items())
    ]  # fmt: skip
    console = Terminal()
    console.print()
    titles = ["", "accuracy", "draft\nlength", "accepted draft\ntokens per round", "tokens per\nsecond", "speed-up"]
    console.print(text_table(titles, rows, title=title))
    for note in notes:
        console.print(note, highlight=False)
    for sentence in found.warnings:
        warn(f"Warning: {sentence}")
    made_draft = str(options.made_draft) if options.make_draft else options.draft
    draft = made_draft or REFERENCE  # only the reference target comes with a draft
    use = how_to_use(target, draft, out, found.head.config.num_draft_tokens, chat=chat)
    console.print(use, highlight=False, soft_wrap=True)


def _of(table: Table, prompts: int) -> tuple[str, list[str]]:
    """Return the table's title and footnotes, which state the prompts that its figures are about."""
    if table.prompts == prompts:
        title = f"On the {prompts} prompts that chose the threshold"
    else:
        title = f"On {table.prompts} of the {prompts} prompts that chose the threshold"
    if table.timed_prompts == table.prompts:
        speeds = "Tokens per second: one at a time, the three methods in turn."
    else:
        speeds = f"Tokens per second: {table.timed_prompts} of these, one at a time, the three methods in turn."
    lengths = (
        f"Draft lengths: the fastest on {table.length_prompts} other prompt{'s' if table.length_prompts > 1 else ''}."
    )
    if not table.apart:
        lengths = f"Draft lengths: the fastest on {table.length_prompts} of these, so the speeds are slightly too high."
    return title, [speeds, lengths]


_USE = """
These prompts chose the threshold; measure others before you rely on it.

In Python:
  from judge_decoding import JudgeDecoder
  decoder = JudgeDecoder.from_pretrained({target!r}, draft={draft!r}, judge={out!r})
  print(decoder.generate({prompt}).text)

In transformers:
  model.generate(**inputs, custom_generate={out!r}, trust_remote_code=True, draft={draft!r})

On the command line:
  judge-decoding generate --target {target} --draft {draft} --judge {out} {form}"Your prompt"
"""
_SERVE = """
As a server, with vLLM:
  vllm serve {target} --speculative-config {speculative} --additional-config {additional}
"""
_NOT_SERVED = """
vLLM cannot serve the embedded pair: its draft's attention heads are narrower than those that vLLM knows.
"""


def how_to_use(target: str, draft: str, head: str, num_draft_tokens: int | None, *, chat: bool) -> str:
    """Return the lines that use a head in Python, transformers, the command line and vLLM."""
    use = _USE.format(
        out=head, target=target, draft=draft, form="" if chat else "--no-chat ",
        prompt='[{"role": "user", "content": "Your prompt"}]' if chat else '"Your prompt"',
    )  # fmt: skip
    if REFERENCE in (target, draft):
        return use + _NOT_SERVED
    speculative = {"method": "draft_model", "model": draft, "num_speculative_tokens": num_draft_tokens}
    return use + _SERVE.format(
        target=target, speculative=shlex.quote(json.dumps(speculative)),
        additional=shlex.quote(json.dumps({"judge": {"head": head}})),
    )  # fmt: skip
