"""Find the layers and the final norm of a causal language model by tracing a short forward pass."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import count
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from judge_decoding.errors import JudgeDecodingError
from judge_decoding.models.forward import input_device, input_rows, plain_forward, undisturbed
from judge_decoding.models.unwrap import unwrap

KeyT = TypeVar("KeyT")

# Two rows that differ in their last token: in a causal model the other tokens have the same logits.
_IDS = ((0, 1, 2), (0, 1, 3))
_SHAPE = (2, 3)


@dataclass(frozen=True, slots=True)
class Anatomy:
    """The names of a model's parts, as used by `torch.nn.Module.get_submodule`, and its number of logits per token.

    They are the list of layers, its last layer, and the final norm between that and the output embeddings.
    """

    layers: str | None
    last: str | None
    norm: str | None
    logits: int


_known: WeakKeyDictionary[nn.Module, Anatomy] = WeakKeyDictionary()


def anatomy(model: nn.Module) -> Anatomy:
    """Return the parts of ``model``. The first call for a model costs a forward pass over six tokens.

    Names differ between families, and so do the other parts (embedding norms, vision towers, heads of several layers).
    Two facts hold everywhere: the last layer is the last of a list of modules that runs before the output embeddings,
    and the final norm runs between the two and removes the length of its input vectors.
    """
    model = unwrap(model)
    found = _known.get(model)
    if found is None or not all(_has(model, name) for name in (found.layers, found.last, found.norm)):
        assert isinstance(model, PreTrainedModel)
        found = _known[model] = _watch(model)
    return found


def _has(model: nn.Module, name: str | None) -> bool:
    try:
        return name is None or model.get_submodule(name) is not None
    except AttributeError:
        return False


@dataclass(slots=True)
class _Call:
    """One call of a module: its place in the order of all begins and ends, its inputs and its output."""

    name: str
    begin: int
    end: int = -1
    leaf: bool = True
    inputs: tuple[tuple[Any, ...], dict[str, Any]] | None = None
    output: Tensor | None = None
    shape: tuple[int, ...] = ()


def first_tensor(value: object) -> Tensor | None:
    """Return the first tensor in a module's inputs or outputs."""
    if isinstance(value, Tensor):
        return value
    parts = list(value.values()) if isinstance(value, Mapping) else value
    if not isinstance(parts, list | tuple):
        return None
    return next((part for part in map(first_tensor, parts) if part is not None), None)


@contextmanager
def hooked(
    modules: Iterable[tuple[KeyT, nn.Module]],
    before: Callable[[KeyT, Any, Any], Any],
    after: Callable[[KeyT, Any], None],
) -> Iterator[None]:
    """Within the block, call ``before`` with key and inputs of each call of a module, ``after`` with its output."""
    with ExitStack() as stack:
        for key, module in modules:
            for hook in (
                module.register_forward_pre_hook(
                    lambda _module, args, kwargs, key=key: before(key, args, kwargs), with_kwargs=True
                ),
                module.register_forward_hook(lambda _module, _args, output, key=key: after(key, output)),
            ):
                stack.callback(hook.remove)
        yield


def _watch(model: PreTrainedModel) -> Anatomy:
    """Read a few tokens and find the parts among the module calls."""
    listed = {name for name, module in model.named_modules() if isinstance(module, nn.ModuleList)}
    calls: list[_Call] = []
    open_calls: list[_Call] = []
    clock = count()

    def begin(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if open_calls:
            open_calls[-1].leaf = False
        call = _Call(name, next(clock), inputs=(args, kwargs))
        calls.append(call)
        open_calls.append(call)

    def end(name: str, output: object) -> None:
        call = open_calls.pop()
        found = first_tensor(output)
        call.end, call.output, call.shape = next(clock), found, tuple(found.shape) if found is not None else ()
        # Only calls after the last layer are examined closely: keep no other states.
        done = [] if call.leaf else calls if name.rpartition(".")[0] in listed else [call]
        for each in done:
            each.inputs = each.output = None

    with undisturbed(model):
        try:
            with hooked(model.named_modules(), begin, end):
                ids = torch.tensor(_IDS, device=input_device(model)) % input_rows(model)
                logits = plain_forward(model, ids, _SHAPE[1])
        except Exception as error:
            raise JudgeDecodingError(
                f"{type(model).__name__} cannot read token ids by themselves ({type(error).__name__}: "
                f"{str(error).splitlines()[0] if str(error) else 'no message'}), so it cannot have a judge; use a "
                "decoder-only model that generates from token ids."
            ) from error
        _check_causal(model, logits)
        return _found(model, calls, listed, logits.shape[-1])


def _found(model: PreTrainedModel, calls: list[_Call], listed: set[str], logits: int) -> Anatomy:
    head = model.get_output_embeddings()
    heads = [call.begin for call in calls if head is not None and model.get_submodule(call.name) is head]
    before = [call for call in calls if call.end < (heads[-1] if heads else calls[0].end)]
    of_states = [call for call in before if len(call.shape) == 3 and call.shape[:2] == _SHAPE]
    in_list = [call for call in of_states if not call.leaf and call.name.rpartition(".")[0] in listed]
    # Experts and similar modules are lists inside layers.
    names = {call.name for call in in_list}
    layers = [call for call in in_list if not any(upper in names for upper in _above(call.name))]
    last = max(layers, key=lambda call: call.end, default=None)
    # Some encoders have modules of another width between the last layer and the output embeddings.
    behind = [call for call in of_states if last is None or (call.begin > last.end and call.shape == last.shape)]
    norms = [call for call in behind if call.leaf]
    norm = next((call for call in reversed(norms) if _is_norm(model.get_submodule(call.name), call)), None)
    if last is None and norm is None:
        raise JudgeDecodingError(
            f"{type(model).__name__} has neither a list of layers nor a final norm from which hidden states could be "
            "read; use a decoder-only model with them."
        )
    return Anatomy(
        layers=last.name.rpartition(".")[0] if last else None,
        last=last.name if last else None,
        norm=norm.name if norm else None,
        logits=logits,
    )


def _check_causal(model: PreTrainedModel, logits: Tensor) -> None:
    one, other = logits[:, :-1].float()
    if (one - other).norm() > 0.05 * one.norm():
        raise JudgeDecodingError(
            f"{type(model).__name__} is not causal: its output at a token depends on later tokens; use a "
            "decoder-only model, or one whose configuration says is_decoder."
        )


def _above(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[:count]) for count in range(1, len(parts))]


def _is_norm(module: nn.Module, call: _Call) -> bool:
    """Whether the module's output hardly grows with its input."""
    if call.inputs is None or call.output is None:
        return False
    args, kwargs = call.inputs
    inputs = first_tensor((args, kwargs))
    if inputs is None or inputs.shape != call.output.shape:
        return False

    def longer(value: object) -> object:
        return value * 8 if value is inputs else value

    try:
        other = first_tensor(module(*map(longer, args), **{name: longer(value) for name, value in kwargs.items()}))
    except (AttributeError, IndexError, RuntimeError, TypeError, ValueError):  # not a norm
        return False
    # The output of a linear map, a dropout or an identity would be eight times as long.
    return other is not None and bool(other.float().norm() < 3 * call.output.float().norm())
