"""Implementation of ``judge-decoding generate``, called with checked options."""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import typer
from transformers import GenerationConfig

from judge_decoding.cli.console import Terminal
from judge_decoding.cli.options import check_used, given
from judge_decoding.cli.run.models import compiled
from judge_decoding.cli.run.rendering import uses_chat
from judge_decoding.cli.terminal import say_json, stream
from judge_decoding.core.rounds import Stats
from judge_decoding.core.samples import write_samples
from judge_decoding.decoder import JudgeDecoder
from judge_decoding.decoding.answer import Chunk, is_lossy
from judge_decoding.decoding.choices import choose_rule
from judge_decoding.decoding.guards import parse_guard
from judge_decoding.decoding.lengths import POLICIES
from judge_decoding.decoding.sampling import SamplingParams
from judge_decoding.errors import JudgeDecodingError
from judge_decoding.evaluation.recording import record, recorded_threshold
from judge_decoding.io.inputs import LINE
from judge_decoding.judge.head import JudgeHead
from judge_decoding.loading.models import default_device, load_tokenizer
from judge_decoding.names import PROMPT_LOOKUP, complete, embedded_path, is_drafter
from judge_decoding.report.terminal import legend, token_text
from judge_decoding.rules import parse_rule
from judge_decoding.spelling import listed


