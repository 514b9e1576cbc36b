"""What wraps a model: the compiler, adapters, several devices."""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.nn.parallel import DataParallel, DistributedDataParallel

from judge_decoding.errors import JudgeDecodingError

# Kinds of peft that change what the model is given, or choose adapters, in the wrapper's own forward.
_OUTSIDE = ("POLY", "XLORA")


def unwrap(model: nn.Module) -> nn.Module:
    """The transformers model inside ``torch.compile``, peft and the data-parallel wrappers.

    Adapters of peft stay in effect: they live inside the layers of the model that is returned.

    Raises:
        JudgeDecodingError: the adapter is a learned prompt or another kind that lives in the wrapper itself.
    """
    inner: Any = model
    while True:
        # Attributes of a module are looked up in the module it wraps, too: `__dict__` and the type tell whose they are.
        if "_orig_mod" in inner.__dict__.get("_modules", {}):
            inner = inner._orig_mod
        elif isinstance(inner, DataParallel | DistributedDataParallel):
            inner = inner.module
        elif _is_peft(inner):
            _check_lives_inside(inner)
            inner = inner.base_model.model
        else:
            return inner  # type: ignore[no-any-return]


def _is_peft(model: nn.Module) -> bool:
    """Whether this is peft's wrapper. By name, as peft need not be installed."""
    return any(kind.__name__ in ("PeftModel", "PeftMixedModel") for kind in type(model).__mro__)


def _check_lives_inside(wrapper: nn.Module) -> None:
    """Check that peft's adapters are in the layers of the model, not in what its wrapper does before a forward pass."""
    configs: Any = wrapper.peft_config
    for config in configs.values():
        kind = str(getattr(config.peft_type, "value", config.peft_type))
        activated = getattr(config, "alora_invocation_tokens", None) is not None
        if config.is_prompt_learning or activated or kind in _OUTSIDE:
            raise JudgeDecodingError(
                f"The adapter of this {type(wrapper).__name__} ({'activated LoRA' if activated else kind}) works "
                "outside the layers of the model that decoding runs; use an adapter inside them, such as LoRA."
            )
