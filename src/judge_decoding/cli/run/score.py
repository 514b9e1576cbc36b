"""Implementation of ``judge-decoding score``, called with checked options."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice
from json import dumps
from pathlib import Path

from rich.text import Text as Line

from judge_decoding.cli.console import Terminal, progress
from judge_decoding.cli.run.models import load_models, uses_chat
from judge_decoding.cli.score import ScoreOptions
from judge_decoding.cli.shared import warnings
from judge_decoding.cli.terminal import say_json
from judge_decoding.data.cases import Case
from judge_decoding.decoder import JudgeDecoder
from judge_decoding.errors import JudgeDecodingError
from judge_decoding.evaluation.score import ScoreConfig, check_rule
from judge_decoding.evaluation.score import score as score_texts
from judge_decoding.evaluation.texts import PromptTemplate, TokenizedAnswer, read_answers, tokenized
from judge_decoding.io.files import write_text
from judge_decoding.judge.head import JudgeHead
from judge_decoding.models.context import context_length
from judge_decoding.models.forward import input_rows
from judge_decoding.models.tokenize import end_ids
from judge_decoding.names import embedded_path
from judge_decoding.report.score import histograms, most_rejected, score_table
from judge_decoding.report.score_page import score_page
from judge_decoding.rules import parse_rule

DEFAULT_RULES = ("exact", "top_k(k=4)", "typical")


def run(options: ScoreOptions) -> None:
    """Read the answers, and say what each rule keeps."""
    answers, target, judge, chat = options.answers, options.target, options.judge, options.chat
    template = None if options.template is None else options.template.replace("\\n", "\n")
    form = PromptTemplate(template, bool(chat))
    cases, left_out = _read(answers, options.prompt_field, options.answer_field, options.limit)

    spellings = options.rule or [*DEFAULT_RULES, *(["judge"] if judge is not None else [])]
    head = JudgeHead.from_pretrained(judge) if judge is not None else None
    for spelling in spellings:  # fail on an invalid one before loading the target
        check_rule(parse_rule(spelling, head))
    decoder = load_models(
        embedded_path(target, "target"), None, judge, dtype=options.dtype, device=options.device, what="the target"
    )
    if chat is None and all(case.token_ids is not None for _, case in cases):
        chat = False  # the file has the whole prompts
    questions = [case.question for _, case in cases]
    form = replace(form, chat=uses_chat(chat, decoder.tokenizer, questions, template=template))
    texts, unfit = _texts(answers, cases, decoder, form)
    config = ScoreConfig(
        tuple(dict.fromkeys(options.num_draft_tokens or [decoder.num_draft_tokens])),
        batch_tokens=options.batch_tokens,
        shown=options.show,
    )
    with progress() as bar:
        task = bar.add_task("the target reads the answers", total=len(texts))
        rules = [parse_rule(spelling, decoder.judge) for spelling in spellings]
        found = score_texts(decoder, texts, rules, config, progress=lambda: bar.advance(task))

    def spell(token: int) -> str:
        return str(decoder.tokenizer.decode([token]))

    facts = {
        "answers": len(texts),
        "tokens": sum(len(text.ids) for text in texts),
        "left out": left_out + unfit,
        "target": target,
        "prompt": str(form),
    }
    if options.html is not None:
        write_text(options.html, score_page(f"{answers.name} as the draft", facts, found, texts, decoder.tokenizer))
    if options.json:
        facts = {name.replace(" ", "_"): value for name, value in facts.items()}
        say_json(dumps({**facts, "rules": [each.to_dict(spell) for each in found]}, indent=2, ensure_ascii=False))
        return
    console = Terminal()
    title = (f"{len(texts)} answers as the draft", "bold")
    console.print(Line.assemble("\n", title, f", {facts['tokens']} tokens; target {target}\n"))
    console.print(score_table(found))
    console.print(
        "\nThe texts are not regenerated: after a rejected token, the text's own stands in for the target's. The more "
        "a rule rejects, the less its figures say about decoding. The mean acceptance length is an upper bound, for a "
        "draft that costs nothing. All texts count as correct: wrong tokens that a rule keeps are not measured "
        "here.\n\nRounds by accepted draft tokens\n",
        style="dim",
        highlight=False,
    )
    console.print(histograms(found))
    console.print("\nRejected most often", style="bold")
    for each in found:
        console.print(most_rejected(each, spell), highlight=False)
    if options.html is not None:
        console.print(f"\nWeb page: {options.html}", highlight=False)


def _read(
    path: Path, prompt_field: str | None, answer_field: str, limit: int | None
) -> tuple[list[tuple[int, Case]], int]:
    """Read the first answers of a file, and count the lines left out among them."""
    with warnings() as on_bad:
        cases = list(islice(read_answers(path, prompt_field, answer_field, on_bad), limit))
    if not cases:
        raise JudgeDecodingError(
            f"{path} has no answers; give a JSONL file with a question and an answer in each line."
        )
    return cases, on_bad.count


def _texts(
    path: Path, cases: list[tuple[int, Case]], decoder: JudgeDecoder, form: PromptTemplate
) -> tuple[list[TokenizedAnswer], int]:
    """Return the answers in the target's tokens, and the number of answers that cannot be scored; warn about each."""
    ends = end_ids(decoder.target, decoder.tokenizer)
    size, context = input_rows(decoder.target), context_length(decoder.target)
    texts = []
    with warnings() as on_bad:
        for number, case in cases:
            try:
                texts.append(tokenized(case, decoder.tokenizer, form, size=size, context=context, ends=ends))
            except JudgeDecodingError as error:
                on_bad(f"{path}, line {number}: {error}")
    if not texts:
        raise JudgeDecodingError(f"No answer of {path} can be scored; the lines above give the reasons.")
    return texts, on_bad.count
