"""A target divided over two processes of a CPU gives the same tokens: across its layers, and by them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from drafters import PIPELINE, PIPELINE_SETTINGS, PIPELINE_TOKENS, eagle, eagle3
from engines import answers, engine
from pair import Answers, are_ours, judged_by

from judge_decoding.core.rounds import Cause
from judge_decoding.decoder import JudgeDecoder
from judge_decoding.reference import pair

HERE = Path(__file__).parent


def run(script: str, drafter: Path, file: Path) -> Any:
    """What a script of this folder tells."""
    done = subprocess.run(
        [sys.executable, HERE / script, drafter, file],
        env={
            **os.environ, "PYTHONPATH": os.pathsep.join([str(HERE), str(HERE.parent)]),
            "VLLM_ALLOW_INSECURE_SERIALIZATION": "1",  # for questions to the ranks alone
        },
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(file.read_text())


def test_two_ranks_say_the_same(draft: Path, decoder: JudgeDecoder, tmp_path: Path) -> None:
    """Tensor parallelism: each rank has the whole head."""
    told = run("run_parallel.py", draft, tmp_path / "answers")
    assert told["ranks"] == 2
    vocabulary = decoder.target.get_output_embeddings().weight.shape[0]
    assert len(told["shapes"]) == 2
    assert all(rows < vocabulary for rows, _ in told["shapes"])  # each has a part of it
    for name, threshold in (("own", None), ("all", 0.0)):
        made = [(prompt, answer) for prompt, answer in told["answers"][name]]
        ours = are_ours(made, decoder, judged_by(decoder, threshold))
        assert len(ours) == 12
        assert sum(one.stats.causes[Cause.RESCUED] for one in ours) > 0


def test_a_pipeline_says_the_same(plain: Answers, decoder: JudgeDecoder, tmp_path: Path) -> None:
    """Pipeline parallelism: the last rank has the head. The drafter is the one whose tokens `test_engines` checks."""
    folder = eagle(tmp_path / "eagle3", decoder.target, states=3)
    told = run("run_pipeline.py", folder, tmp_path / "answers")
    assert told["judges"] == [False, True]
    made = {name: [(prompt, answer) for prompt, answer in some] for name, some in told["answers"].items()}
    with engine(None, {"head": str(pair.JUDGE)}, speculative_config=eagle3(str(folder))) as llm:
        for name, extra in PIPELINE_SETTINGS.items():
            assert made[name] == answers(llm, PIPELINE, PIPELINE_TOKENS, **extra)
    assert made["off"] == [(prompt, answer[:PIPELINE_TOKENS]) for prompt, answer in plain[: len(PIPELINE)]]
    assert made["all"] != made["own"] != made["off"]
