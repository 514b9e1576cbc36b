"""What a model can do is found out by reading with it: exact, or refused before the first token."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import (
    BambaConfig,
    BambaForCausalLM,
    BartConfig,
    BartForConditionalGeneration,
    BertConfig,
    BertLMHeadModel,
    GPTNeoConfig,
    GPTNeoForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MambaConfig,
    MambaForCausalLM,
    PreTrainedModel,
    T5Config,
    T5ForConditionalGeneration,
)
from transformers.modeling_outputs import CausalLMOutputWithPast

from judge_decoding import JudgeDecoder, JudgeDecodingError, PromptLookup, custom_generate
from judge_decoding.models import abilities as module
from judge_decoding.models.abilities import abilities, can_batch
from judge_decoding.models.unwrap import unwrap
from tiny import Scripted, greedy, llama, mistral, perturbed, run, tokens, word_tokenizer

PROMPTS = ([(i * 7) % 35 + 4 for i in range(20)], [9, 10, 11], [5, 6, 5, 6, 5])


def spread(model: PreTrainedModel) -> PreTrainedModel:
    """The model with weights so large that its logits lie apart."""
    for parameter in model.parameters():
        if parameter.ndim > 1 and parameter.std() < 0.15:
            parameter.data.normal_(0, 0.3)
    return model.eval().requires_grad_(False)


def gpt_neo(window: int = 6) -> PreTrainedModel:
    torch.manual_seed(0)
    return spread(GPTNeoForCausalLM(GPTNeoConfig(
        vocab_size=40, hidden_size=32, num_layers=4, num_heads=4, intermediate_size=64, window_size=window,
        attention_types=[[["global", "local"], 2]], max_position_embeddings=256, bos_token_id=1, eos_token_id=2,
    )))  # fmt: skip


def bamba() -> PreTrainedModel:
    torch.manual_seed(0)
    return spread(BambaForCausalLM(BambaConfig(
        vocab_size=40, hidden_size=32, intermediate_size=48, num_hidden_layers=4, num_attention_heads=4,
        num_key_value_heads=2, attn_layer_indices=[1, 3], mamba_n_heads=8, mamba_d_head=8, mamba_d_state=4,
        mamba_n_groups=1, pad_token_id=0, bos_token_id=1, eos_token_id=2,
    )))  # fmt: skip


def mamba() -> PreTrainedModel:
    torch.manual_seed(0)
    return spread(MambaForCausalLM(MambaConfig(
        vocab_size=40, hidden_size=32, state_size=4, num_hidden_layers=2, pad_token_id=0, bos_token_id=1,
        eos_token_id=2,
    )))  # fmt: skip


def t5() -> PreTrainedModel:
    config: Any = T5Config
    return T5ForConditionalGeneration(config(
        vocab_size=40, d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4, decoder_start_token_id=0
    )).eval()  # fmt: skip


def bart() -> PreTrainedModel:
    return BartForConditionalGeneration(BartConfig(
        vocab_size=40, d_model=32, encoder_layers=2, decoder_layers=2, encoder_attention_heads=4,
        decoder_attention_heads=4, encoder_ffn_dim=64, decoder_ffn_dim=64,
    )).eval()  # fmt: skip


def bert(**settings: Any) -> PreTrainedModel:
    torch.manual_seed(0)
    return spread(BertLMHeadModel(BertConfig(
        vocab_size=40, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64, **settings
    )))  # fmt: skip


@pytest.mark.parametrize("make", [llama, mistral, gpt_neo, bamba, mamba, lambda: bert(is_decoder=True)])
def test_batches_are_what_generate_says(make: Any) -> None:
    model = make()
    wanted = [greedy(model, prompt, 16, stop=True) for prompt in PROMPTS]
    prompts = [torch.tensor(prompt) for prompt in PROMPTS]
    tokenizer = word_tokenizer()
    assert [list(one.token_ids) for one in JudgeDecoder(model, tokenizer).generate_batch(prompts, 16)] == wanted
    drafted = JudgeDecoder(model, tokenizer, PromptLookup(), num_draft_tokens=5)
    if abilities(model).cannot_rewind:
        with pytest.raises(JudgeDecodingError):
            drafted.generate_batch(prompts, 16)
    else:
        assert [list(one.token_ids) for one in drafted.generate_batch(prompts, 16)] == wanted


def test_windows_that_count_columns_keep_rows_apart() -> None:
    assert "6 columns" in abilities(gpt_neo(6)).cannot_batch
    # A window that the check's few tokens do not cross is known from the configuration.
    assert "100 columns" in abilities(gpt_neo(100)).cannot_batch
    assert not can_batch(mistral())
    assert can_batch(llama())


def test_what_cannot_be_taken_back_takes_no_draft() -> None:
    model = mamba()
    assert "recurrent" in abilities(model).cannot_rewind
    assert not abilities(model).cannot_read
    decoder = JudgeDecoder(llama(), word_tokenizer(), model)
    with pytest.raises(JudgeDecodingError, match="use another draft model"):
        decoder.generate(torch.tensor([5, 6]), 4)


@pytest.mark.parametrize("make", [t5, bart])
@pytest.mark.parametrize("role", ["target", "draft", "custom_generate"])
def test_encoder_decoders_are_refused(make: Any, role: str) -> None:
    model, tokenizer = make(), word_tokenizer()
    judged = custom_generate(llama())
    uses = {
        "target": lambda: JudgeDecoder(model, tokenizer),
        "draft": lambda: JudgeDecoder(llama(), tokenizer, model),
        "custom_generate": lambda: model.generate(torch.tensor([[5, 6]]), custom_generate=judged, max_new_tokens=4),
    }
    with pytest.raises(JudgeDecodingError, match="has an encoder"):
        uses[role]()


def test_encoders_are_refused() -> None:
    decoder = JudgeDecoder(bert(is_decoder=False), word_tokenizer())
    with pytest.raises(JudgeDecodingError, match="depend on the tokens after it"):
        decoder.generate(torch.tensor([5, 6]), 4)


@pytest.mark.parametrize("role", ["target", "draft"])
def test_models_without_a_head_are_refused(role: str) -> None:
    models = (llama().model, llama()) if role == "target" else (llama(), llama().model)
    with pytest.raises(JudgeDecodingError, match=f"load the {role} with AutoModelForCausalLM"):
        JudgeDecoder(models[0], word_tokenizer(), models[1])


def test_modules_of_other_libraries_are_refused() -> None:
    with pytest.raises(JudgeDecodingError, match="not a transformers model"):
        JudgeDecoder(llama(), word_tokenizer(), nn.Linear(2, 2))


class Broken(LlamaForCausalLM):
    """A model whose cache loses something: tokens after a rejected draft see one token too many."""

    memory = 0.0

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        output = super().forward(*args, **kwargs)
        if kwargs.get("use_cache"):
            output.logits = output.logits + self.memory * torch.arange(output.logits.shape[-1])
            self.memory += 0.1 * kwargs["input_ids"].shape[1]
        return output


def test_what_a_rejected_draft_leaves_behind_is_found() -> None:
    model = Broken(llama().config).eval().requires_grad_(False)
    assert abilities(model).cannot_read or abilities(model).cannot_rewind
    with pytest.raises(JudgeDecodingError):
        run(model, Scripted(lambda ids, count: [3] * count), [5, 6, 7])


def test_the_check_is_made_once_for_a_class_and_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_KNOWN", {})
    checks: list[str] = []
    real = module._Check.run

    def counted(self: Any) -> Any:
        checks.append("one")
        return real(self)

    monkeypatch.setattr(module._Check, "run", counted)
    for model in (llama(0), llama(1), llama(0), llama(0, layers=3)):
        abilities(model)
    assert len(checks) == 2


class WithoutKeeping(LlamaForCausalLM):
    """As older code of other people: all logits, and no argument that is not named."""

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Any = None,
        use_cache: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> Any:
        output = self.model(
            input_ids=input_ids, attention_mask=attention_mask, position_ids=position_ids,
            past_key_values=past_key_values, use_cache=use_cache,
        )  # fmt: skip
        older: Any = {"past_key_values": past_key_values}  # its name before transformers 5.24
        return CausalLMOutputWithPast(logits=self.lm_head(output[0]), **older)


class Tuples(LlamaForCausalLM):
    """Returns a tuple, whatever it is asked for."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        output = super().forward(*args, **kwargs)
        return (output.logits, output.past_key_values)


