"""Tensor parallelism: two ranks of a CPU, each with the whole head, give the tokens of our own loop."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from pair import are_ours

from judge_decoding.decoding.decoder import JudgeDecoder
from judge_decoding.rules.judge import Judge

HERE = Path(__file__).parent


def test_two_ranks_say_the_same(draft: Path, decoder: JudgeDecoder, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, HERE / "run_parallel.py", draft, tmp_path / "answers"],
        env={
            **os.environ, "PYTHONPATH": os.pathsep.join([str(HERE), str(HERE.parent)]),
            "VLLM_ALLOW_INSECURE_SERIALIZATION": "1",  # for the question about the weights' shapes alone
        },
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    told = json.loads((tmp_path / "answers").read_text())
    assert told["ranks"] == 2
    vocabulary = decoder.target.get_output_embeddings().weight.shape[0]
    assert len(told["shapes"]) == 2
    assert all(rows < vocabulary for rows, _ in told["shapes"])  # each has a part of it
    for name, threshold in (("own", None), ("all", 0.0)):
        made = [(prompt, answer) for prompt, answer in told["answers"][name]]
        ours = are_ours(made, decoder, Judge(decoder.judge, threshold))
        assert len(ours) == 12
        assert sum(one.stats.causes["rescued"] for one in ours) > 0
