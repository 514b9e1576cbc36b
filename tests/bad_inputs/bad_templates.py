"""Chat templates that are wrong, and that would take all memory or time."""

from __future__ import annotations

from bad import Bad, copy

GENERATE = "generate {bad} one --max-new-tokens 4"
GROWING = "{%% set ns = namespace(x=%s) %%}{%% for i in range(60) %%}{%% set ns.x = %s %%}{%% endfor %%}{{ ns.x }}"
LOOPS = "{%% for i in range(99999) %%}{%% for j in range(99999) %%}%s{%% endfor %%}{%% endfor %%}"

CONTENTS: dict[str, str | bytes | None] = {
    "no syntax": "{% for m in",
    "an unknown tag": "{% magic %}",
    "an unknown filter": "{{ messages | magic }}",
    "an unknown test": "{% if messages is magic %}{% endif %}",
    "an unknown function": "{{ magic() }}",
    "an error of its own": "{{ raise_exception('only users') }}",
    "division by zero": "{{ 1 / 0 }}",
    "a remainder of zero": "{{ 1 % 0 }}",
    "a macro that calls itself": "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "a macro that calls itself twice": "{% macro f(n) %}{{ [f(n - 1), f(n - 1)] if n }}{% endmacro %}{{ f(99) }}",
    "a number that is too large": "{{ 10.0 ** 1000 }}",
    "a number of many digits": "{{ 10 ** 5000 }}",
    "a power without end": "{{ 10 ** (10 ** 10) }}",
    "a range without end": "{% for i in range(10 ** 11) %}{{ i }}{% endfor %}",
    "100,000,000,000 letters": "{{ 'a' * 10 ** 11 }}",
    "a list that is repeated": "{{ [1] * 10 ** 11 }}",
    "bytes of a number": "{{ (1).to_bytes(10 ** 11, 'big') }}",
    "a width in a filter": "{{ 'a' | center(100000000000) }}",
    "a width in a mapped filter": "{{ ['a'] | map('center', 100000000000) | join }}",
    "a width in a method": "{{ 'a'.ljust(100000000000) }}",
    "a width in a method's own name": "{{ ('a' | attr('rjust'))(100000000000) }}",
    "a width in %": "{{ '%0100000000000d' % 1 }}",
    "a width behind %": "{{ '%*d' % (100000000000, 1) }}",
    "a width in a filter's %": "{{ '%0100000000000d' | format(1) }}",
    "a width in braces": "{{ '{:>100000000000}'.format(1) }}",
    "a width behind braces": "{{ '{:{}}'.format(1, 100000000000) }}",
    "a width of indents": "{{ 'a\nb' | indent(100000000000) }}",
    "letters that are replaced": "{{ ('a' * 99999).replace('a', 'a' * 99999).replace('a', 'a' * 99999) }}",
    "letters that are joined": "{{ ('a' * 999999).join(['b'] * 999999) }}",
    "letters that double by +": GROWING % ("'aaaa'", "ns.x + ns.x"),
    "letters that double by ~": GROWING % ("'aaaa'", "ns.x ~ ns.x"),
    "letters that double by a filter": GROWING % ("'aaaa'", "[ns.x, ns.x] | join"),
    "lists that double": GROWING % ("[1]", "ns.x + ns.x"),
    "words without end": "{{ lipsum(n=1000000000) }}",
    "loops in loops": LOOPS % "",
    "loops that write": LOOPS % "aaaaaaaaaa",
    "a macro that writes without end": "{% macro f() %}" + LOOPS % "aaaa" + "{% endmacro %}{{ f() }}",
    "what is not to be read": "{{ messages.__class__.__base__.__subclasses__() }}",
    "a file": "{% include '/etc/passwd' %}",
    "a template above it": "{% extends 'x' %}",
    "parentheses nested deep": "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}",
    "blocks nested deep": "{% if 1 %}" * 3000 + "{% endif %}" * 3000,
    "binary": bytes(range(256)),
}  # fmt: skip
NO_TEMPLATE: dict[str, str | bytes | None] = {"chat_template.jinja": None}

TEMPLATES = [
    *(
        Bad(name, GENERATE, "{bad}", copy("target", {"chat_template.jinja": content}))
        for name, content in CONTENTS.items()
    ),
    *(
        Bad(
            f"chat template: {name}",
            command,
            "{bad}",
            copy("target", {"chat_template.jinja": CONTENTS[name]}),
            notes=True,
        )
        for name in ("division by zero", "a macro that calls itself", "100,000,000,000 letters")
        for command in (
            "court collect {questions} -o {new} -m {bad} --chat",
            "evaluate --task arithmetic --limit 1 --target {bad} --out {new}",
            "score {cases} --target {bad} --chat",
        )
    ),
    *(
        Bad(name, GENERATE, "{bad}", copy("target", NO_TEMPLATE, inside="tokenizer_config.json", chat_template=value))
        for name, value in (("a number", 5), ("names without a template", [{"nom": "a"}]), ("an object", {"a": 1}))
    ),
]
