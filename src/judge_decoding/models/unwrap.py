"""What wraps a model: the compiler, adapters, several devices."""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.nn.parallel import DataParallel, DistributedDataParallel

from judge_decoding.errors import JudgeDecodingError


def unwrap(model: nn.Module) -> nn.Module:
    """The transformers model inside ``torch.compile``, peft and the data-parallel wrappers.

    Adapters of peft stay in effect: they live inside the layers of the model that is returned.

    Raises:
        JudgeDecodingError: the adapter is a learned prompt, which lives in the wrapper itself.
    """
    inner: Any = model
    while True:
        # Attributes of a module are looked up in the module it wraps, too: `__dict__` and the type tell whose they are.
        if "_orig_mod" in inner.__dict__.get("_modules", {}):
            inner = inner._orig_mod
        elif isinstance(inner, DataParallel | DistributedDataParallel):
            inner = inner.module
        elif _is_peft(inner):
            if getattr(inner, "_is_prompt_learning", False):
                raise JudgeDecodingError(
                    f"{type(inner).__name__} has a learned prompt ({inner.active_peft_config.peft_type.value}), which "
                    "lives outside the model that decoding runs; use an adapter inside the layers, such as LoRA."
                )
            inner = inner.get_base_model()
        else:
            return inner  # type: ignore[no-any-return]


def _is_peft(model: nn.Module) -> bool:
    """Whether this is peft's wrapper. By name, as peft need not be installed."""
    return any(kind.__name__ in ("PeftModel", "PeftMixedModel") for kind in type(model).__mro__)
