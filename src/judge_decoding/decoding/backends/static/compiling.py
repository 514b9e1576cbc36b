"""Compiles a model once, ahead of time: the result is kept on disk and loads in milliseconds."""

from __future__ import annotations

import hashlib
import inspect
import json
import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import chain
from pathlib import Path
from threading import Lock
from typing import Any

import torch
import transformers
from torch import Tensor, nn
from torch.export import Dim
from transformers import PreTrainedModel

from judge_decoding.core.hidden import HiddenSource
from judge_decoding.decoding.backends.static import graphs, masks, quantized, slots
from judge_decoding.decoding.backends.static.cuda_graphs import CudaRecorder, GraphedCall
from judge_decoding.decoding.backends.static.graphs import DraftGraph, TargetGraph
from judge_decoding.decoding.backends.static.quantized import plain_weights, scales_of
from judge_decoding.decoding.backends.static.requirements import check_compiles
from judge_decoding.decoding.backends.static.slots import KeysValues, new_cache
from judge_decoding.decoding.backends.static.store import CompiledStore
from judge_decoding.errors import CannotCompileError, JudgeDecodingError, reason
from judge_decoding.io.files import cache_folder
from judge_decoding.models.draft_vocabulary import cut_head_of
from judge_decoding.models.forward import lock_of

logger = logging.getLogger(__name__)

_ONE_AT_A_TIME = Lock()
"""Compiling sets environment variables, and a waiting thread finds what another one has compiled."""

_GROUPED = "TRANSFORMERS_SDPA_FORCE_GQA"
"""The variable that makes transformers, while it is traced, not repeat shared keys."""

CompileProgress = Callable[[str], None]
"""Called with a short message before a step that takes a while."""


def default_folder() -> Path:
    """Return the folder of compiled models, in the user's cache directory. It may be removed at any time."""
    return cache_folder("compiled")


def has_few(model: PreTrainedModel) -> bool:
    """Whether this model gains from `FewTokens`: in float32, on a CPU where MKL is the alternative."""
    return model.device.type == "cpu" and model.dtype == torch.float32 and torch.backends.mkl.is_available()


def compile_target(
    model: PreTrainedModel,
    sources: tuple[HiddenSource, ...],
    progress: CompileProgress,
    folder: Path,
    *,
    few: bool = False,
) -> Compiled:
    """Compile a target's forward pass; see `TargetGraph`. Raises `CannotCompileError`."""
    check_compiles(model)
    tokens, columns, cache = _example(model)
    hidden = model.config.get_text_config().hidden_size
    weight, bias = torch.zeros(1, hidden, device=model.device), torch.zeros(1, device=model.device)
    keep = torch.arange(4, device=model.device)
    dim = Dim.DYNAMIC  # raises an error if a size would be specialised
    shapes = ({0: dim, 1: dim}, {0: dim}, {0: dim}, None, None, _any_size(cache))
    example = (tokens, columns, keep, weight, bias, cache)
    graph = TargetGraph(model, sources, few=few)
    return _compiled(graph, model, f"target {sources} {few}", example, shapes, progress, folder)


def compile_draft(
    model: PreTrainedModel, steps: int, vocab_size: int, progress: CompileProgress, folder: Path, *, few: bool = False
) -> Compiled:
    """Compile ``steps`` greedy steps of a draft; see `DraftGraph`. Raises `CannotCompileError`."""
    check_compiles(model)
    tokens, columns, cache = _example(model)
    shapes = ({0: Dim.DYNAMIC, 1: Dim.DYNAMIC}, {0: Dim.DYNAMIC}, _any_size(cache))
    graph = DraftGraph(model, steps, vocab_size, few=few)
    example = (tokens, columns, cache)
    return _compiled(graph, model, f"draft {steps} {vocab_size} {few}", example, shapes, progress, folder)


class Compiled:
    """A compiled graph that shares the weights of its model."""

    def __init__(self, path: Path, graph: nn.Module, device: torch.device) -> None:
        # Calls are serialised, hence `run_single_threaded`; see `__call__`.
        self._lock = Lock()
        index = device.index if device.type == "cuda" else -1
        self._package = torch._inductor.aoti_load_package(str(path), run_single_threaded=True, device_index=index)
        # The compiled code may use either name of two tied weights, so include duplicates.
        known: dict[str, Tensor] = dict(graph.named_parameters(remove_duplicate=False))
        known.update(graph.named_buffers(remove_duplicate=False))
        names = self._package.get_constant_fqns()
        missing = [name for name in names if name not in known]
        if missing:
            raise CannotCompileError(f"it computes with a constant that is not one of its weights ({missing[0]})")
        self._weights = {name: known[name] for name in names}  # kept alive: the compiled code has bare pointers
        self._package.load_constants(self._weights, check_full_update=True, user_managed=True)
        run = partial(_launch, self._package.loader.run)
        self._run = GraphedCall(run, CudaRecorder(device)) if device.type == "cuda" else run

    @classmethod
    def load(cls, path: Path, graph: nn.Module, device: torch.device) -> Compiled:
        """Load a compiled graph and bind it to the graph's weights.

        Raises:
            CannotCompileError: the file is damaged (and is removed), or the graph has constants besides its weights.
        """
        try:
            return cls(path, graph, device)
        except RuntimeError as error:
            path.unlink(missing_ok=True)
            raise CannotCompileError(
                f"{path} could not be loaded and was removed; it will be rebuilt next time"
            ) from error

    def __call__(self, *inputs: Tensor | KeysValues) -> list[Tensor]:
        """Run the graph; arguments and results are those of the graph's forward."""
        with self._lock:
            return self._run(*inputs)


