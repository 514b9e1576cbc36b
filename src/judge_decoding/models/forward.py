"""Calls of a causal LM's forward: the only module that knows its argument names."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from threading import RLock
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from judge_decoding.errors import JudgeDecodingError

CACHE_NAMES = ("cache", "past_key_values", "cache_params")
"""Argument names of the KV cache: from transformers 5.24 on, before, and in the Mamba family before."""

_LOCKS: WeakKeyDictionary[nn.Module, RLock] = WeakKeyDictionary()
_NEW_LOCK = RLock()
_ALONE = RLock()
"""Guards process-wide state: random numbers and the stance of torch.compile, which are restored in order."""


def lock_of(model: nn.Module) -> RLock:
    """Return the lock to hold while running or temporarily changing ``model``, as threads may share a model."""
    if (lock := _LOCKS.get(model)) is None:
        with _NEW_LOCK:
            lock = _LOCKS.setdefault(model, RLock())
    return lock


class Forward:
    """Calls the forward of ``model`` and returns its logits, whatever output options its configuration has.

    Arguments are looked up on the model's class, as wrappers of the instance (accelerate's hooks) hide them. Positions
    are always passed, as in ``generate``; some models count wrongly without them. One thread at a time runs a model.

    Attributes:
        cache_name: the argument name of the KV cache; None if the model has no KV cache.
        takes_positions: whether the model accepts the positions of its tokens.
        keeps_few_logits: whether the model can compute only the requested logits.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        self.model = model
        self._lock = lock_of(model)
        parameters = inspect.signature(type(model).forward).parameters
        takes_any = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())
        known = set(parameters)
        if takes_any and known.isdisjoint(CACHE_NAMES):  # wrapped without its signature: use the names of generate
            prepare = getattr(model, "prepare_inputs_for_generation", None)
            known |= {"position_ids"} | set(inspect.signature(prepare).parameters if prepare else ())
        self.cache_name = next((name for name in CACHE_NAMES if name in known), None)
        self.takes_positions = "position_ids" in known
        self._takes_mask = "attention_mask" in known
        # As in `generate`; a class without its mixin has only the parameter.
        supports: Any = getattr(model, "_supports_logits_to_keep", None)
        self.keeps_few_logits = bool(supports()) if callable(supports) else "logits_to_keep" in parameters
        defaults = {"return_dict": True, "output_attentions": False, "output_hidden_states": False}
        self._default_arguments: dict[str, Any] = {k: v for k, v in defaults.items() if takes_any or k in parameters}
        self._takes_use_cache = takes_any or "use_cache" in parameters
        # Inner modules read the configuration, whatever the arguments of the outer call; and many models cannot handle
        # tuples from their own decoder.
        configs = {id(config): config for config in (model.config, model.config.get_text_config())}
        self._with_tuples = [config for config in configs.values() if not getattr(config, "return_dict", True)]

    def __call__(
        self,
        ids: Tensor,
        cache: object | None = None,
        logits_to_keep: int | Tensor = 0,
        mask: Tensor | None = None,
        positions: Tensor | None = None,
    ) -> Tensor:
        """Read ``ids`` [B, T] and return logits [B, K, V].

        Args:
            ids: the tokens to read.
            cache: the KV cache, to which the new tokens are added. None reads without a cache.
            logits_to_keep: K, to return the logits of the last K tokens; 0 for all T, or their indices [K].
            mask: 1 for tokens and 0 for padding [B, P + T], including those in the cache; None for no padding. Or an
                attention mask as the model's layers take it.
            positions: the position of each token [B, T].
        """
        arguments = dict(self._default_arguments, input_ids=ids)
        if self._takes_use_cache:
            arguments["use_cache"] = cache is not None
        if cache is not None:
            if self.cache_name is None:
                raise TypeError(f"{type(self.model).__name__}.forward takes no cache")
            arguments[self.cache_name] = cache
        if mask is not None and self._takes_mask:
            arguments["attention_mask"] = mask
        if positions is not None and self.takes_positions:
            arguments["position_ids"] = positions
        if self.keeps_few_logits:
            arguments["logits_to_keep"] = logits_to_keep
        with self._lock:
            for config in self._with_tuples:
                config.return_dict = True
            try:
                output = self.model(**arguments)
            finally:
                for config in self._with_tuples:
                    config.return_dict = False
        logits: Tensor = output[0] if isinstance(output, tuple) else output.logits
        if isinstance(logits_to_keep, Tensor):
            return logits if self.keeps_few_logits else logits[:, logits_to_keep]
        return logits[:, -logits_to_keep:] if logits_to_keep else logits


def input_device(model: PreTrainedModel) -> torch.device:
    """Return the device for token ids: the model's, or its first compute device if the weights are elsewhere."""
    device = model.device
    if device.type != "meta":
        return device
    return torch.device(getattr(getattr(model, "_hf_hook", None), "execution_device", None) or "cpu")


def input_rows(model: PreTrainedModel) -> int:
    """Return the number of token ids that the model accepts."""
    table: Any = model.get_input_embeddings()
    size = getattr(table, "num_embeddings", None)
    return size if isinstance(size, int) else int(table.weight.shape[0])


def plain_forward(model: PreTrainedModel, ids: Tensor, logits_to_keep: int) -> Tensor:
    """Read ``ids`` [B, T] without a cache; return the logits [B, K, V] of each row's last K >= 1 tokens.

    The logits are those of the model's forward, including any processing after the output embeddings. A model without
    ``logits_to_keep`` computes the logits of all tokens.
    """
    return Forward(model)(ids, logits_to_keep=logits_to_keep, positions=row_positions(0, ids.shape[1], ids.device))


def check_finite(are_finite: bool, role: str = "target") -> None:
    """Raise an error about the ``role`` model unless its logits ``are_finite``; see `finite`.

    Raises:
        JudgeDecodingError: they are not.
    """
    if not are_finite:
        raise JudgeDecodingError(
            f"The {role} model's logits are not finite (NaN or infinite), as when it overflows in float16; load it "
            'with dtype="bfloat16" or "float32", and check its weights.'
        )


def finite(logits: Tensor) -> Tensor:
    """Whether each token's largest logit is finite, as a bool scalar on the device; True for empty logits [..., V]."""
    return logits.amax(-1).isfinite().all() if logits.numel() else torch.ones((), dtype=torch.bool)


def row_positions(start: int, count: int, device: torch.device) -> Tensor:
    """Return the positions [1, count] of tokens from ``start`` on."""
    return torch.arange(start, start + count, device=device)[None]


@contextmanager
def undisturbed(model: nn.Module) -> Iterator[None]:
    """Within the block, forward passes compute no gradients, use no dropout, run uncompiled and leave the RNG alone.

    No other thread can run the model during this time.
    """
    devices = {parameter.device for parameter in model.parameters() if parameter.device.type == "cuda"}
    with ExitStack() as stack:
        stack.enter_context(_ALONE)  # before the model's lock, so that no holder of that lock waits for this one
        stack.enter_context(lock_of(model))
        training = [module for module in model.modules() if module.training]
        stack.enter_context(torch.inference_mode())
        stack.enter_context(torch.random.fork_rng(devices=sorted(devices, key=str)))
        # Code compiled without hooks would skip them.
        stack.enter_context(torch.compiler.set_stance("force_eager"))
        try:
            for module in training:
                module.training = False
            yield
        finally:
            for module in training:
                module.training = True
