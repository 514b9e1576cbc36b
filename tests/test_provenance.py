"""Where figures come from is said beside them."""

from __future__ import annotations

import torch
import transformers

from judge_decoding.models.provenance import machine, versions


def test_figures_name_the_releases_that_made_them() -> None:
    said = machine(torch.device("cpu"))
    assert f"1 used, torch {torch.__version__}, transformers {transformers.__version__}" in said
    found = versions()
    assert (found["torch"], found["transformers"]) == (torch.__version__, transformers.__version__)
