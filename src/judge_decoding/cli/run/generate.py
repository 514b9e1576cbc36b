"""Implementation of ``judge-decoding generate``, called with checked options."""

from __future__ import annotations

import sys
import time
from dataclasses import replace

from transformers import GenerationConfig

from judge_decoding.cli.checks import check_used, given
from judge_decoding.cli.console import Terminal
from judge_decoding.cli.generate import GenerateOptions
from judge_decoding.cli.run.models import load_models, uses_chat
from judge_decoding.cli.terminal import say_json, stream
from judge_decoding.core.rounds import Stats
from judge_decoding.core.samples import write_samples
from judge_decoding.decoding.answer import Chunk, is_lossy
from judge_decoding.decoding.choices import choose_rule
from judge_decoding.decoding.guards import parse_guards
from judge_decoding.decoding.lengths import POLICIES
from judge_decoding.decoding.sampling import SamplingParams
from judge_decoding.errors import JudgeDecodingError
from judge_decoding.evaluation.recording import record, recorded_threshold
from judge_decoding.io.inputs import LINE
from judge_decoding.judge.head import JudgeHead
from judge_decoding.loading.models import load_tokenizer
from judge_decoding.names import PROMPT_LOOKUP, complete, embedded_path, is_drafter
from judge_decoding.report.terminal import legend, token_text
from judge_decoding.spelling import listed

_OF_SAMPLING = ("--top-p", "--top-k", "--min-p", "--seed")
_CUT_OFF = {
    "length": "The answer was cut off at the token budget; give a larger --max-new-tokens.",
    "context": "The answer was cut off where the model's context is full; shorten the prompt.",
}


def run(options: GenerateOptions) -> None:
    """Answer the prompt."""
    # What can be wrong is checked before the models are loaded.
    if options.draft_schedule not in POLICIES:
        raise JudgeDecodingError(
            f"There is no draft schedule {options.draft_schedule}; there are {', '.join(POLICIES)}."
        )
    guards = parse_guards(options.guard or ())
    if options.generation_config not in ("model", "none"):
        raise JudgeDecodingError(f"--generation-config is {options.generation_config}; it must be model or none.")
    sampling = SamplingParams(
        options.temperature or 0.0, options.top_p, options.top_k, options.min_p, options.repetition_penalty,
        options.seed,
    )  # fmt: skip
    draft, judge = complete(options.target, options.draft, options.judge)
    head = JudgeHead.from_pretrained(judge) if judge is not None else None
    rule = choose_rule(head, options.rule, options.threshold)
    _check_used(options, draft)
    if rule.is_lossless:
        check_used(
            options.context, f"With the rule {rule}, which rescues nothing,", "--guard", remedy="use a lossy rule"
        )
    asked_for = given(options.context, ("--chat", "--system")) if options.chat is not False else []
    if asked_for and not load_tokenizer(embedded_path(options.target, "target")).chat_template:
        raise JudgeDecodingError(f"This model has no chat template; leave {listed(asked_for)} out.")
    text = _prompt(options)
    decoder = load_models(
        options.target, draft, judge, device=options.device, dtype=options.dtype, backend=options.backend,
        num_draft_tokens=options.num_draft_tokens, translate=options.translate,
        generation_config=GenerationConfig() if options.generation_config == "none" else None,
    )  # fmt: skip
    own = decoder.sampling(seed=options.seed)
    if options.temperature is None and not own.temperature:
        check_used(options.context, "This model decodes greedily, so", *_OF_SAMPLING, remedy="give a --temperature")
    if options.temperature is None:
        sampling = replace(sampling, temperature=own.temperature)
    messages = [{"role": "system", "content": options.system}] if options.system else []
    messages.append({"role": "user", "content": text})
    asked = messages if uses_chat(options.chat, decoder.tokenizer, [text]) else text
    rule = choose_rule(decoder.judge, options.rule, options.threshold)
    ends = options.stop or decoder.stop_strings
    recorded = options.json or options.out is not None
    chunks = decoder.stream(
        asked, options.max_new_tokens, rule=rule, sampling=sampling, draft_length=POLICIES[options.draft_schedule],
        guards=guards, details=recorded, stop=ends,
    )  # fmt: skip
    console, notes = Terminal(soft_wrap=True), Terminal(err=True)
    written: list[Chunk] = []
    begin = time.perf_counter()
    for chunk in chunks:
        written.append(chunk)
        if options.plain:
            stream(chunk.text)
        elif not options.json:
            for piece, cause in zip(chunk.pieces, chunk.round.causes, strict=True):
                console.print(token_text(piece, cause, marks=False), end="")
    seconds, stats = time.perf_counter() - begin, Stats.of(chunk.round for chunk in written)
    if options.plain:
        stream("\n")
    elif not options.json:
        _print_figures(console, stats, seconds)
    reason = written[-1].finish_reason if written else None
    if reason in _CUT_OFF:
        notes.print(_CUT_OFF[reason], highlight=False, soft_wrap=True)
    distance = next(iter(stats.distances), None)
    if distance is not None and distance > 1 and not rule.is_lossless:
        notes.print(
            f"The prompt looks unlike the questions the judge was trained on (distance {distance:.2f}; 95% of them are "
            "below 1), so its accuracy may not hold here: measure it on such prompts, or decode with --threshold 1.",
            highlight=False,
            soft_wrap=True,
        )
    if not recorded:
        return
    rounds, pieces = [chunk.round for chunk in written], [piece for chunk in written for piece in chunk.pieces]
    about: dict[str, object] = {
        "target": options.target, "draft": draft or "", "judge": judge or "", "temperature": sampling.temperature,
        "finish_reason": reason, "seed": options.seed, "seconds": seconds,
        "rule": str(rule), "threshold": recorded_threshold(rule, guards),
        "lossy": is_lossy(rule, rounds, greedy=sampling.temperature == 0),
    }  # fmt: skip
    if options.with_target:
        with notes.status("the target's own answer"):
            answer = decoder.alone().generate(asked, options.max_new_tokens, sampling=sampling, stop=ends)
        about |= {
            "target_text": answer.text, "target_tokens": len(answer.token_ids), "target_seconds": answer.seconds
        }  # fmt: skip
    sample = record(text, rounds, pieces, decoder, **about)
    if options.out is not None:
        write_samples(options.out, [sample])
    if options.json:
        say_json(sample.model_dump_json(indent=2, exclude_none=True))


