"""``judge-decoding court annotate``: label answers by hand on a local web page."""

from __future__ import annotations

import webbrowser
from pathlib import Path
from typing import Annotated

import typer

from judge_decoding.cli import options
from judge_decoding.cli.checks import check_used, check_web_server
from judge_decoding.cli.options import MODELS, TRAINING, option, out_option
from judge_decoding.cli.outputs import check_outputs
from judge_decoding.cli.shared import login, read
from judge_decoding.cli.terminal import say, warn
from judge_decoding.errors import JudgeDecodingError
from judge_decoding.io.files import check_not_a_file
from judge_decoding.labelling.annotate.session import Session, summary
from judge_decoding.labelling.annotate.storage import PREFIX, cases_path, decisions_path, readings_path, token_path


def annotate(
    context: typer.Context,
    answers: Annotated[Path, typer.Argument(help="Answers to label (JSONL: question, answer, reference, writer).")],
    out: Annotated[Path, out_option("Folder for the decisions; an existing one is resumed.")],
    annotator: options.Annotator = None,
    target: Annotated[str | None, option(MODELS, "Target model, to show its tokens and its own choices.")] = None,
    judge: options.JudgeOption = None,
    draft: options.DraftModelOption = None,
    repeats: Annotated[float, option(TRAINING, "Share of the cases shown twice, to measure self-agreement.")] = 0.1,
    seed: options.Seed = 0,
    port: options.Port = 8765,
    browser: options.Browser = True,
    device: options.Device = None,
    overwrite: options.Overwrite = False,
) -> None:
    """Label answers by hand on a local web page."""
    check_web_server("Annotating needs")
    from judge_decoding.labelling.annotate.server import kept_token, serve  # noqa: PLC0415  (an extra)
    from judge_decoding.web.serving import listen  # noqa: PLC0415  (an extra)

    if judge is not None and target is None:
        raise JudgeDecodingError("A judge head reads its target's hidden states; give the model with --target.")
    if judge is None:
        check_used(context, "Without --judge", "--draft", remedy="give a judge head")
    check_not_a_file(out, "decisions")
    who = annotator or login()
    made, decisions = cases_path(out, who), decisions_path(out, who)
    token_file = token_path(out)

    def own() -> list[Path]:
        return [*([made] if decisions.exists() else []), *([token_file] if any(out.glob(f"{PREFIX}*")) else [])]

    check_outputs(
        [made, token_file], [answers, target, judge, draft], overwrite=overwrite, folder=True,
        work=[decisions, readings_path(out)], own=own,
    )  # fmt: skip
    cases = read(answers)

    # Fail on a port in use before reading or writing anything.
    listener = context.with_resource(listen(port))
    readings = None
    if target is not None:
        from judge_decoding.cli.run.readings import readings_of  # noqa: PLC0415  (loads torch)

        readings = readings_of(context, cases, out, target, judge, draft, device)
    session = Session(cases, out, who, readings=readings, repeats=repeats, seed=seed)
    with session.log:
        if session.log.repaired:
            say(f"The last line of {session.log.path} was half-written and is removed.", err=True)
        token = kept_token(out)
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
