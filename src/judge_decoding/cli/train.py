"""``judge-decoding train``: labelled answers in, a judge head out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def train(
    target: Annotated[str, typer.Argument(help="Target model: Hub name or folder.")],
    cases: Annotated[Path, typer.Argument(help="TokenCourt file (JSONL) of labelled answers.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the head.")],
    draft: Annotated[
        str | None,
        typer.Option(help="Draft model, for a judge that reads its hidden states too and works with it only."),
    ] = None,
    norm: Annotated[str, typer.Option(help="Hidden states before or after the target's final norm.")] = "before",
    after_error: Annotated[
        str, typer.Option(help="What tokens after the first error count as: correct, ignore or wrong.")
    ] = "wrong",
    recall: Annotated[float, typer.Option(help="Share of wrong tokens the threshold must reject.")] = 0.95,
    seed: Annotated[int, typer.Option(help="Of the held-out questions.")] = 0,
    dtype: Annotated[str, typer.Option(help="auto, float32, bfloat16 or float16.")] = "auto",
    json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
) -> None:
    """Train a judge head for a target on labelled answers."""
    from judge_decoding.court.cases import read_cases
    from judge_decoding.errors import JudgeDecodingError
    from judge_decoding.files import check_writable

    for name, value, allowed in (
        ("norm", norm, ("before", "after")),
        ("after-error", after_error, ("correct", "ignore", "wrong")),
        ("dtype", dtype, ("auto", "float32", "bfloat16", "float16")),
    ):
        if value not in allowed:
            raise JudgeDecodingError(f"--{name} is {value}; it must be one of {', '.join(allowed)}.")
    if output.exists() and not output.is_dir():
        raise JudgeDecodingError(f"Cannot write a head to {output}: it is a file; name a folder.")
    check_writable(output / "config.json")
    data = read_cases(cases)

    import torch
    from rich.console import Console
    from rich.progress import Progress

    from judge_decoding.decoding.loading import check_same_vocabulary, load_model, load_tokenizer
    from judge_decoding.judge.training import TrainingConfig, train_head

    config = TrainingConfig(norm=norm, after_error=after_error, recall=recall, seed=seed)  # type: ignore[arg-type]  # checked above
    notes = Console(stderr=True)
    with notes.status("loading the models"):
        tokenizer = load_tokenizer(target)
        if draft is not None:
            check_same_vocabulary(tokenizer, load_tokenizer(draft))
        place = "cuda" if torch.cuda.is_available() else "cpu"
        model = load_model(target, dtype=dtype, device=place)
        small = None if draft is None else load_model(draft, dtype=dtype, device=place)
    with Progress(console=notes, transient=True, disable=not notes.is_terminal) as bar:
        task = bar.add_task("reading the answers", total=len(data) * (1 if small is None else 2))
        head = train_head(model, tokenizer, data, config, draft=small, progress=lambda count: bar.advance(task, count))
    head.save_pretrained(output)

    from judge_decoding.cli.info import describe

    describe(head.config, output, json=json)
