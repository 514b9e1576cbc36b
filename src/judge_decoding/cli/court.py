"""``judge-decoding court``: the training data of a judge."""

from __future__ import annotations

from judge_decoding.cli.group import LazyCommand, lazy_app

label_app = lazy_app(
    {
        "arithmetic": LazyCommand(
            "court_label:arithmetic", "Check every equation of an answer; the first false one is the error."
        ),
        "likelihood": LazyCommand(
            "court_swaps:LikelihoodOptions",
            "Label draft tokens by the target's likelihood of them and of what follows (SelfJudge); no checker.",
        ),
        "equivalence": LazyCommand(
            "court_swaps:EquivalenceOptions",
            "Label draft tokens by whether the target's final result stays the same with them (AutoJudge).",
        ),
        "llm": LazyCommand(
            "court_label:llm",
            "Let a language model quote the first wrong phrase, by majority; imprecise in the paper, so --compare it.",
        ),
    },
    help="Label answers automatically.",
    add_completion=False,
)
court_app = lazy_app(
    {
        "starter": LazyCommand(
            "court_data:starter",
            "Write the starter set: answers of real models to reasoning questions, with errors located by people.",
        ),
        "collect": LazyCommand(
            "court_collect:CollectOptions", "Let models answer questions, and sort the answers into correct and wrong."
        ),
        "annotate": LazyCommand("court_annotate:annotate", "Label answers by hand on a local web page."),
        "check": LazyCommand(
            "court_data:check",
            "Report invalid lines and texts that do not round-trip through the tokenizer. Exit code 1 if any.",
        ),
        "stats": LazyCommand(
            "court_data:stats",
            "Count cases, verdicts and sources, measure annotator agreement, and find questions in several files.",
        ),
        "view": LazyCommand(
            "court_data:view",
            "Write a self-contained web page with the answers and their verdicts.",
        ),
        "split": LazyCommand(
            "court_data:split",
            "Split cases by question: no question is in two parts, and adding cases moves none of the others.",
        ),
        "merge": LazyCommand(
            "court_data:merge",
            "Merge files without duplicates; answers with several verdicts are reported.",
        ),
        "rethreshold": LazyCommand(
            "court_data:rethreshold",
            "Apply another threshold to labels with scores, without a model.",
        ),
        "import": LazyCommand(
            "court_formats:import_cases",
            "Convert a file of another format to cases; invalid rows are reported and skipped.",
        ),
        "export": LazyCommand("court_formats:export_cases", "Convert cases to another format."),
        "label": LazyCommand("court:label_app", "Label answers automatically."),
    },
    help="Make, check and show the labelled answers that train a judge.",
    add_completion=False,
)
