"""``judge-decoding court``: the training data of a judge."""

from __future__ import annotations

from judge_decoding.cli.group import LazyCommand, lazy_app

label_app = lazy_app(
    {
        "arithmetic": LazyCommand(
            "court_label:arithmetic", "Evaluate every equation of an answer; the first false one is the error."
        ),
        "likelihood": LazyCommand(
            "court_swaps:likelihood",
            "Label the draft's tokens by how likely the target finds them and what follows (SelfJudge); no checker.",
        ),
        "equivalence": LazyCommand(
            "court_swaps:equivalence",
            "Label the draft's tokens by whether the target's answer stays the same with them (AutoJudge).",
        ),
        "llm": LazyCommand(
            "court_llm:llm",
            "Let a language model quote the first wrong phrase, by majority; too imprecise in the paper, so --compare "
            "it.",
        ),
    },
    help="Label answers without a person.",
    add_completion=False,
)
court_app = lazy_app(
    {
        "starter": LazyCommand(
            "court_starter:starter",
            "Write the starter set: real models' answers to reasoning questions in English, their errors located by "
            "people.",
        ),
        "collect": LazyCommand(
            "court_collect:collect", "Have models answer questions, and sort the answers right from wrong."
        ),
        "annotate": LazyCommand("court_annotate:annotate", "Label answers by hand on a local web page."),
        "check": LazyCommand(
            "court_data:check",
            "Name every line that is no case or does not survive the tokenizer; exit code 1 if there is one.",
        ),
        "stats": LazyCommand(
            "court_data:stats",
            "Count cases, verdicts and sources, measure annotators' agreement, and find questions in several splits.",
        ),
        "view": LazyCommand(
            "court_data:view",
            "Write one web page, without network, that shows the answers with their verdicts.",
        ),
        "split": LazyCommand(
            "court_data:split",
            "Divide cases by question: no question is in two parts, and it stays in its part when cases are added.",
        ),
        "merge": LazyCommand(
            "court_data:merge",
            "Put files together without duplicates; answers with several verdicts are named.",
        ),
        "rethreshold": LazyCommand(
            "court_data:rethreshold",
            "Put another threshold on labels that carry scores; nothing is computed anew.",
        ),
        "import": LazyCommand(
            "court_formats:import_cases",
            "Turn a file of another format into cases; rows that are none are named and left out.",
        ),
        "export": LazyCommand("court_formats:export_cases", "Write cases in another format."),
        "label": LazyCommand("court:label_app", "Label answers without a person."),
    },
    help="Make, check and show the labelled answers that teach a judge.",
    add_completion=False,
)
