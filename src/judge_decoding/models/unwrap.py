"""Unwrap models from the compiler, adapters and data parallelism."""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.nn.parallel import DataParallel, DistributedDataParallel

from judge_decoding.errors import JudgeDecodingError

# Adapter types of peft that change the model's input, or select adapters, in the wrapper's own forward.
_OUTSIDE = ("POLY", "XLORA")


def unwrap(model: nn.Module) -> nn.Module:
    """Return the transformers model inside ``torch.compile``, peft and data-parallel wrappers.

    Adapters of peft stay in effect: they are part of the layers of the returned model.
    """
    inner: Any = model
    while True:
        # Wrappers forward attribute lookups to the wrapped module: `__dict__` and the type show the owner.
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
    """Whether this is a peft wrapper, by class name, as peft need not be installed."""
    return any(kind.__name__ in ("PeftModel", "PeftMixedModel") for kind in type(model).__mro__)


def _check_lives_inside(wrapper: nn.Module) -> None:
    """Check that the adapters are in the layers of the model, not in the wrapper's own forward."""
    configs: Any = wrapper.peft_config
    for config in configs.values():
        kind = str(getattr(config.peft_type, "value", config.peft_type))
        activated = getattr(config, "alora_invocation_tokens", None) is not None
        if config.is_prompt_learning or activated or kind in _OUTSIDE:
            raise JudgeDecodingError(
                f"The adapter of this {type(wrapper).__name__} ({'activated LoRA' if activated else kind}) works "
                "outside the layers of the model that decoding runs; use an adapter inside them, such as LoRA."
            )
