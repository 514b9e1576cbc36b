"""vLLM as a decoding method: an engine in its own process, which waits while other methods are measured."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any

from torch import Tensor

from judge_decoding.errors import JudgeDecodingError
from judge_decoding.evaluation.bench.contenders import BatchAnswers, ContenderLabel, up_to_end
from judge_decoding.visible import one_line

CHILD = Path(__file__).with_name("vllm_child.py")


@dataclass(frozen=True, slots=True)
class VllmSettings:
    """The settings of an engine in the interpreter ``python``.

    ``context`` is the maximum number of tokens in prompt and answer, ``rows`` the maximum number of prompts decoded
    together. Without a ``draft``, the target decodes alone; without a ``judge``, verification is standard.
    """

    python: str
    target: str
    dtype: str
    context: int
    rows: int
    max_new_tokens: int
    end_ids: frozenset[int]
    threads: int
    draft: str | None = None
    num_draft_tokens: int = 0
    judge: str | None = None

    def engine(self) -> dict[str, Any]:
        """The arguments of ``vllm.LLM``."""
        found: dict[str, Any] = {
            "model": self.target, "dtype": self.dtype, "max_model_len": self.context, "max_num_seqs": self.rows,
            "enable_prefix_caching": False,  # every repetition reads the same prompts
        }  # fmt: skip
        if self.draft is not None:
            found["speculative_config"] = {
                "method": "draft_model", "model": self.draft, "num_speculative_tokens": self.num_draft_tokens
            }  # fmt: skip
        if self.judge is not None:
            found["additional_config"] = {"judge": {"head": self.judge}}
        return found

    def environment(self) -> dict[str, str]:
        """The environment variables of the process; vLLM's CPU build reads most of them."""
        return {
            "OMP_NUM_THREADS": str(self.threads),
            "VLLM_CPU_KVCACHE_SPACE": "1",
            "VLLM_CPU_OMP_THREADS_BIND": "nobind",
            "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
            "VLLM_LOGGING_LEVEL": "WARNING",
            "VLLM_NO_USAGE_STATS": "1",
        }


def interpreter(given: str | None) -> str:
    """Return the interpreter that has vLLM.

    Raises:
        JudgeDecodingError: no such interpreter is found.
    """
    if given is None:
        if find_spec("vllm") is None:
            raise JudgeDecodingError("vLLM is not installed here; give the Python that has it with --vllm-python.")
        return sys.executable
    try:
        done = subprocess.run([given, "-P", "-c", "import vllm"], capture_output=True, text=True, check=False)
    except OSError as error:
        raise JudgeDecodingError(f"Cannot run {given}: {error.strerror}; give a Python with vLLM.") from error
    if done.returncode:
        raise JudgeDecodingError(f"{given} cannot import vLLM ({_last(done.stderr)}); give a Python with vLLM.")
    return given


class VLLM:
    """A running engine; `close` ends it.

    Args:
        label: the label of its row.
        settings: the settings of the engine.

    Raises:
        JudgeDecodingError: the engine does not start.
    """

    def __init__(self, label: ContenderLabel, settings: VllmSettings) -> None:
        self._label, self._settings = label, settings
        wanted = {
            "engine": settings.engine(), "max_new_tokens": settings.max_new_tokens, "end_ids": sorted(settings.end_ids)
        }  # fmt: skip
        self._errors: IO[str] = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115
        self._process = subprocess.Popen(
            [settings.python, "-P", str(CHILD), json.dumps(wanted)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, text=True,
            env={**os.environ, **settings.environment()},
        )  # fmt: skip
        try:
            self._hear()
        except BaseException:
            self.close()
            raise

    @property
    def label(self) -> ContenderLabel:
        """The label of its row."""
        return self._label

    @property
    def same_tokens(self) -> bool:
        """Whether its tokens must equal those of plain greedy decoding: True without a judge."""
        return self._settings.judge is None

    def answer(self, prompts: Sequence[Tensor]) -> BatchAnswers:
        """See `Contender.answer`; the time is measured in the engine's process.

        Raises:
            JudgeDecodingError: the engine has exited.
        """
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps([ids.tolist() for ids in prompts]) + "\n")
            self._process.stdin.flush()
        except OSError as error:
            raise self._ended() from error
        told: Mapping[str, Any] = self._hear()
        tokens = tuple(up_to_end(ids, self._settings.end_ids) for ids in told["tokens"])
        return BatchAnswers(tokens, float(told["seconds"]))

    def close(self) -> None:
        """End the process."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._errors.close()

    def _hear(self) -> Any:  # noqa: ANN401  (any JSON value)
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise self._ended()
        return json.loads(line)

    def _ended(self) -> JudgeDecodingError:
        self._process.wait()
        self._errors.seek(0)
        return JudgeDecodingError(f"vLLM ended: {_last(self._errors.read())}")


def _last(text: str) -> str:
    """Return the line of a traceback with the error message, or else the last line."""
    lines = [line for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if "Error" in line and not line.startswith(" ")]
    return one_line((errors or lines or ["it gave no reason"])[-1])[:300]
