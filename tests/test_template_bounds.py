"""A good chat template is never refused for what it takes; bad ones are among the bad inputs."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from judge_decoding.models.chat import render
from judge_decoding.models.template_bounds import BoundsError, check_bounds
from tiny import word_tokenizer

TEMPLATES = {
    "with a macro": (
        "{%- macro said(m) -%}{{ m.role ~ ': ' ~ (m.content | trim) + '\\n' }}{%- endmacro -%}"
        "{% for m in messages %}{{ said(m) }}{% endfor %}"
    ),
    "with a namespace": (
        "{% set ns = namespace(system='', n=0) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}"
        "{% if m.role == 'system' %}{% set ns.system = ns.system + m.content %}{% continue %}{% endif %}"
        "{{ '%s: %s' % (m['role'], m['content']) }}{{ '{}: {}'.format(123456789, m.content) }}"
        "{{ '\\n' * 2 if not loop.last }}{% endfor %}{{ ns.n }}{{ ns.system }}{{ '%d' | format(123456789) }}"
    ),
    "with tools and dates": (
        "{% if tools %}{{ tools | tojson(indent=2) }}{% endif %}{{ strftime_now('%Y')[:2] }}"
        "{% for m in messages %}{% if m.role == 'assistant' %}{% generation %}{{ m.content }}{% endgeneration %}"
        "{% else %}{{ '<|' + m.role + '|>' }}{{ m.content.replace('<think>', '').split('</think>')[-1].strip() }}"
        "{% endif %}{% endfor %}{% if add_generation_prompt %}{{ bos_token }}{% endif %}"
    ),
    "with lists": (
        "{% set shown = messages | selectattr('role', 'ne', 'system') | list %}{% for m in shown[-400:] %}"
        "{{ [m.role, m.content] | join(' ') | indent(2) | replace('a', 'aa') }}{{ loop.index0 }}/{{ loop.length }}"
        "{% endfor %}{{ (shown | map(attribute='content') | list) | join('\\n\\n') | length }}"
    ),
    "letter by letter": (
        "{% for m in messages %}{% for letter in m.content %}{% if letter != '@' %}{{ letter }}{% endif %}{% endfor %}"
        "{{ m.content.replace(messages[0].content, '') | center(80) }}{% endfor %}"
    ),
}  # fmt: skip


def chat(turns: int, letters: int) -> list[dict[str, Any]]:
    roles = ["system", *["user", "assistant"] * turns, "user"]
    return [{"role": role, "content": (f"a word 12345678 {n} " * letters)[:letters]} for n, role in enumerate(roles)]


@pytest.mark.parametrize("name", TEMPLATES)
@pytest.mark.parametrize(("turns", "letters"), [(0, 1), (3, 40), (150, 2000), (1, 200_000)])
def test_a_good_template_is_rendered(name: str, turns: int, letters: int) -> None:
    tokenizer = word_tokenizer()
    tokenizer.chat_template = TEMPLATES[name]
    messages = chat(turns, letters)
    wanted = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert render(messages, tokenizer) == wanted


@pytest.mark.slow
def test_every_rendering_has_a_budget_of_its_own() -> None:
    loop = "{% for i in range(90000) %}{{ i }}{% endfor %}"
    wrong: list[Exception] = []

    def renders() -> None:
        try:
            for _ in range(10):
                check_bounds(loop, [])
        except BoundsError as error:
            wrong.append(error)

    threads = [threading.Thread(target=renders) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    with pytest.raises(BoundsError):
        check_bounds(loop * 10, [])
