"""``judge-decoding court``: the data that teaches a judge. The commands' own modules say what they do."""

from __future__ import annotations

import typer

from judge_decoding.cli.court_annotate import annotate
from judge_decoding.cli.court_collect import collect
from judge_decoding.cli.court_data import check, merge, rethreshold, split, stats, view
from judge_decoding.cli.court_formats import export_cases, import_cases
from judge_decoding.cli.court_label import label_app

court_app = typer.Typer(help="Make, check and show the labelled answers that teach a judge.", no_args_is_help=True)
court_app.command()(collect)
court_app.command()(annotate)
court_app.add_typer(label_app, name="label")
court_app.command()(check)
court_app.command()(stats)
court_app.command()(view)
court_app.command()(split)
court_app.command()(merge)
court_app.command()(rethreshold)
court_app.command("import")(import_cases)
court_app.command("export")(export_cases)