def run(
    context: typer.Context, target: str, prompt: str | None, draft: str | None, judge: str | None, system: str,
    max_new_tokens: int | None, threshold: float | None, rule: str | None, num_draft_tokens: int | None,
    draft_schedule: str, guard: list[str] | None, stop: list[str] | None, generation_config: str,
    temperature: float | None, top_p: float | None, top_k: int | None, min_p: float | None,
    repetition_penalty: float | None, seed: int | None, dtype: str, device: str | None, backend: str,
    out: Path | None, *, translate: bool, chat: bool | None, plain: bool, json: bool, with_target: bool,
) -> None:  # fmt: skip
    """Answer the prompt."""
    if draft_schedule not in POLICIES:
        raise JudgeDecodingError(f"There is no draft schedule {draft_schedule}; there are {', '.join(POLICIES)}.")
    guards = [parse_guard(spelling) for spelling in guard or []]
    if generation_config not in ("model", "none"):
        raise JudgeDecodingError(f"--generation-config is {generation_config}; it must be model or none.")
    # Check ranges before loading the models.
    asked_sampling = SamplingParams(temperature or 0.0, top_p, top_k, min_p, repetition_penalty, seed)
    draft, judge = complete(target, draft, judge)
    names = {"target": target, "draft": draft or "", "judge": judge or ""}
    # Check the rule before loading the models.
    head = JudgeHead.from_pretrained(judge) if judge is not None else None
    early = choose_rule(head, parse_rule(rule, head) if rule is not None else None, threshold)
    _check_used(context, draft, draft_schedule, temperature, chat=chat)
    if early.is_lossless:
        check_used(context, f"With the rule {early}, which rescues nothing,", "--guard", remedy="use a lossy rule")
    asked_for = given(context, ("--chat", "--system")) if chat is not False else []
    if asked_for and not load_tokenizer(embedded_path(target, "target")).chat_template:
        raise JudgeDecodingError(f"This model has no chat template; leave {listed(asked_for)} out.")
    text = prompt if prompt is not None else sys.stdin.read(LINE + 1)
    if len(text) > LINE:
        raise JudgeDecodingError(
            f"The prompt has more than {LINE:,} characters, more than any model reads; shorten it."
        )
    if not text.strip():
        raise JudgeDecodingError("The prompt is empty; give one as an argument or on standard input.")
    notes = Terminal(err=True)
    with notes.status("loading the models"):
        decoder = JudgeDecoder.from_pretrained(
            target,
            draft,
            judge,
            num_draft_tokens=num_draft_tokens,
            translate=translate,
            backend=cast(Any, backend),
            generation_config=GenerationConfig() if generation_config == "none" else None,
            dtype=dtype,
            device=device or default_device(),
        )
    compiled(decoder, notes)
    own = decoder.sampling(seed=seed)
    if temperature is None and not own.temperature:
        check_used(context, "This model decodes greedily, so", *_OF_SAMPLING, remedy="give a --temperature")
    sampling = replace(asked_sampling, temperature=own.temperature if temperature is None else temperature)
    messages = [{"role": "system", "content": system}] if system else []
    messages.append({"role": "user", "content": text})
    use_chat = uses_chat(chat, decoder.tokenizer, [text])
    decides = choose_rule(decoder.judge, parse_rule(rule, decoder.judge) if rule else None, threshold)
    asked = messages if use_chat else text
    ends = stop or decoder.stop_strings
    chunks = decoder.stream(
        asked, max_new_tokens, rule=decides, sampling=sampling, draft_length=POLICIES[draft_schedule], guards=guards,
        details=json or out is not None, stop=ends,
    )  # fmt: skip
    console = Terminal(soft_wrap=True)
    written: list[Chunk] = []
    begin = time.perf_counter()
    for chunk in chunks:
        written.append(chunk)
        if plain:
            stream(chunk.text)
        elif not json:
            for piece, cause in zip(chunk.pieces, chunk.round.causes, strict=True):
                console.print(token_text(piece, cause, marks=False), end="")
    seconds = time.perf_counter() - begin
    stats = Stats.of(chunk.round for chunk in written)
    distance = next(iter(stats.distances), None)
    if plain:
        stream("\n")
    elif not json:
        console.print("\n")
        if console.is_terminal:  # elsewhere, tokens are not marked
            console.print(legend(marks=False), end="")
        rate = "" if stats.acceptance_rate is None else f" (acceptance rate {stats.acceptance_rate:.0%})"
        console.print(
            f"{stats.tokens} tokens in {seconds:.1f} s ({stats.tokens / seconds:.0f} a second), "
            f"mean acceptance length {stats.tokens_per_forward:.2f}, {stats.accepted_per_round:.2f} accepted draft "
            f"tokens per round{rate}",
            style="dim",
            highlight=False,
        )
    reason = written[-1].finish_reason if written else None
    if reason in _CUT_OFF:
        notes.print(_CUT_OFF[reason], highlight=False, soft_wrap=True)
    if distance is not None and distance > 1 and not decides.is_lossless:
        notes.print(
            f"The prompt looks unlike the questions the judge was trained on (distance {distance:.2f}; 95% of them are "
            "below 1), so its accuracy may not hold here: measure it on such prompts, or decode with --threshold 1.",
            highlight=False,
            soft_wrap=True,
        )
    if json or out is not None:
        about: dict[str, object] = {
            **names,
            "temperature": sampling.temperature,
            "finish_reason": reason,
            "seed": seed,
            "seconds": seconds,
            "distance": distance,
        }
        if with_target:
            alone = decoder.alone()
            with notes.status("the target's own answer"):
                answer = alone.generate(asked, max_new_tokens, sampling=sampling, stop=ends)
            about |= {
                "target_text": answer.text, "target_tokens": len(answer.token_ids), "target_seconds": answer.seconds
            }  # fmt: skip
        rounds, pieces = [c.round for c in written], [piece for c in written for piece in c.pieces]
        about["lossy"] = is_lossy(decides, rounds, greedy=sampling.temperature == 0)
        threshold = recorded_threshold(decides, guards)
        sample = record(text, rounds, pieces, decoder, rule=str(decides), threshold=threshold, **about)
        if out is not None:
            write_samples(out, [sample])
        if json:
            say_json(sample.model_dump_json(indent=2, exclude_none=True))


_OF_SAMPLING = ("--top-p", "--top-k", "--min-p", "--seed")


_CUT_OFF = {
    "length": "The answer was cut off at the token budget; give a larger --max-new-tokens.",
    "context": "The answer was cut off where the model's context is full; shorten the prompt.",
}


def _check_used(
    context: typer.Context, draft: str | None, draft_schedule: str, temperature: float | None, *, chat: bool | None
) -> None:
    """Refuse options without effect for this draft, at this temperature, or without the chat template."""
    if draft is None:
        check_used(
            context, "Without --draft", "--judge", "--threshold", "--rule", "--num-draft-tokens", "--draft-schedule",
            "--guard", "--translate", "--with-target", remedy="give a draft model",
        )  # fmt: skip
    if is_drafter(draft):
        # Prompt lookup has no probabilities.
        unsure = ["--draft-schedule"] if draft == PROMPT_LOOKUP and draft_schedule == "confident" else []
        check_used(context, f"With the draft {draft}", "--translate", *unsure, remedy="give a draft model")
    if temperature == 0:
        check_used(context, "At temperature 0", *_OF_SAMPLING, remedy="give a --temperature")
    if chat is False:
        check_used(context, "With --no-chat", "--system", remedy="use the chat template")
