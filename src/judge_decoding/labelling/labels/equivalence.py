"""Labels by equivalence: AutoJudge's semi-greedy search (arXiv 2504.20039, algorithm 1).

The target answers a question. Then, from left to right, the draft's token replaces the target's wherever they differ,
and the target finishes the answer from there, by a `Rollouts` function. If the result stays the same, the token does
not matter (it is *correct*) and stays swapped; if not, it is *wrong* and the swap is reverted. The result to keep is
the target's own, not a reference's: a judge must not lose any of the target's results.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch

from judge_decoding.data.cases import Case
from judge_decoding.decoder import JudgeDecoder
from judge_decoding.errors import JudgeDecodingError
from judge_decoding.io.endpoint import Body, Endpoint, Reply
from judge_decoding.labelling.labels.swaps import check_draft_model, draft_choices, prompt_ids, swap_case
from judge_decoding.models.text import pieces
from judge_decoding.rules.exact import Exact
from judge_decoding.tasks.results import ResultFunction, same_result

Rollouts = Callable[[Sequence[Sequence[int]], Sequence[int]], list[tuple[list[int], int]]]
"""From starts (token ids, prompt included) and token budgets to the target's greedy continuation of each, with its
cost."""


def local_rollouts(decoder: JudgeDecoder, batch_size: int = 8) -> Rollouts:
    """Rollouts of the decoder's target, sped up by its draft; the cost is in target forwards."""

    def finish(starts: Sequence[Sequence[int]], budgets: Sequence[int]) -> list[tuple[list[int], int]]:
        made = decoder.generate_batch(
            [torch.tensor(start) for start in starts], max(budgets), batch_size=batch_size, rule=Exact(), temperature=0
        )
        return [(list(one.token_ids)[:n], 1 + one.stats.rounds) for one, n in zip(made, budgets, strict=True)]

    return finish


def endpoint_rollouts(endpoint: Endpoint) -> Rollouts:
    """Rollouts at an endpoint that accepts and returns token ids, as vLLM and SGLang do; the cost is in its tokens.

    The starts of one question share a prefix: the server's prefix cache, which both enable by default, reads it once.

    Raises:
        JudgeDecodingError: when used, if a request fails or the endpoint returns no token ids.
    """

    def finish(starts: Sequence[Sequence[int]], budgets: Sequence[int]) -> list[tuple[list[int], int]]:
        found: list[tuple[list[int], int]] = [([], 0)] * len(starts)

        def done(number: int, reply: Reply) -> None:
            if reply.token_ids is None:
                raise JudgeDecodingError(
                    f"{endpoint.address} returns no token ids; use a server that supports return_token_ids, such as "
                    "vLLM 0.10.2 or later."
                )
            found[number] = list(reply.token_ids), len(reply.token_ids)

        def failed(_number: int, reason: str) -> None:
            raise JudgeDecodingError(f"An answer of {endpoint.address} failed: {reason}. Finished work is kept.")

        endpoint.request_all(
            ((i, _body(start, budget)) for i, (start, budget) in enumerate(zip(starts, budgets, strict=True))),
            done, failed,
        )  # fmt: skip
        return found

    return finish


def _body(start: Sequence[int], budget: int) -> Body:
    return {
        "prompt": list(start), "max_tokens": budget, "temperature": 0.0,
        "extra_body": {"return_token_ids": True, "skip_special_tokens": False},
    }  # fmt: skip


SOURCE = "equivalence"


@dataclass(slots=True)
class _Search:
    """One question's search.

    Attributes:
        answer: the answer so far, with the swaps that stayed.
        choices: the draft's tokens for it; None after the answer has changed.
        left: the position from which mismatches are searched.
        kept: positions of swaps that stayed.
        wrong: the answers up to and including a token whose swap was reverted.
        forwards: target forwards spent on it.
    """

    question: str
    prompt: list[int]
    answer: list[int]
    wanted: str | None
    choices: list[int] | None = None
    left: int = 0
    kept: list[int] = field(default_factory=list)
    wrong: list[list[int]] = field(default_factory=list)
    forwards: int = 0

    def next_swap(self) -> int | None:
        """The next position where the draft's token differs."""
        assert self.choices is not None
        return next((i for i in range(self.left, len(self.answer)) if self.choices[i] != self.answer[i]), None)