def made(kind: type[LlamaForCausalLM], **settings: Any) -> LlamaForCausalLM:
    base = llama(0)
    model = kind(LlamaConfig(**{**base.config.to_dict(), **settings})).eval().requires_grad_(False)
    model.load_state_dict(base.state_dict())
    return model


@pytest.mark.parametrize("model", [
    made(WithoutKeeping), made(Tuples),
    made(LlamaForCausalLM, return_dict=False), made(LlamaForCausalLM, use_cache=False),
    made(LlamaForCausalLM, torchscript=True), made(LlamaForCausalLM, output_hidden_states=True),
    made(LlamaForCausalLM, output_attentions=True, attn_implementation="eager"),
], ids=["all logits", "tuples", "return_dict", "use_cache", "torchscript", "hidden states", "attentions"])  # fmt: skip
@pytest.mark.filterwarnings("ignore:.past_key_values:FutureWarning")  # the code of other people is older
def test_code_and_configurations_of_other_people(model: LlamaForCausalLM) -> None:
    wanted, prompt = greedy(llama(0), [5, 6, 7, 8], 16, stop=True), torch.tensor([5, 6, 7, 8])
    tokenizer = word_tokenizer()
    before = model.config.to_dict()
    for target, draft in ((model, perturbed(llama(0))), (model, None), (llama(0), model)):
        assert list(JudgeDecoder(target, tokenizer, draft).generate(prompt, 16).token_ids) == wanted
    assert model.config.to_dict() == before


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing")  # peft's
def test_wrapped_models_are_the_models_inside() -> None:
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(3)
    lora = LoraConfig(r=4, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM", init_lora_weights=False)
    adapted: Any = get_peft_model(llama(0), lora).eval()
    ids = torch.tensor([[5, 6, 7, 8]])
    mask = torch.ones_like(ids)
    changed = adapted.generate(input_ids=ids, attention_mask=mask, do_sample=False, max_new_tokens=16)[0, 4:].tolist()
    plain = greedy(llama(0), [5, 6, 7, 8], 16, stop=True)
    assert changed != plain
    compiled: Any = torch.compile(llama(0), backend="eager")
    parallel: Any = nn.DataParallel(llama(0))
    tokenizer = word_tokenizer()
    for wrapped, wanted in ((adapted, changed), (compiled, plain), (parallel, plain)):
        assert list(JudgeDecoder(wrapped, tokenizer, perturbed(llama(0))).generate(ids, 16).token_ids) == wanted
        answer = JudgeDecoder(llama(0), tokenizer, wrapped, num_draft_tokens=4).generate(ids, 16)
        assert list(answer.token_ids) == plain
        if wanted == plain:
            assert answer.stats.accepted_per_round > 2  # the model drafts, not a function of ids
        judged = custom_generate(wrapped, num_draft_tokens=4)
        inner: Any = llama(0)
        assert (
            inner.generate(ids, attention_mask=mask, custom_generate=judged, max_new_tokens=16)[0, 4:].tolist() == plain
        )
    assert isinstance(unwrap(compiled), LlamaForCausalLM)


def test_always_positions() -> None:
    # Without positions Bamba counts its tokens wrongly from the second forward on.
    model = bamba()
    for prompt in PROMPTS:
        assert tokens(run(model, None, prompt, max_new_tokens=16)) == greedy(model, prompt, 16)
