"""LoRA and other adapters by name: a folder or repository with ``adapter_config.json`` and the adapter's weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedModel
from transformers.utils.peft_utils import find_adapter_config_file

from judge_decoding.errors import JudgeDecodingError
from judge_decoding.io.files import parse_json, read_text
from judge_decoding.io.hub import ModelLocation
from judge_decoding.loading.weights import check_complete

CONFIG = "adapter_config.json"
_WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")


@dataclass(frozen=True, slots=True)
class Adapter:
    """An adapter for a model.

    ``base`` names its base model, at ``revision``; None if that model is in the same place.
    """

    source: ModelLocation
    base: str | None
    revision: str | None

    def put_into(self, model: PreTrainedModel, name: str, *, use_safetensors: bool) -> None:
        """Load the adapter's weights into its base model."""
        if use_safetensors and not self.source.has("adapter_model.safetensors"):
            raise JudgeDecodingError(
                f"{name} has no adapter_model.safetensors; save the adapter again with safe_serialization=True, or "
                "pass use_safetensors=False if you trust its adapter_model.bin."
            )
        options = {key: value for key, value in self.source.options.items() if key in _READING and value is not None}
        info = model.load_adapter(
            self.source.name_or_path, adapter_kwargs=options, dtype=model.dtype, use_safetensors=use_safetensors,
            ignore_mismatched_sizes=True,
        )  # fmt: skip
        check_complete(model, info.to_dict(), name)


WITHOUT: dict[str, dict[str, Any]] = {"adapter_kwargs": {"subfolder": "no-adapter", "local_files_only": True}}
"""Keeps ``from_pretrained`` from looking for an adapter itself, which queries the Hub whatever the options are."""
_READING = ("revision", "cache_dir", "force_download", "token", "local_files_only", "subfolder")


def find_adapter(source: ModelLocation) -> Adapter | None:
    """Return the adapter at ``source``; None if there is no adapter."""
    path = source.file(CONFIG)
    if path is None:
        return None
    if any(source.has(name) for name in _WEIGHTS):
        return Adapter(source, None, None)
    try:
        config: Mapping[str, Any] = parse_json(read_text(path, "the adapter's configuration"))
        base, revision = config["base_model_name_or_path"], config.get("revision")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise JudgeDecodingError(
            f"{source.name_or_path} has a damaged {CONFIG}; fetch or save the adapter again."
        ) from error
    if not base or not isinstance(base, str):
        raise JudgeDecodingError(
            f"{source.name_or_path} is an adapter that does not name its base model; fill in "
            f"base_model_name_or_path in its {CONFIG}."
        )
    return Adapter(source, base, revision)


def can_do_without(source: ModelLocation) -> bool:
    """Whether ``from_pretrained`` can load a model without the adapter in the same place.

    Older versions always load both at once, and report missing weights of the adapter only.
    """
    return find_adapter_config_file(source.name_or_path, **WITHOUT["adapter_kwargs"]) is None
