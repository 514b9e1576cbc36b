"""A drafter that reads the target's hidden states, as EAGLE does, fits in without a change of the loop."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from judge_decoding import JudgeDecoder, Stats, decode
from judge_decoding.core.hidden import HiddenSource
from judge_decoding.decoding.drafters.base import Draft, DraftRequest
from judge_decoding.models.hidden import HiddenStateHook
from judge_decoding.reference.pair import load_pair, prompt_of
from judge_decoding.reference.problems import MAX_NEW_TOKENS, draw_many
from test_context import DYNAMIC, PROMPT, forwards, phi3, rotary
from tiny import greedy, llama, request, run, tokens, word_tokenizer

PROMPTS = [[5], [1, 5, 6, 7, 8], [4 + i % 30 for i in range(40)], [9, 9, 9]]


class Eagle(nn.Module):
    """One layer that makes the next hidden state of the state before and the token behind it (arXiv 2401.15077).

    Its draft goes on from its own states, with the target's output embeddings. It keeps no cache: a state at a time.
    """

    needs = HiddenSource(-1, "after")

    def __init__(self, target: PreTrainedModel) -> None:
        super().__init__()
        size = target.config.hidden_size
        self.embed, self.head = target.get_input_embeddings(), target.get_output_embeddings()
        self.mix = nn.Sequential(nn.Linear(2 * size, 4 * size), nn.SiLU(), nn.Linear(4 * size, size))
        self.seen: dict[int, list[Tensor]] = {}
        self.accepted: dict[int, list[int]] = {}

    def forward(self, states: Tensor, ids: Tensor) -> Tensor:
        """The next states [..., H] of states [..., H] and the tokens behind them [...]."""
        return self.mix(torch.cat((states, self.embed(ids)), -1))

    def propose(self, requests: Sequence[DraftRequest]) -> list[Draft]:
        return [Draft(torch.tensor(self._draft(own), dtype=torch.long)) for own in requests]

    def _draft(self, own: DraftRequest) -> list[int]:
        assert own.hidden is not None
        seen = self.seen.setdefault(own.row, [])
        seen[len(own.tokens) - 1 - len(own.hidden) :] = own.hidden
        if own.accepted is not None:
            self.accepted.setdefault(own.row, []).append(own.accepted)
        assert len(seen) == len(own.tokens) - 1
        if not seen:
            return []
        ids, state, token = [], seen[-1], own.ids[-1]
        for _ in range(own.count):
            state = self(state, token)
            token = self.head(state).argmax(-1)
            ids.append(int(token))
        return ids


def trained(decoder: JudgeDecoder, prompts: Sequence[str]) -> Eagle:
    """Fitted to the target's own answers."""
    torch.manual_seed(0)
    eagle = Eagle(decoder.target)
    answers = decoder.generate_batch(prompts, MAX_NEW_TOKENS, batch_size=20)
    states, tokens_behind, wanted = [], [], []
    for prompt, answer in zip(prompts, answers, strict=True):
        ids = torch.cat((decoder.encode(prompt)[0], torch.tensor(answer.token_ids)))
        with torch.no_grad(), HiddenStateHook(decoder.target, Eagle.needs) as hook:
            decoder.target(ids[None])
            states.append(hook.states[0, :-2])
        tokens_behind.append(ids[1:-1])
        wanted.append(ids[2:])
    given, behind, right = torch.cat(states), torch.cat(tokens_behind), torch.cat(wanted)
    optimizer = torch.optim.Adam(eagle.mix.parameters(), 3e-3)
    for _ in range(60):
        loss = nn.functional.cross_entropy(eagle.head(eagle(given, behind)), right)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return eagle


@pytest.fixture(scope="module")
def target() -> PreTrainedModel:
    return llama(0)


def test_it_gets_the_states_of_what_stayed(target: PreTrainedModel) -> None:
    eagle = Eagle(target)
    for batch in ([PROMPTS[2]], PROMPTS):
        eagle.seen.clear()
        eagle.accepted.clear()
        rounds: list[list[int]] = [[] for _ in batch]
        requests = [request(target, prompt, max_new_tokens=20) for prompt in batch]
        for row, event in decode(target, eagle, requests):
            rounds[row].append(event.accepted)
        for row, prompt in enumerate(batch):
            answer = greedy(target, prompt, 20)
            known = torch.stack(eagle.seen[row])
            with torch.no_grad(), HiddenStateHook(target, Eagle.needs) as hook:
                target(torch.tensor([[*prompt, *answer]]))
                expected = hook.states[0, : len(known)]
            torch.testing.assert_close(known, expected, atol=1e-4, rtol=1e-4)
            assert len(known) > len(prompt)
            assert eagle.accepted[row] == rounds[row][: len(eagle.accepted[row])]


@pytest.mark.parametrize("length", [28, 32, 33, 34, 40])
def test_it_gets_all_states_again_where_all_tokens_are_read_again(length: int) -> None:
    """LongRoPE reads all tokens by other positions once there are more than 32."""
    target, prompt = phi3(), (PROMPT + PROMPT)[:length]
    eagle = Eagle(target)
    answer = tokens(run(target, eagle, prompt, max_new_tokens=20))
    assert answer == forwards(target, prompt, 20)
    known = torch.stack(eagle.seen[0])
    assert len(known) > 32
    with torch.no_grad(), HiddenStateHook(target, Eagle.needs) as hook:
        target(torch.tensor([[*prompt, *answer]]))
        torch.testing.assert_close(known, hook.states[0, : len(known)], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("length", [30, 32, 40])
def test_where_the_scale_always_changes_it_is_not_asked_beyond_the_border(length: int) -> None:
    target, prompt = rotary(DYNAMIC), (PROMPT + PROMPT)[:length]
    eagle = Eagle(target)
    answer = tokens(run(target, eagle, prompt, max_new_tokens=12))
    assert answer == tokens(run(target, None, prompt, max_new_tokens=12))
    assert len(eagle.seen.get(0, [])) in (range(29, 32) if length < 32 else [0])


@pytest.mark.slow
def test_its_drafts_are_accepted_and_its_answers_are_the_targets() -> None:
    decoder = load_pair()[0].alone()
    eagle = trained(decoder, [prompt_of(problem) for problem in draw_many(0, "head", 40)])
    fast = JudgeDecoder(decoder.target, decoder.tokenizer, eagle, num_draft_tokens=3)
    prompts = [prompt_of(problem) for problem in draw_many(0, "test", 8)]
    right, found = (each.generate_batch(prompts, MAX_NEW_TOKENS) for each in (decoder, fast))
    assert [answer.token_ids for answer in found] == [answer.token_ids for answer in right]
    stats = Stats.of(event for answer in found for event in answer.rounds)
    assert stats.accepted_per_round > 0.5


def test_a_decoder_takes_it_and_runs_the_target_eager(target: PreTrainedModel) -> None:
    decoder = JudgeDecoder(target, word_tokenizer(), Eagle(target), backend="static")
    answer = decoder.generate(torch.tensor(PROMPTS[1]), 20)
    assert list(answer.token_ids) == greedy(target, PROMPTS[1], 20, stop=True)
    assert len(decoder.fallbacks) == 1
    assert "hidden states" in decoder.fallbacks[0]