def _launch(run: Callable[[list[Tensor]], list[Tensor]], *inputs: Tensor | KeysValues) -> list[Tensor]:
    """Call the loader directly: the package's own call parses the argument structure from JSON every time."""
    return run([t for one in inputs for t in ([one] if isinstance(one, Tensor) else chain.from_iterable(one))])


def _example(model: PreTrainedModel) -> tuple[Tensor, Tensor, KeysValues]:
    """Return inputs whose sizes all differ, so that none is unified, and none is 1, which would be specialised."""
    device = model.device
    tokens = torch.zeros(2, 6, dtype=torch.long, device=device)
    return tokens, torch.arange(48, device=device), new_cache(model, 2, 96)


def _any_size(cache: KeysValues) -> list[tuple[dict[int, Any], dict[int, Any]]]:
    return [({0: Dim.DYNAMIC, 2: Dim.DYNAMIC}, {0: Dim.DYNAMIC, 2: Dim.DYNAMIC}) for _ in cache]


def _compiled(
    graph: nn.Module,
    model: PreTrainedModel,
    what: str,
    example: tuple[Any, ...],
    shapes: tuple[Any, ...],
    progress: CompileProgress,
    folder: Path,
) -> Compiled:
    store, key = CompiledStore(folder), _key(model, what)
    with _ONE_AT_A_TIME, lock_of(model), plain_weights(model):
        path = store.find(key)
        if path is None:
            message = f"Compiling {type(model).__name__} ({what.split()[0]}), once; it is kept in {folder}"
            logger.info(message)
            progress(message)
            try:
                with _grouped_attention(model.device), store.keeping() as made:
                    _compile(graph, example, shapes, made)
                    path = store.keep(key, made)
            except JudgeDecodingError:
                raise
            except Exception as error:  # dynamo, export, inductor and compilers raise hundreds of types
                logger.debug("cannot compile", exc_info=True)
                raise CannotCompileError(f"{type(model).__name__} does not compile: {reason(error)}") from error
        return Compiled.load(path, graph, model.device)


def _compile(graph: nn.Module, example: tuple[Any, ...], shapes: tuple[Any, ...], path: Path) -> None:
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # torch's own, on its own code
        program = torch.export.export(graph, example, dynamic_shapes=shapes, strict=False)
        # The weights stay the model's own: they are neither written to disk nor duplicated in memory.
        options = {"aot_inductor.package_constants_in_so": False}
        torch._inductor.aoti_compile_and_package(program, package_path=str(path), inductor_configs=options)


@contextmanager
def _grouped_attention(device: torch.device) -> Iterator[None]:
    """On a CPU, attend to keys shared by several heads without repeating them.

    With a mask, transformers would repeat them for every head, at each forward pass and for the whole context. On
    a GPU that is faster: attention with a mask and shared keys has no good kernel there.
    """
    before = os.environ.get(_GROUPED)
    if device.type == "cpu":
        os.environ[_GROUPED] = "1"
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(_GROUPED, None)
        else:
            os.environ[_GROUPED] = before


def _key(model: PreTrainedModel, what: str) -> str:
    """Return a hash of everything the compiled code depends on; weights are not included."""
    device, config, cut = model.device, model.config.to_dict(), cut_head_of(model)
    text_config = model.config.get_text_config()
    ways = [getattr(text_config, name, None) for name in ("_attn_implementation", "_experts_implementation")]
    for name in ("_name_or_path", "architectures", "dtype", "transformers_version"):  # the first two change no code
        config.pop(name, None)
    source = Path(inspect.getsourcefile(type(model)) or "").read_text(encoding="utf-8")  # models can bring their own
    parts = [
        what, json.dumps(config, sort_keys=True, default=str), str(model.dtype), source,
        str(cut and cut.out_features), str(scales_of(model)), str(ways),
        *(inspect.getsource(module) for module in (graphs, masks, quantized, slots, sys.modules[__name__])),
        torch.__version__, transformers.__version__, device.type, str(torch.get_num_threads()),
        torch.cuda.get_device_name(device) if device.type == "cuda" else torch.backends.cpu.get_cpu_capability(),
    ]  # fmt: skip
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]
