"""What cannot work stops at the start, with a sentence that says so."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from engines import engine
from vllm.engine.arg_utils import EngineArgs

from judge_decoding.errors import JudgeDecodingError
from judge_decoding.reference import pair

HEAD = {"head": str(pair.JUDGE)}
DRAFT = {"method": "ngram", "num_speculative_tokens": 4, "prompt_lookup_max": 2}


def start(judge: object, speculative: dict[str, Any] | None = DRAFT, **options: Any) -> None:
    """As far as the configuration goes."""
    EngineArgs(
        model=str(pair.TARGET), dtype="float32", enforce_eager=True, max_model_len=256,
        speculative_config=speculative, additional_config={"judge": judge}, **options,
    ).create_engine_config()  # fmt: skip


def altered_head(folder: Path, **target: Any) -> str:
    """The embedded head, trained for a target that is different in this."""
    shutil.copytree(pair.JUDGE, folder)
    config = json.loads((folder / "config.json").read_text())
    config["target"] |= target
    (folder / "config.json").write_text(json.dumps(config))
    return str(folder)


def test_what_can_work_starts() -> None:
    start(HEAD)


@pytest.mark.parametrize(
    ("judge", "phrase"),
    [
        ({}, "neither a head nor a rule"),
        ("HEAD", "give a dictionary"),
        ({"head": "no/where/at/all"}, "no judge head at no/where/at/all"),
        ({**HEAD, "treshold": 0.5}, "treshold: Extra inputs are not permitted; its keys are head, threshold"),
        ({**HEAD, "threshold": 2}, "between 0"),
        ({**HEAD, "logprobs": "perhaps"}, "logprobs"),
        ({**HEAD, "rule": "top_k(k=2)"}, "reads no judge head"),
        ({"rule": "judge(threshold=0.5)"}, "needs a judge head"),
        ({"rule": "top_q(k=2)"}, "did you mean top_k?"),
        ({"rule": "block"}, "as a whole"),
        ({"rule": "kl_judge"}, '"draft_sample_method": "probabilistic"'),
    ],
)
def test_a_wrong_setting_is_named(judge: object, phrase: str) -> None:
    with pytest.raises(JudgeDecodingError) as caught:
        start(judge)
    assert phrase in str(caught.value)


def test_a_head_whose_file_is_missing_is_named(tmp_path: Path) -> None:
    folder = altered_head(tmp_path / "head")
    (Path(folder) / "model.safetensors").unlink()
    with pytest.raises(JudgeDecodingError, match=r"has no model\.safetensors"):
        start({"head": folder})


@pytest.mark.parametrize(
    ("target", "phrase"),
    [({"num_hidden_layers": 9}, "number of layers 9"), ({"architecture": "LlamaForCausalLM"}, "LlamaForCausalLM")],
)
def test_a_head_for_another_model_is_refused(tmp_path: Path, target: dict[str, Any], phrase: str) -> None:
    with pytest.raises(JudgeDecodingError, match=phrase):
        start({"head": altered_head(tmp_path / "head", **target)})


def test_a_head_of_another_hidden_size_is_refused(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = altered_head(tmp_path / "head", hidden_size=64)
    weights = load_file(Path(folder) / "model.safetensors")
    config = json.loads((tmp_path / "head" / "config.json").read_text()) | {"familiarity": None}
    (tmp_path / "head" / "config.json").write_text(json.dumps(config))
    save_file(
        {"linear.weight": weights["linear.weight"][:, :64].contiguous(), "linear.bias": weights["linear.bias"]},
        Path(folder) / "model.safetensors",
    )
    with pytest.raises(JudgeDecodingError, match="hidden size 64"):
        start({"head": folder})


def test_a_head_for_other_weights_is_refused_once_they_are_loaded(tmp_path: Path, draft: Path) -> None:
    folder = altered_head(tmp_path / "head", fingerprint=[0.5] * 16)
    with pytest.raises(JudgeDecodingError, match="other weights"), engine(draft, {"head": folder}):
        pass


def test_a_server_that_drafts_nothing_is_refused() -> None:
    with pytest.raises(JudgeDecodingError, match="drafts none"):
        start(HEAD, None)


def test_another_way_to_verify_is_refused() -> None:
    with pytest.raises(JudgeDecodingError, match="rejection_sample_method is synthetic"):
        start(HEAD, {**DRAFT, "rejection_sample_method": "synthetic", "synthetic_acceptance_rates": [0.5] * 4})


def test_another_version_of_vllm_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    import vllm

    monkeypatch.setattr(vllm, "__version__", "0.31.2")
    with pytest.raises(JudgeDecodingError, match=r"for vLLM 0\.32 and 0\.33, and this is 0\.31\.2"):
        start(HEAD)


def test_a_vllm_that_has_changed_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from vllm.v1.sample import rejection_sampler

    monkeypatch.setattr(rejection_sampler, "rejection_sample", lambda logits, draft: None)
    with pytest.raises(JudgeDecodingError, match="rejection_sample takes logits, draft"):
        start(HEAD)
    monkeypatch.delattr(rejection_sampler, "rejection_sample")
    with pytest.raises(JudgeDecodingError, match=r"it has no vllm\.v1\.sample\.rejection_sampler:rejection_sample"):
        start(HEAD)


def test_nothing_is_wrapped_without_a_judge() -> None:
    import subprocess
    import sys

    code = (
        "from vllm.engine.arg_utils import EngineArgs\n"
        "from judge_decoding.integrations.vllm import hooks, patching\n"
        f"EngineArgs(model={str(pair.TARGET)!r}, max_model_len=256).create_engine_config()\n"
        "def wrapped(symbol): return getattr(patching.look_up(symbol), 'judge_decoding', False)\n"
        "others = {**hooks.HOOKS, **hooks.HOOKS_V1}.keys() - hooks.GATES.keys()\n"
        "assert len(others) > 5 and not any(map(wrapped, others)), others\n"
        "assert all(map(wrapped, hooks.GATES))\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
