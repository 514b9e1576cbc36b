"""What wraps a model is taken off, and what cannot be taken off is refused."""

from typing import Any

import pytest
import torch
from torch import nn

from judge_decoding import JudgeDecodingError
from judge_decoding.models.unwrap import unwrap
from tiny import llama


def test_compiled_and_parallel_models() -> None:
    model = llama()
    compiled: Any = torch.compile(model, backend="eager")
    assert unwrap(model) is model
    assert unwrap(compiled) is model
    assert unwrap(nn.DataParallel(compiled)) is model


@pytest.mark.filterwarnings("ignore")  # of peft's imports
@pytest.mark.parametrize("mixed", [False, True])
def test_an_adapter_inside_the_layers_stays_in_effect(mixed: bool) -> None:
    peft = pytest.importorskip("peft")
    torch.manual_seed(3)
    model, ids = llama(), torch.tensor([[5, 6, 7, 8]])
    plain = model(ids).logits
    config = peft.LoraConfig(r=4, target_modules=["q_proj"], task_type="CAUSAL_LM", init_lora_weights=False)
    wrapped = peft.get_peft_model(model, config, mixed=mixed).eval()
    assert unwrap(wrapped) is model
    compiled: Any = torch.compile(wrapped, backend="eager")
    assert unwrap(compiled) is model
    assert torch.equal(unwrap(wrapped)(ids).logits, wrapped(input_ids=ids).logits)
    assert not torch.allclose(plain, wrapped(input_ids=ids).logits)


@pytest.mark.filterwarnings("ignore")  # of peft's imports
@pytest.mark.parametrize("kind", ["prompt", "activated"])
def test_an_adapter_outside_the_layers_is_refused(kind: str) -> None:
    peft = pytest.importorskip("peft")
    config: Any = {
        "prompt": lambda: peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4),
        "activated": lambda: peft.LoraConfig(
            target_modules=["q_proj"], task_type="CAUSAL_LM", alora_invocation_tokens=[5]
        ),
    }[kind]()
    with pytest.raises(JudgeDecodingError, match="outside the layers"):
        unwrap(peft.get_peft_model(llama(), config))
