"""Recipes: those of the package, what is wrong with others, and the command they come to."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
import yaml

from commands import Run, is_one_sentence, the_sentence
from judge_decoding.judge.head import JudgeHead
from judge_decoding.serving.plan import Memory
from judge_decoding.serving.recipe import load, packaged, parse

SMALL = "smollm2-135m-1.7b"

# As their makers give them, to the digits they give.
KNOWN = {
    "meta-llama/Llama-3.1-8B-Instruct": 8.03e9,
    "meta-llama/Llama-3.1-70B-Instruct": 70.6e9,
    "meta-llama/Llama-3.1-405B-Instruct-FP8": 405.9e9,
    "Qwen/Qwen3-0.6B": 0.596e9,
    "Qwen/Qwen3-8B": 8.19e9,
    "Qwen/Qwen3-30B-A3B": 30.5e9,
    "Qwen/Qwen3-32B": 32.8e9,
    "HuggingFaceTB/SmolLM2-135M-Instruct": 134.5e6,
    "HuggingFaceTB/SmolLM2-1.7B-Instruct": 1.71e9,
}


def changed(tmp_path: Path, *path: str, to: object) -> Path:
    """A packaged recipe with one value changed; None leaves it out."""
    content = yaml.safe_load(packaged()[SMALL].read_text())
    part = content
    for key in path[:-1]:
        part = part[key]
    if to is None:
        del part[path[-1]]
    else:
        part[path[-1]] = to
    file = tmp_path / "recipe.yaml"
    file.write_text(yaml.safe_dump(content))
    return file


@pytest.mark.parametrize("name", packaged())
def test_a_packaged_recipe_is_valid_fits_and_has_its_models_true_sizes(name: str) -> None:
    recipe = load(name)
    assert Memory.of(recipe).fits
    for model in (recipe.target, recipe.draft):
        assert model.parameters == pytest.approx(KNOWN[model.name], rel=0.01)


@pytest.mark.parametrize("name", packaged())
def test_a_packaged_recipes_command_says_what_the_recipe_says(name: str) -> None:
    recipe = load(name)
    program, verb, target, *options = recipe.command()
    assert (program, verb, target) == ("vllm", "serve", recipe.target.name)
    given = dict(zip(options[::2], options[1::2], strict=True))
    assert all(option.startswith("--") for option in given)
    speculative = json.loads(given["--speculative-config"])
    assert speculative["model"] == recipe.draft.name
    assert speculative["num_speculative_tokens"] == recipe.num_draft_tokens
    assert json.loads(given["--additional-config"]) == {"judge": {"head": recipe.head}}
    assert given["--tensor-parallel-size"] == str(recipe.gpus.count)
    assert ("--quantization" in given) == recipe.target.quantize


def test_there_are_the_papers_pairs_and_smaller_ones() -> None:
    assert {"llama-3.1-8b-70b", "llama-3.1-8b-405b", SMALL} < set(packaged())
    assert sum(name.startswith("qwen3") for name in packaged()) >= 1


def test_the_whole_command(run: Run) -> None:
    assert run("serve", SMALL, "--dry-run", "--", "--port", "8001") == (
        0,
        "vllm serve HuggingFaceTB/SmolLM2-1.7B-Instruct --tensor-parallel-size 1 --max-model-len 4096 --max-num-seqs 8 "
        '--gpu-memory-utilization 0.92 --speculative-config \'{"method": "draft_model", "model": '
        '"HuggingFaceTB/SmolLM2-135M-Instruct", "num_speculative_tokens": 8}\' '
        '--additional-config \'{"judge": {"head": "smollm2-135m-1.7b-judge"}}\' --port 8001\n',
        "",
    )


def test_quantized_drafts_caches_and_thresholds_are_in_the_command(tmp_path: Path) -> None:
    content = yaml.safe_load(packaged()[SMALL].read_text())
    content["draft"] |= {"weights": "fp8", "quantize": True}
    content |= {"kv_cache": "fp8", "threshold": 0.7}
    command = parse(yaml.safe_dump(content), "here").command()
    assert '"quantization": "fp8"' in command[command.index("--speculative-config") + 1]
    assert json.loads(command[-1])["judge"]["threshold"] == 0.7
    assert command[command.index("--kv-cache-dtype") + 1] == "fp8"


@pytest.mark.parametrize(
    ("path", "value", "phrase"),
    [
        (("target", "layers"), 0, "target.layers"),
        (("target", "layers"), None, "target.layers: Field required"),
        (("target", "weights"), "fp7", "target.weights"),
        (("target", "kv_heads"), 5, "32 heads cannot share 5 kv_heads"),
        (("target", "quantize"), True, "quantize"),
        (("draft", "vocab_size"), 32000, "vocabularies of 49152 and 32000"),
        (("gpus", "bandwidth"), float("nan"), "gpus.bandwidth"),
        (("gpus", "bandwidth"), 0, "gpus.bandwidth"),
        (("gpus", "bandwidth"), 1e-300, "gpus.bandwidth"),
        (("gpus", "count"), 2, "the draft's 9 heads"),
        (("memory_share",), 1.5, "memory_share"),
        (("threshold",), 2, "threshold"),
        (("accepted",), {"judge": 9, "source": "a guess"}, "accepted has more"),
        (("vllm_args",), ["--trust-remote-code"], "vllm_args: Extra inputs"),
        (("target", "name"), "--trust-remote-code", "target.name"),
        (("draft", "name"), "-x", "draft.name"),
        (("head",), "two words", "head"),
        (("about",), "\x1b[2J", "about"),
    ],
)
def test_what_is_wrong_with_a_recipe_is_one_sentence(
    run: Run, tmp_path: Path, path: tuple[str, ...], value: object, phrase: str
) -> None:
    is_one_sentence(run("plan", changed(tmp_path, *path, to=value)), phrase)


@pytest.mark.slow
@pytest.mark.parametrize(
    "text",
    [
        "",
        "- a",
        "about: [",
        "!!python/object/apply:os.system ['touch hacked']",
        "a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]",
        "&a [*a]",
        "[" * 5000,
        "layers: " + "9" * 5000,
        "when: 2026-99-99",
        "\x00",
    ],
)
def test_a_hostile_file_is_one_sentence_and_does_nothing(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "recipe.yaml"
    file.write_text(text)
    for command in ("plan", "serve"):
        assert "recipe.yaml" in the_sentence(run(command, file))
    assert [*tmp_path.iterdir()] == [file]


def test_names_that_are_not_there(run: Run, tmp_path: Path) -> None:
    is_one_sentence(run("serve", "llama-3.1-8b-406b"), "did you mean llama-3.1-8b-405b?")
    is_one_sentence(run("plan", tmp_path / "none.yaml"), "No such file")


def test_serve_starts_only_what_fits_and_is_there(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, head: JudgeHead
) -> None:
    started: list[list[str]] = []
    monkeypatch.setattr(os, "execvp", lambda _file, arguments: started.append(arguments))
    place = str(tmp_path / "my-judge")
    file = changed(tmp_path, "head", to=place)

    monkeypatch.setattr(shutil, "which", lambda _: None)
    is_one_sentence(run("serve", file), "no command vllm")
    monkeypatch.setattr(shutil, "which", lambda name: f"/bin/{name}")
    is_one_sentence(run("serve", file), "judge-decoding fit --target HuggingFaceTB/SmolLM2-1.7B-Instruct")
    assert not started

    head.save_pretrained(place)
    code, out, _ = run("serve", file, "--", "--port", 8001)
    assert code == 0
    assert started.pop() == [*load(str(file)).command(), "--port", "8001"]
    assert out.startswith("vllm serve ")

    big = changed(tmp_path, "sequences", to=100)
    is_one_sentence(run("serve", big), "does not fit")
    big = changed(tmp_path, "sequences", to=100)
    big.write_text(big.read_text().replace("smollm2-135m-1.7b-judge", place))
    is_one_sentence(run("serve", big), "--force")
    assert not started
    assert run("serve", big, "--force")[0] == 0
    assert len(started) == 1
