"""The threshold of labels by likelihood: quantiles of the scores of tokens that equivalence finds wrong.

    python recipes/smollm2_e2e/likelihood_threshold.py likelihood.jsonl --swaps swaps_fit.jsonl

SelfJudge (arXiv 2510.02329) uses the 10% quantile. Both files must label the same questions; what counts are the tokens
behind the same words in both.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from command import running
from judge_decoding import JudgeDecodingError
from judge_decoding.data.cases import read_cases

SHARES = (0.1, 0.5, 0.9)


def main() -> None:
    """Print the quantiles."""
    parser = argparse.ArgumentParser()
    parser.add_argument("likelihood", type=Path, help="cases with scores")
    parser.add_argument("--swaps", type=Path, required=True, help="cases by equivalence")
    args = parser.parse_args()
    with running(parser):
        score = {(one.question, one.token_ids): one.score for one in read_cases(args.likelihood)}
        labelled = [(one, score.get((one.question, one.token_ids))) for one in read_cases(args.swaps)]
        wrong = [value for case, value in labelled if case.errors and value is not None]
        right = [value for case, value in labelled if not case.errors and value is not None]
        if not wrong:
            raise JudgeDecodingError("The two files share no wrong token; label the same questions with both.")
        for share in SHARES:
            at = float(torch.tensor(wrong).quantile(share))
            kept = f"{sum(value > at for value in right) / max(len(right), 1):.0%}"
            print(f"{at:8.2f}: {share:.0%} of {len(wrong)} wrong tokens below, {kept} of {len(right)} correct above")


if __name__ == "__main__":
    main()
