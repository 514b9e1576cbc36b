"""Ways for the target to finish an answer from a given start: on this machine, or at an endpoint."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from judge_decoding.decoder import JudgeDecoder
from judge_decoding.errors import JudgeDecodingError
from judge_decoding.io.endpoint import Body, Endpoint, Reply
from judge_decoding.rules.exact import Exact

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
