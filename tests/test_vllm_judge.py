"""The judge in vLLM's model process, with stand-ins for vLLM's own objects: what both model runners hand it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from judge_decoding import JudgeDecodingError, JudgeHead, parse_rule
from judge_decoding.core.hidden import HiddenSource
from judge_decoding.integrations.vllm import hooks
from judge_decoding.integrations.vllm.checks import check_server, check_weights
from judge_decoding.integrations.vllm.runner import (
    AuxStates,
    RowsVerification,
    RunnerJudge,
    current_round,
    during,
)
from judge_decoding.integrations.vllm.scores import PREFIX, scored, start, take_started
from judge_decoding.serving.flat_drafts import LIFTED
from judge_decoding.serving.server_rules import ServerRules, ServerSettings
from tiny import AcceptAll

VOCABULARY = 7


def params(**given: Any) -> SimpleNamespace:
    return SimpleNamespace(
        **{"extra_args": None, "logprobs": None, "logprob_token_ids": None, "temperature": 0} | given
    )


def model(target: nn.Module, *, first: int = 0, end: int | None = None) -> SimpleNamespace:
    """A target as vLLM has it, or one rank's rows of its output."""
    weight = target.get_output_embeddings().weight  # type: ignore[operator]
    shard = SimpleNamespace(org_vocab_start_index=first, org_vocab_end_index=end or len(weight))
    output = SimpleNamespace(weight=weight[first:end], shard_indices=shard, org_vocab_size=len(weight))
    return SimpleNamespace(lm_head=output)


def judge(target: nn.Module, folder: Path, **settings: Any) -> RunnerJudge:
    runner = SimpleNamespace(device=torch.device("cpu"), get_model=lambda: model(target))
    return RunnerJudge(runner, ServerSettings.read({"head": str(folder), **settings}))


@pytest.fixture
def after(target: nn.Module, tmp_path: Path) -> Path:
    """A head on the states after the final norm, as vLLM's models hand them over."""
    from tiny import random_head

    random_head(target, norm="after").save_pretrained(tmp_path / "after")  # type: ignore[arg-type]
    return tmp_path / "after"