def label_by_equivalence(
    decoder: JudgeDecoder,
    questions: Sequence[str],
    result: ResultFunction,
    *,
    max_new_tokens: int = 256,
    batch_size: int = 8,
    done: Callable[[str, list[Case], int], None] | None = None,
    rollouts: Rollouts | None = None,
) -> list[Case]:
    """Label the mismatches of the target's greedy answers to ``questions``.

    Each question gives a case with all swaps that stayed, and one for each token whose swap was reverted.

    Args:
        decoder: target and draft; rollouts are greedy and exact, sped up by the draft.
        questions: whole prompts, as the target reads them.
        result: the part of an answer that must stay the same.
        max_new_tokens: token budget of an answer.
        batch_size: questions that are searched together.
        done: called when a question is finished, with its cases and the number of target forwards of its answers.
        rollouts: how the target finishes answers, if not by the decoder; then the decoder's target only determines
            which tokens end an answer.

    Raises:
        JudgeDecodingError: the decoder has no draft model, or a question is empty or too long.
    """
    draft = check_draft_model(decoder)
    ends = decoder.end_ids

    finish = rollouts or local_rollouts(decoder, batch_size)

    def answers(starts: Sequence[Sequence[int]], budgets: Sequence[int]) -> list[tuple[list[int], int]]:
        """The target's continuations of ``starts`` and their costs, without anything after an end token."""
        found: list[tuple[list[int], int]] = [([], 0)] * len(starts)
        open_ = [i for i, row in enumerate(starts) if row[-1] not in ends and budgets[i] > 0]
        if open_:
            made = finish([starts[i] for i in open_], [budgets[i] for i in open_])
            for i, one in zip(open_, made, strict=True):
                found[i] = one
        return found

    def text(ids: Sequence[int]) -> str:
        return "".join(pieces(decoder.tokenizer, ids, ends))

    cases: list[Case] = []
    waiting, active = list(dict.fromkeys(questions)), list[_Search]()
    while waiting or active:
        fresh, waiting = waiting[: batch_size - len(active)], waiting[batch_size - len(active) :]
        prompts = [prompt_ids(decoder, question) for question in fresh]
        for question, prompt, (ids, cost) in zip(
            fresh, prompts, answers(prompts, [max_new_tokens] * len(prompts)) if fresh else [], strict=True
        ):
            active.append(_Search(question, prompt, ids, result(text(ids)), forwards=cost))
        changed = [search for search in active if search.choices is None]
        for search, choices in zip(
            changed,
            draft_choices(draft, [s.prompt for s in changed], [s.answer for s in changed]),
            strict=True,
        ):
            search.choices = choices
        places = [search.next_swap() for search in active]
        for search, place in zip(active, places, strict=True):
            if place is None:
                found = _cases(decoder, search)
                if done is not None:
                    done(search.question, found, search.forwards)
                cases += found
        moving = [(search, place) for search, place in zip(active, places, strict=True) if place is not None]
        active = [search for search, _ in moving]
        tried = [[*s.answer[:i], (s.choices or [])[i]] for s, i in moving]
        starts = [[*s.prompt, *row] for (s, _), row in zip(moving, tried, strict=True)]
        made = answers(starts, [max_new_tokens - len(row) for row in tried]) if moving else []
        for (search, place), row, (rest, cost) in zip(moving, tried, made, strict=True):
            search.forwards += cost
            search.left = place + 1
            if same_result(result, result(text([*row, *rest])), search.wanted):
                search.answer, search.choices = [*row, *rest], None
                search.kept.append(place)
            else:
                search.wrong.append(row)
    return cases


def _cases(decoder: JudgeDecoder, search: _Search) -> list[Case]:
    def case(answer: Sequence[int], swaps: Sequence[int], *, wrong: bool) -> Case | None:
        return swap_case(
            decoder.tokenizer, search.question, search.prompt, answer, swaps,
            wrong=wrong, source=SOURCE, ends=decoder.end_ids,
        )  # fmt: skip

    found = [case(row, [len(row) - 1], wrong=True) for row in search.wrong]
    found.append(case(search.answer, search.kept, wrong=False))
    return [case for case in found if case is not None]