def _prompt(options: GenerateOptions) -> str:
    """The prompt, from the command line or standard input."""
    text = options.prompt if options.prompt is not None else sys.stdin.read(LINE + 1)
    if len(text) > LINE:
        raise JudgeDecodingError(
            f"The prompt has more than {LINE:,} characters, more than any model reads; shorten it."
        )
    if not text.strip():
        raise JudgeDecodingError(
            f"The prompt is empty; give one after the target {options.target}, or on standard input."
        )
    return text


def _check_used(options: GenerateOptions, draft: str | None) -> None:
    """Refuse options without effect for this draft, at this temperature, or without the chat template."""
    context = options.context
    if draft is None:
        check_used(
            context, "Without --draft", "--judge", "--threshold", "--rule", "--num-draft-tokens", "--draft-schedule",
            "--guard", "--translate", "--with-target", remedy="give a draft model",
        )  # fmt: skip
    if is_drafter(draft):
        # Prompt lookup has no probabilities.
        unsure = ["--draft-schedule"] if draft == PROMPT_LOOKUP and options.draft_schedule == "confident" else []
        check_used(context, f"With the draft {draft}", "--translate", *unsure, remedy="give a draft model")
    if options.temperature == 0:
        check_used(context, "At temperature 0", *_OF_SAMPLING, remedy="give a --temperature")
    if options.chat is False:
        check_used(context, "With --no-chat", "--system", remedy="use the chat template")


def _print_figures(console: Terminal, stats: Stats, seconds: float) -> None:
    """Print the legend and the figures below an answer."""
    console.print("\n")
    if console.is_terminal:  # elsewhere, tokens are not marked
        console.print(legend(marks=False))
    rate = "" if stats.acceptance_rate is None else f" (acceptance rate {stats.acceptance_rate:.0%})"
    console.print(
        f"{stats.tokens} tokens in {seconds:.1f} s ({stats.tokens / seconds:.0f} a second), "
        f"mean acceptance length {stats.tokens_per_forward:.2f}, {stats.accepted_per_round:.2f} accepted draft "
        f"tokens per round{rate}",
        style="dim",
        highlight=False,
        soft_wrap=not console.is_terminal,
    )