def test_the_weights_tell_the_target_from_another(
    target: nn.Module, draft: nn.Module, folders: dict[str, Path]
) -> None:
    rules = ServerRules.of(ServerSettings.read({"head": str(folders["judge"])}))
    size = len(target.get_output_embeddings().weight)  # type: ignore[operator]
    check_weights(rules, model(target))
    for first, end in ((0, size // 2), (size // 2, size)):
        check_weights(rules, model(target, first=first, end=end))
    padded = model(target)
    padded.lm_head.weight = torch.cat((padded.lm_head.weight, torch.zeros(64, padded.lm_head.weight.shape[1])))
    padded.lm_head.org_vocab_size = padded.lm_head.shard_indices.org_vocab_end_index = size + 64
    check_weights(rules, padded)
    other = model(target)
    other.lm_head.weight = other.lm_head.weight + 1
    with pytest.raises(JudgeDecodingError):
        check_weights(rules, other)
    with pytest.raises(JudgeDecodingError):
        check_weights(rules, SimpleNamespace(get_language_model=lambda: other))
    quantized = model(target)
    quantized.lm_head.weight = quantized.lm_head.weight.to(torch.int8)
    check_weights(rules, quantized)  # cannot be told; a warning says so


def test_a_draft_token_is_judged_by_the_state_at_itself(target: nn.Module, after: Path) -> None:
    made = judge(target, after, threshold=0.5)
    size = made.rules.head.config.target.hidden_size  # type: ignore[union-attr]
    # Two requests with 2 and 1 draft tokens: rows 0 1 2 and 3 4, of which 2 and 4 are behind the drafts.
    states = torch.randn(5, size)
    scores = made.rules.head.probability(states)  # type: ignore[union-attr]
    metadata = SimpleNamespace(
        target_logits_indices=torch.tensor([0, 1, 3]), draft_token_ids=torch.tensor([4, 5, 6]),
        num_draft_tokens=[2, 1], logits_indices=torch.arange(5),
    )  # fmt: skip
    made.runner.requests = {
        "a": SimpleNamespace(sampling_params=params()),
        "b": SimpleNamespace(sampling_params=params()),
    }
    made.runner.input_batch = SimpleNamespace(req_ids=["a", "b"])
    this = made.round(
        SimpleNamespace(spec_decode_metadata=metadata, sample_hidden_states=states, aux_hidden_states=None)
    )
    logits = torch.zeros(3, VOCABULARY)
    logits[:, 0] = 1  # the target would say 0
    this.see_constraints(logits)
    this.lift(logits, None)
    assert (logits[torch.arange(3), metadata.draft_token_ids] == LIFTED).tolist() == (scores[[1, 2, 4]] > 0.5).tolist()
    this.count(torch.tensor([[4, 5, 0], [0, -1, -1]]))
    assert this.rescued_counts is not None
    assert this.rescued_counts.tolist() == [int((scores[[1, 2]] > 0.5).sum()), 0]


def test_only_the_last_rank_of_a_pipeline_has_a_judge(target: nn.Module, after: Path) -> None:
    """The others hand on intermediate states and verify nothing; they need not even be able to read the head."""

    def rank(head: Path, **has: object) -> SimpleNamespace:
        return SimpleNamespace(
            vllm_config=SimpleNamespace(additional_config={"judge": {"head": str(head)}}), device=torch.device("cpu"),
            get_model=lambda: model(target), execute_model_state=None, **has,
        )  # fmt: skip

    for load, sample, without in (
        (hooks.after_loading, hooks.around_sample_tokens, {}),
        (hooks.after_loading_v2, hooks.around_sample_tokens_v2, {"rejection_sampler": None}),
    ):
        first, last = rank(Path("nowhere"), **without), rank(after, rejection_sampler=object())
        for runner in (first, last):
            assert load(lambda self: "loaded", runner) == "loaded"
        assert not hasattr(first, "judge_decoding")
        assert last.judge_decoding.rules.head is not None
        assert sample(lambda self, grammar: "sampled", first, None) == "sampled"
        with pytest.raises(JudgeDecodingError, match="nowhere"):
            load(lambda self: "loaded", rank(Path("nowhere"), rejection_sampler=object()))


def test_a_round_is_there_only_while_it_is_verified() -> None:
    this = RowsVerification(["a"], [None], [True], [1], None)
    assert current_round() is None
    with during(this):
        assert current_round() is this
    assert current_round() is None


def rows_batch(counts: Sequence[int]) -> SimpleNamespace:
    ends = np.cumsum([0, *(count + 1 for count in counts)])
    return SimpleNamespace(
        req_ids=[str(i) for i in range(len(counts))], cu_num_logits_np=ends, logits_indices=torch.arange(int(ends[-1]))
    )


@pytest.mark.parametrize("parts", [[4], [1, 3], [2, 2]])
def test_model_runner_v2_gets_the_same_verdicts_as_v1(target: nn.Module, after: Path, parts: list[int]) -> None:
    torch.manual_seed(1)
    made = judge(target, after, threshold=0.5)
    counts = [3, 0, 1, 2]
    total = sum(counts) + len(counts)
    size = made.rules.head.config.target.hidden_size  # type: ignore[union-attr]
    hidden, read = torch.randn(total, size), torch.randint(1, VOCABULARY, (total,))
    settings = [params(), params(), params(extra_args={"judge_threshold": 0.0}), params(extra_args={"judge": "off"})]
    new = [SimpleNamespace(req_id=str(i), sampling_params=one) for i, one in enumerate(settings)]
    made.remember(new, {})
    this = made.rows_round(hidden, rows_batch(counts))
    assert this is not None
    scores = made.rules.head.probability(hidden)  # type: ignore[union-attr]
    # Rows 0-3, 4, 5-6 and 7-9; the last of each is behind the draft, and a draft token is read at the next one.
    wanted = {0: scores[1] > 0.5, 1: scores[2] > 0.5, 2: scores[3] > 0.5, 5: True, 7: False, 8: False}
    logits = torch.zeros(total, VOCABULARY)
    logits[:, 0] = 1
    start = request = 0
    for part in parts:
        rows = sum(counts[request : request + part]) + part
        rescued = this.lift(logits[start : start + rows], read[start : start + rows], part)
        this.count(rescued, torch.tensor(counts[request : request + part]) + 1)  # as if all were accepted
        start, request = start + rows, request + part
    for row in range(total):
        lifted = row in wanted and bool(wanted[row])
        assert (logits[row] == LIFTED).nonzero().flatten().tolist() == ([int(read[row + 1])] if lifted else [])
    assert torch.cat(this.rescued_counts).tolist() == [int((scores[1:4] > 0.5).sum()), 0, 1, 0]


def test_model_runner_v2_forgets_requests_that_have_ended(target: nn.Module, after: Path) -> None:
    made = judge(target, after)
    made.remember([SimpleNamespace(req_id="0", sampling_params=params())], {})
    states = torch.randn(3, made.rules.head.config.target.hidden_size)  # type: ignore[union-attr]
    assert made.rows_round(states, rows_batch([2])) is not None
    made.remember([SimpleNamespace(req_id="1", sampling_params=params())], {"1": 0})
    assert made.rows_round(states, rows_batch([2])) is None  # as in vLLM's warm-up, which nobody asked for


def test_what_is_forbidden_or_no_draft_is_not_lifted_in_v2() -> None:
    this = RowsVerification(["a"], [AcceptAll()], [True], [3], None)
    logits = torch.zeros(4, VOCABULARY)
    logits[:, 0] = 1
    logits[0, 2] = -torch.inf
    rescued = this.lift(logits, torch.tensor([1, 2, -1, 3]), 1)
    assert rescued.tolist() == [False, False, True]
    assert logits[2, 3] == LIFTED


def test_drafters_get_their_own_auxiliary_states() -> None:
    states = [torch.tensor([float(i)]) for i in range(3)]
    shared = AuxStates(layers=(2, 5, 8), drafter=(2, 8), judge_layer=5)
    assert states[shared.of_judge] == 1
    assert [float(one) for one in shared.of_drafter(states) or ()] == [0, 2]
    assert AuxStates((8,), (), 8).of_drafter(states[:1]) is None
    both = AuxStates((2, 8), (2, 8), 8)
    assert both.of_judge == 1
    assert len(both.of_drafter(states[:2]) or ()) == 2


@pytest.mark.parametrize(("layers", "drafter"), [((2, 5, 8), (2, 8)), ((8,), ())])
def test_a_drafter_never_sees_the_judges_states(layers: tuple[int, ...], drafter: tuple[int, ...]) -> None:
    states = [torch.tensor([float(layer)]) for layer in layers]
    runner = SimpleNamespace(use_aux_hidden_state_outputs=True)
    seen: list[Any] = []

    def propose(self: Any, scheduler_output: object, aux_hidden_states: Any, slots: object) -> str:
        seen.append(
            (self.use_aux_hidden_state_outputs, aux_hidden_states and [one.item() for one in aux_hidden_states])
        )
        return "draft"

    assert hooks.around_propose(propose, runner, None, states, None) == "draft"  # without a judge
    own = next(layer for layer in layers if layer not in drafter)
    runner.judge_decoding = SimpleNamespace(aux=AuxStates(layers, drafter, own))
    assert hooks.around_propose(propose, runner, None, states, slots=None) == "draft"
    assert seen == [(True, [*layers]), (bool(drafter), [*drafter] or None)]
    assert runner.use_aux_hidden_state_outputs  # the target still hands them over


def config(head: JudgeHead, **given: Any) -> SimpleNamespace:
    """A server's configuration with which the judge works, but for what is ``given``."""
    target = head.config.target
    parts = {
        "speculative_config": {"method": "draft_model", "rejection_sample_method": "standard",
                               "draft_sample_method": "greedy", "enable_adaptive_verification": False},
        "parallel_config": {"distributed_executor_backend": "mp", "pipeline_parallel_size": 1,
                            "enable_batch_sharded_sampling": False},
        "model_config": {"is_diffusion": False, "model": "served", "architectures": [target.architecture],
                         "hf_text_config": SimpleNamespace(hidden_size=target.hidden_size,
                                                           num_hidden_layers=target.num_hidden_layers)},
    }  # fmt: skip
    for name, value in given.items():
        for part in parts.values():
            if name in part:
                part[name] = value
    made = {name: SimpleNamespace(**part) for name, part in parts.items()}
    return SimpleNamespace(**made, use_v2_model_runner=given.get("v2", False), lora_config=given.get("lora"))


def test_a_server_that_can_judge(head: JudgeHead, after: Path) -> None:
    check_server(config(head), ServerRules.of(ServerSettings.read({"head": str(after)})))
    check_server(config(head, v2=True), ServerRules.of(ServerSettings.read({"head": str(after)})))


@pytest.mark.parametrize(
    ("given", "phrase"),
    [
        ({"method": "extract_hidden_states"}, "drafts none"),
        ({"is_diffusion": True}, "diffusion"),
        ({"lora": "some"}, "LoRA adapters"),
        ({"rejection_sample_method": "block"}, "is block"),
        ({"distributed_executor_backend": "external_launcher", "pipeline_parallel_size": 2}, "tensor parallelism"),
        ({"architectures": ["GPT2LMHeadModel"]}, "GPT2LMHeadModel"),
        ({"v2": True, "enable_adaptive_verification": True}, "adaptive verification"),
        ({"v2": True, "enable_batch_sharded_sampling": True}, "batch-sharded sampling"),
    ],
)
def test_a_server_that_cannot(head: JudgeHead, after: Path, given: dict[str, Any], phrase: str) -> None:
    with pytest.raises(JudgeDecodingError, match=phrase):
        check_server(config(head, **given), ServerRules.of(ServerSettings.read({"head": str(after)})))


def test_model_runner_v2_has_only_the_last_states(head: JudgeHead, folders: dict[str, Path]) -> None:
    before = ServerRules.of(ServerSettings.read({"head": str(folders["judge"])}))
    assert before.rule.source == HiddenSource(-1, "before")
    check_server(config(head), before)
    with pytest.raises(JudgeDecodingError, match="VLLM_USE_V2_MODEL_RUNNER=0"):
        check_server(config(head, v2=True), before)


def test_rules_on_draft_probabilities_need_sampled_drafts(head: JudgeHead) -> None:
    rules = ServerRules.of(ServerSettings.read({"rule": "kl_judge"}))
    assert rules.rule == rules.rule_for(None, logprobs=False)
    with pytest.raises(JudgeDecodingError, match='"draft_sample_method": "probabilistic"'):
        check_server(config(head), rules)
    check_server(config(head, draft_sample_method="probabilistic"), rules)
    assert parse_rule("kl_judge").needs_draft_probs


def test_stored_prompts_are_scored_where_each_is_read(target: nn.Module, after: Path) -> None:
    made = judge(target, after)
    head = made.rules.head
    assert head is not None
    states = torch.randn(3, head.config.target.hidden_size)
    found = scored(head, ["a client's", f"{PREFIX}0", f"{PREFIX}1"], states)
    assert found is not None
    assert found[0] == [f"{PREFIX}0", f"{PREFIX}1"]
    assert torch.equal(found[1], head.log_odds(states[1:]))
    assert scored(head, ["a client's"], states[:1]) is None
    assert scored(None, [f"{PREFIX}0"], states[:1]) is None
    # A head on a lower layer: the last of the tokens that each request had scheduled.
    made.aux = AuxStates(layers=(2, 5), drafter=(2,), judge_layer=5)
    made.runner.input_batch = SimpleNamespace(req_ids=[f"{PREFIX}0", f"{PREFIX}1"])
    state = SimpleNamespace(
        sample_hidden_states=None, aux_hidden_states=[torch.zeros_like(states), states],
        scheduler_output=SimpleNamespace(num_scheduled_tokens={f"{PREFIX}0": 2, f"{PREFIX}1": 1}),
    )  # fmt: skip
    below = made.scored(state)
    assert below is not None
    assert torch.equal(below[1], head.log_odds(states[1:]))


def test_the_metrics_of_a_request_get_its_rescued_tokens() -> None:
    marked, plain, without = (SimpleNamespace() for _ in range(3))
    params = {"judge": {"lossy": True, "rescued_tokens": 7}}
    outputs = [
        SimpleNamespace(spec_decode_metrics=marked, kv_transfer_params=params),
        SimpleNamespace(spec_decode_metrics=plain, kv_transfer_params=None),
        SimpleNamespace(spec_decode_metrics=None, kv_transfer_params=params),
    ]
    assert hooks.before_process_outputs(lambda self, given, *, more: (given, more), None, outputs, more=1) == (
        outputs,
        1,
    )
    assert hooks.after_to_dict(lambda self: {"num_draft_tokens": 9}, marked) == {
        "num_draft_tokens": 9, "num_rescued_draft_tokens": 7, "lossy": True
    }  # fmt: skip
    assert hooks.after_to_dict(lambda self: {"num_draft_tokens": 9}, plain) == {"num_draft_tokens": 9}
    assert hooks.after_to_dict(lambda self: {}, without) == {}


def test_an_engine_that_is_being_made_is_taken_once() -> None:
    assert take_started() is None
    start(engine := object())
    assert take_started() is engine
    assert take_started() is None
    assert hooks.before_freeze(lambda: "frozen") == "frozen"  # of an engine without a judge


def test_the_proposal_names_all_that_is_wrapped() -> None:
    """Whoever reads it at vLLM must see the whole of it."""
    page = (Path(__file__).parents[1] / "docs" / "upstream.md").read_text(encoding="utf-8")
    for symbol in (*hooks.GATES, *hooks.HOOKS, *hooks.HOOKS_V1, *hooks.HOOKS_V2):
        owner, _, name = symbol.partition(":")[2].rpartition(".")
        assert f"`{name}" in page or f".{name}`" in page, symbol
        assert owner in page, symbol
