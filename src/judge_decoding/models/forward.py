"""One plain forward pass of any causal language model, with its own logits and without a trace left behind."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel


def input_device(model: PreTrainedModel) -> torch.device:
    """Where token ids go: the model's device, or the first one that it computes on if its weights are elsewhere."""
    device = model.device
    if device.type != "meta":
        return device
    return torch.device(getattr(getattr(model, "_hf_hook", None), "execution_device", None) or "cpu")


def plain_forward(model: PreTrainedModel, ids: Tensor, keep: int) -> Tensor:
    """Read ``ids`` [B, T] without a cache; the model's own logits of each row's last ``keep`` >= 1 tokens [B, keep, V].

    The logits are those that the model's forward returns, with whatever it does behind its output embeddings. A model
    without ``logits_to_keep`` makes the logits of all tokens for them.
    """
    wanted: dict[str, Any] = {"use_cache": False, "logits_to_keep": keep}
    # Kept by every layer if the model's configuration says so, and not wanted here.
    wanted |= {name: False for name in ("output_hidden_states", "output_attentions") if getattr(model.config, name)}
    with _parts_by_name(model):
        output = model(input_ids=ids, **{name: value for name, value in wanted.items() if _takes(model, name)})
    logits: Tensor = output.logits if hasattr(output, "logits") else output[0]
    return logits[:, -keep:]


@contextmanager
def _parts_by_name(model: PreTrainedModel) -> Iterator[None]:
    """Put aside a configuration's wish for tuples: many a model cannot read those of its own decoder."""
    configs = [config for config in (model.config, model.config.get_text_config()) if not config.return_dict]
    for config in configs:
        config.return_dict = True
    try:
        yield
    finally:
        for config in configs:
            config.return_dict = False


def keeps_few_logits(model: PreTrainedModel) -> bool:
    """Whether a forward pass makes only the logits that are asked for."""
    return "logits_to_keep" in inspect.signature(model.forward).parameters


def _takes(model: PreTrainedModel, name: str) -> bool:
    """Whether ``model.forward`` has the argument ``name``."""
    parameters = inspect.signature(model.forward).parameters
    # Others than logits_to_keep are read by what stands behind the forward, too.
    passed_on = any(each.kind is inspect.Parameter.VAR_KEYWORD for each in parameters.values())
    return name in parameters or (passed_on and name != "logits_to_keep")


@contextmanager
def undisturbed(model: nn.Module) -> Iterator[None]:
    """Forward passes in here compute no gradients, use no dropout, run uncompiled and draw no random numbers."""
    training = [module for module in model.modules() if module.training]
    devices = {parameter.device for parameter in model.parameters() if parameter.device.type == "cuda"}
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode())
        stack.enter_context(torch.random.fork_rng(devices=sorted(devices, key=str)))
        # Hooks are passed over by code that was compiled without them.
        stack.enter_context(torch.compiler.set_stance("force_eager"))
        try:
            for module in training:
                module.training = False
            yield
        finally:
            for module in training:
                module.training = True
