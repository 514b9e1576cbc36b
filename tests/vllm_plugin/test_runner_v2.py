"""Model runner V2, which vLLM uses on GPUs, on this CPU: slowly, by Triton's interpreter, and with the same tokens."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

from json_pair import SCHEMAS, check_json
from pair import GRAMMAR, Answers, accepted_by_cause, are_ours, judged_by

from judge_decoding.core.rounds import Cause
from judge_decoding.decoder import JudgeDecoder

HERE = Path(__file__).parent
THRESHOLDS = [None, 1, 0, 0.5, 1, 1, 0.3, None]


def test_model_runner_v2_says_the_same(draft: Path, decoder: JudgeDecoder, plain: Answers, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, HERE / "run_v2.py", draft, tmp_path / "answers"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE), str(HERE.parent)])},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    told = json.loads((tmp_path / "answers").read_text())
    assert told["runner"] == "vllm.v1.worker.gpu.model_runner"
    made: Answers = [(prompt, answer) for prompt, answer in told["answers"]]
    rescued = 0
    for one, threshold in zip(made, THRESHOLDS, strict=True):
        rule = judged_by(decoder, threshold)
        (own,) = are_ours([one], decoder, rule)
        rescued += accepted_by_cause(own.rounds, rule.threshold)[Cause.RESCUED]
    assert [a == b for a, b in zip(made, plain, strict=False)] == [threshold == 1 for threshold in THRESHOLDS]
    assert told["rescued"] == rescued > 20
    assert told["compared"]
    assert max(told["compared"]) < 0.001
    assert len(told["guided"]) == 4
    for text in told["guided"]:
        assert re.fullmatch(GRAMMAR, text), text
    assert len(told["json"]) == 4
    check_json(told["json"], SCHEMAS[0])
    assert told["json_rescued"] > 0
