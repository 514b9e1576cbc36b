"""Options: spellings, values, and what does not go together."""

from __future__ import annotations

from bad import Bad, text

PAIR = "generate {target} one --draft {draft}"
JUDGED = f"{PAIR} --judge {{judge}}"
EVALUATE = "evaluate --target {target} --out {new} --task"
SWEEP = "sweep --task arithmetic --target {target} --draft {draft} --out {new}"
BENCH = "bench --target {target} --draft {draft} --backend eager"
FIT = "fit --prompts {prompts} --out {new} --target {target} --draft {draft} --yes"
SCORE = "score {cases} --target {target}"
COLLECT = "court collect {questions} -o {new} -m {target}"
TRAIN = "train {target} {cases} -o {new}"
EQUIVALENCE = "court label equivalence {questions} -o {new} --target {target} --draft {draft}"
LIKELIHOOD = "court label likelihood {questions} -o {new} --label-threshold 1 --target {target}"
ANNOTATE = "court annotate {cases} -o {new} --no-browser"
DROP = "court merge {bad} -o {new} --on-conflict drop"
TWO_VERDICTS = '{"question": "q", "answer": "a"}\n{"question": "q", "answer": "a", "errors": [[0, 1]]}\n'

OPTIONS = [
    # what the parser says itself
    *(
        Bad(name, command, says, usage=True)
        for name, command, says in (
            ("no such command", "genrate", "No such command"),
            ("no such command", "court lable", "No such command"),
            ("no such command", "court label by-hand", "No such command"),
            ("no such option", "rules --colour", "No such option"),
            ("a missing argument", "info", "Missing option"),
            ("a missing option", "court view {cases}", "Missing option"),
            ("a word for a number", "demo --limit many", "Invalid value for '--limit': "),
            ("half a problem", "demo --limit 1.5", "Invalid value for '--limit': "),
            ("a digit of another script", "demo --limit ²", "Invalid value for '--limit': "),
            ("no problems", "demo --limit 0", "Invalid value for '--limit': "),
            ("a draft length of 0", f"{PAIR} --num-draft-tokens 0", "Invalid value for '--num-draft-tokens': "),
            ("accepted tokens that are a word", "plan {recipe} --accepted many", "Invalid value for '--accepted': "),
            ("accepted tokens below 0", "plan {recipe} --accepted -1", "Invalid value for '--accepted': "),
            ("an option without a value", "plan {recipe} --accepted", "requires an argument"),
            ("too many arguments", "rules exact x", "unexpected extra argument"),
        )
    ),
    # spellings
    *(
        Bad(f"rule {rule}", f"{PAIR} --rule '{rule}'", says)
        for rule, says in (
            ("", "The rule is empty"), ("top", "no rule top"), ("top_k", "needs k"), ("top_k(k)", "top_k(k)"),
            ("top_k(k=)", "top_k(k=)"), ("top_k(k=4", "cannot be read"), ("top_k(k=4))", "top_k(k=4))"),
            ("top_k(k=4) |", "it ends"), ("| top_k(k=4)", "'|'"), ("top_k(k=four)", "four"),
            ("top_k(k=0)", "top_k's k is 0"), ("top_k(k=-1)", "-1"), ("top_k(k=1e400)", "1e400"),
            ("top_k(k=4, k=5)", "k twice"),
            ("top_k(z=4)", "no parameter z"), ("fuzzy(threshold=nan)", "nan"), ("judge", "judge"),
            ("judge(threshold=2)", "needs a judge head"), ("__import__(os)", "__import__"), ("exact; exact", ";"),
        )
    ),
    Bad("a rule of one long name", f"{PAIR} --rule {'x' * 5000}", "no rule"),
    Bad("20,000 rules", f"{PAIR} --rule '{' | '.join(['exact'] * 20_000)}'", "the most allowed"),
    Bad("a rule that is none", f"{SCORE} --rule magic", "magic"),
    Bad("a guard that is none", f"{JUDGED} --guard magic", "magic"),
    Bad("a guard without its number", f"{JUDGED} --guard budget", "tokens"),
    Bad("a guard of -1", f"{JUDGED} --guard budget(tokens=-1)", "-1"),
    Bad("a way of draft lengths that is none", f"{PAIR} --draft-schedule magic", "magic"),
    *(
        Bad(f"task {name}", f"{EVALUATE} '{name}'", says)
        for name, says in (
            ("magic", "magic"), ("jsonl", "no data of its own"), ("arithmetic(family=magic)", "magic"),
            ("arithmetic(count=0)", "count"), ("arithmetic(colour=red)", "no parameter colour"), ("", "task"),
            ("jsonl(checker=magic)", "magic"), ('jsonl(checker="regex:(")', "not a regular expression"),
            ('jsonl(checker="no.module:function")', "no.module"),
        )
    ),
    *(
        Bad(f"layers {layers}", f"{TRAIN} --layers {layers}", says)
        for layers, says in (("0", "-1, the last, or below"), ("-9", "-9"), ("low", "low"))
    ),
    *(
        Bad(f"a part {part}", f"court split {{cases}} --into {part}", "share")
        for part in ("x", "x=", "=1", "x=0", "x=-1", "x=nan", "x=2", "x=many")
    ),
    *(
        Bad(f"result {name}", f"{EQUIVALENCE} --checker {name}", name)
        for name in ("magic", "os:nope", "no.such:f", "..:f", ":f", "os:path")
    ),
    # values
    *(
        Bad(f"{option} {value}", f"{JUDGED} {option} {value}", says)
        for option, value, says in (
            ("--threshold", "2", "between 0"), ("--threshold", "-1", "between 0"), ("--threshold", "nan", "finite"),
            ("--temperature", "-1", "temperature is"), ("--temperature", "nan", "temperature is"),
            ("--top-p", "0", "--top-p is"), ("--top-p", "1.5", "--top-p is"), ("--top-k", "-1", "--top-k is"),
            ("--min-p", "2", "--min-p is"), ("--repetition-penalty", "0", "--repetition-penalty is"),
            ("--dtype", "__class__", "__class__"), ("--backend", "magic", "magic"),
            ("--generation-config", "magic", "magic"), ("--stop", "''", "stop"),
        )
    ),
    *(
        Bad(f"device {device}", f"{PAIR} --device {device}", f"The device {device} cannot be used")
        for device in (
            "meta", "magic", "cuda:99", "cuda:-1", "mps", "cpu:1:2", "xla", "hpu", "fpga", "privateuseone", "disk",
        )
    ),
    *(
        Bad("the device meta", f"{command} --device meta", "The device meta cannot be used")
        for command in (f"{EVALUATE} arithmetic --limit 1", SCORE, TRAIN, SWEEP, BENCH, FIT)
    ),
    *(
        Bad("a number format that is none", f"{command} --dtype float99", "float99")
        for command in (
            PAIR, f"{EVALUATE} arithmetic", SCORE, TRAIN, SWEEP, BENCH, FIT, COLLECT, f"{LIKELIHOOD} --draft {{draft}}",
            EQUIVALENCE,
        )
    ),
    *(
        Bad(f"{option} {value}", f"{TRAIN} {option} {value}", says)
        for option, value, says in (
            ("--aim", "magic", "magic"), ("--aim", "catch=2", "aim"), ("--l2", "low", "low"), ("--folds", "1", "folds"),
            ("--norm", "beside", "norm is beside"), ("--labels", "magic", "labels is magic"),
            ("--class-weights", "magic", "class_weights is magic"), ("--after-error", "magic", "after_error is magic"),
        )
    ),
    Bad("a threshold out of range", "demo --limit 1 --threshold 2", "between 0"),
    Bad("a format that is none", "court import {cases} -o {new} -f xml", "no format xml"),
    Bad("a format that is none", "court export {cases} -o {new} -f xml", "no format xml"),
    Bad("an answer to conflicts that is none", "court merge {cases} -o {new} --on-conflict ask", "first, drop, keep"),
    *(
        Bad(name, f"play --no-browser --cases {{new}} --pair {pair}", says)
        for name, pair, says in (
            ("a pair without a draft", "{target}", "has no draft"),
            ("a pair of four models", "a,b,c,d", "NAME=TARGET,DRAFT,JUDGE"),
            ("a pair with nothing between commas", "a,,c", "NAME=TARGET,DRAFT,JUDGE"),
            ("a way to draft for a target", "prompt-lookup,x", "is a drafter, not a"),
        )
    ),
    Bad("an annotator's name that is a path", f"{ANNOTATE} --annotator ../x", "../x"),
    Bad("a Python that is not there", f"{BENCH} --vllm-python /no/such", "/no/such; give a Python with vLLM"),
    Bad("an empty prompt", "generate {target} ''", "prompt is empty"),
    Bad("a prompt with half a surrogate pair", "generate {target} \udc80", "cannot read the text"),
    Bad("a prompt with half a surrogate pair", "generate {target} \udc80 --no-chat", "cannot read the text"),
    # what does not go together
    Bad("a judge and no draft", "generate {target} one --judge {judge}", "Without --draft"),
    Bad("a file and a data set", f"{COLLECT} --dataset x", "one of the two"),
    Bad("neither a file nor a data set", "court collect -o {new} -m {target}", "one of the two"),
    Bad("pairs without a checker", f"{COLLECT} --pairs", "--checker"),
    Bad("a checker that is none", f"{COLLECT} --checker magic", "magic"),
    Bad("a checker that is no expression", f"{COLLECT} --checker 'regex:('", "not a regular expression"),
    Bad("code that may not be run", f"{COLLECT} --checker tests", "--allow-code-execution"),
    Bad("a template without fields", f"{COLLECT} --template x", "has no field such as"),
    Bad("a target's chat template and no chat", f"{COLLECT} --no-chat --target {{target}}", "--no-chat"),
    Bad("a template without the question", "court import {cases} -o {new} -f csv --template x", "{{question}}"),
    Bad("nothing is left", DROP, "No case is left", text(TWO_VERDICTS), notes=True),
    Bad("labels without scores", "court rethreshold {cases} -o {new} --label-threshold 0.5", "score"),
    Bad("a grader where nothing is graded", f"{EVALUATE} arithmetic --grader openai:m", "not graded"),
    Bad("a draft without tokens", f"{LIKELIHOOD} --draft prompt-lookup", "prompt-lookup"),
    Bad("no draft", LIKELIHOOD, "--draft"),
    Bad("no draft", "sweep --task arithmetic --target {target} --out {new}", "--draft"),
    Bad("a model that is a file's name", "court label llm {cases} -o {new} -m '' --yes", "no name"),
]  # fmt: skip
