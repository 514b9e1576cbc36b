"""``judge-decoding court annotate``: label answers by hand on a local web page."""

from __future__ import annotations

import webbrowser
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from judge_decoding.cli.court_files import read
from judge_decoding.cli.login import login
from judge_decoding.cli.options import check_used
from judge_decoding.cli.outputs import check_outputs
from judge_decoding.cli.terminal import say, warn
from judge_decoding.errors import JudgeDecodingError
from judge_decoding.labelling.annotate.session import Session, summary
from judge_decoding.labelling.annotate.storage import PREFIX, cases_path, decisions_path, readings_path, token_path


def annotate(
    context: typer.Context,
    answers: Annotated[Path, typer.Argument(help="Answers to label (JSONL: question, answer, reference, writer).")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the decisions; given again, it goes on.")],
    annotator: Annotated[str | None, typer.Option(help="Who labels; without it your login name.")] = None,
    target: Annotated[
        str | None, typer.Option(help="Target model, to show its tokens and what it would have said.")
    ] = None,
    head: Annotated[
        str | None, typer.Option(help="Judge head of the target; cases it is unsure about come first.")
    ] = None,
    draft: Annotated[str | None, typer.Option(help="Draft model, for a head that reads its hidden states too.")] = None,
    repeats: Annotated[float, typer.Option(help="Share of the cases that come twice, to see if you agree.")] = 0.1,
    seed: Annotated[int, typer.Option(help="Of order and repeats; the same for all annotators.")] = 0,
    port: Annotated[int, typer.Option(help="Port on this machine; 0 is any free one.")] = 8765,
    browser: Annotated[bool, typer.Option(help="Open the page in a browser.")] = True,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a file of cases that is not made of the folder's decisions.")
    ] = False,
) -> None:
    """Label answers by hand on a local web page."""
    if find_spec("starlette") is None or find_spec("uvicorn") is None:
        raise JudgeDecodingError("Annotating needs a web server; install it with: pip install 'judge-decoding[court]'.")
    from judge_decoding.labelling.annotate.server import kept_token, serve  # noqa: PLC0415  (an extra)
    from judge_decoding.web.serving import listen  # noqa: PLC0415  (an extra)

    if head is not None and target is None:
        raise JudgeDecodingError("A judge head reads its target's hidden states; name the model with --target.")
    if head is None:
        check_used(context, "Without --head", "--draft", remedy="name a judge head")
    if output.exists() and not output.is_dir():
        raise JudgeDecodingError(f"Cannot write decisions to {output}: it is a file; name a folder.")
    who = annotator or login()
    made, decisions = cases_path(output, who), decisions_path(output, who)
    token_file = token_path(output)

    def own() -> list[Path]:
        return [*([made] if decisions.exists() else []), *([token_file] if any(output.glob(f"{PREFIX}*")) else [])]

    check_outputs(
        [made, token_file], [answers, target, head, draft], overwrite=overwrite, folder=True,
        work=[decisions, readings_path(output)], own=own,
    )  # fmt: skip
    cases = read(answers)

    # Fail on a port in use before reading or writing anything.
    listener = context.with_resource(listen(port))
    readings = None
    if target is not None:
        from judge_decoding.cli.run.readings import judge_of, readings_of  # noqa: PLC0415  (loads torch)

        judge = judge_of(context, head) if head is not None else None
        readings = readings_of(cases, output, target, judge, draft)
    session = Session(cases, output, who, readings=readings, repeats=repeats, seed=seed)
    with session.log:
        if session.log.repaired:
            say(f"The last line of {session.log.path} was half-written and is removed.", err=True)
        token = kept_token(output)
        address = f"http://127.0.0.1:{listener.getsockname()[1]}/?token={token}"
        say(f"Annotate at {address}\nEvery decision is saved at once; stop with Ctrl-C.")
        if browser:
            webbrowser.open(address)
        serve(session, listener, token)
        session.save_cases()
        if session.problem:
            warn(session.problem)
        labelled = len(session.labelled())
        say(f"\n{labelled} cases labelled -> {session.cases_path if labelled else session.log.path}")
        agreement = session.agreement()
        for pair in (*agreement["selves"], *agreement["pairs"]):
            say(summary(pair))
