"""A model's weights as plain tensors, however they are stored: quantised, packed, with adapters."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

FLOATS = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


def tensors(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Yield all tensors of the model's state by name: parameters first, then buffers and packed weights."""
    for name, parameter in model.named_parameters():
        yield from plain_tensors(name, parameter)
    tied = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    for name, value in model.state_dict().items():
        if name not in tied:
            yield from plain_tensors(name, value)


def plain_tensors(name: str, value: object) -> Iterator[tuple[str, Tensor]]:
    """Yield the plain tensors that a weight consists of, by name; a quantised weight has several."""
    if isinstance(value, tuple | list):  # the packed weights of torch's dynamic quantisation: weight and bias
        for number, part in enumerate(value):
            yield from plain_tensors(f"{name}.{number}", part)
    elif isinstance(value, Tensor):
        if value.is_quantized:
            yield name, value.detach().int_repr()
            scales = value.q_per_channel_scales() if "channel" in str(value.qscheme()) else value.q_scale()
            yield f"{name}.scale", torch.as_tensor(scales)
        elif _wraps(value):
            inner, _ = value.__tensor_flatten__()  # type: ignore[attr-defined]
            for part in inner:
                yield from plain_tensors(f"{name}.{part}", getattr(value, part))
        else:
            yield name, value.detach()


def _wraps(tensor: object) -> bool:
    """Whether a tensor stores its values in other tensors, as those of torchao do."""
    return is_traceable_wrapper_subclass(tensor) and not isinstance(tensor, DTensor)


def sample(tensor: Tensor, count: int) -> Tensor:
    """Return at most ``count`` evenly spread values: float32 on the CPU [n]; empty for a tensor without data."""
    if tensor.is_meta or not tensor.numel():
        return torch.empty(0)
    flat = tensor.flatten()
    positions = torch.linspace(0, len(flat) - 1, min(count, len(flat)), dtype=torch.float64).long()
    return flat[positions.to(flat.device)].float().cpu()


def quantization(model: nn.Module) -> str | None:
    """Describe the quantisation of the model's weights in a word or two; None if they are not quantised."""
    config = getattr(getattr(model, "config", None), "quantization_config", None)
    if config is not None:
        method = config.get("quant_method") if isinstance(config, dict) else getattr(config, "quant_method", None)
        return str(getattr(method, "value", method) or type(config).__name__)
    for module in model.modules():
        weight = getattr(module, "weight", None)
        if isinstance(weight, Tensor):
            if _wraps(weight):
                return type(weight).__name__
            if weight.dtype not in FLOATS:
                return str(weight.dtype).removeprefix("torch.")
        elif callable(weight) and isinstance(getattr(module, "out_features", None), int):
            return "int8, dynamic"
    return None


def adapters(model: nn.Module) -> str:
    """Describe the active adapters (LoRA and similar) and their scales; empty without adapters."""
    found = []
    for name, module in model.named_modules():
        if hasattr(module, "active_adapters") and hasattr(module, "disable_adapters"):
            state = [getattr(module, part, None) for part in ("active_adapters", "disable_adapters", "scaling")]
            found.append(f"{name} {state} {getattr(module, 'merged_adapters', None)}")
    return "\n".join(found)


def plain_weight(module: object) -> Tensor | None:
    """Return the plain weight matrix of a layer; None if it is quantised, changed by an adapter, or not in memory."""
    weight = getattr(module, "weight", None)
    if not isinstance(weight, Tensor) or hasattr(module, "base_layer") or weight.ndim != 2 or weight.is_meta:
        return None
    if weight.dtype not in FLOATS or _wraps(weight):
        return None
    return weight.detach()
