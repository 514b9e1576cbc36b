"""Rules that look only at how probable the draft token is under the target.

All of them keep what standard verification keeps, and rescue more. Probabilities are the target's after the logits
processors; at temperature 0, the softmax of its logits. These rules guarantee nothing about the output distribution,
except that each rescued token by itself meets the rule's criterion. Some papers sample the token after a rejection
from p because they skip standard verification; here it is sampled from ``norm((p-q)+)``, so that the strict setting
is lossless above temperature 0 too.
"""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor

from judge_decoding.rules.base import VerificationRule
from judge_decoding.rules.evidence import Evidence
from judge_decoding.rules.truncation import Likelihood, TruncationRule


class TopK(TruncationRule):
    """Keeps a token among the target's ``k`` most probable ones.

    The rank ignores the probability: where the target is sure, its second choice is a mistake. Do not use it for
    text in which single tokens matter (numbers, code). Strict at k = 1, also above temperature 0.
    """

    name = "top_k"
    STRICT: ClassVar = {"k": 1}

    def __init__(self, k: int) -> None:
        self.k = k
        self.require("k", k >= 1, "1 or more")

    def keeps(self, likelihood: Likelihood) -> Tensor:
        """Keep tokens among the k most probable at their position."""
        return (likelihood.token_ranks < self.k) & (self.k > 1)


class MinProbability(TruncationRule):
    """Keeps a token to which the target gives a probability above ``p``.

    Do not use it at high temperatures, where no token is probable. Strict at p = 1.
    """

    name = "min_probability"
    STRICT: ClassVar = {"p": 1.0}

    def __init__(self, p: float) -> None:
        self.p = p
        self.require("p", 0 <= p <= 1, "between 0 and 1")

    def keeps(self, likelihood: Likelihood) -> Tensor:
        """Keep tokens with a probability above p."""
        return likelihood.token_probs > self.p


class MarginRatio(TruncationRule):
    """Keeps a token among the ``k`` most probable with ``p(x) > ratio * max p``.

    Proposed for vLLM (pull request 45229, k = 3, ratio = 0.5). Do not use it for very flat distributions, where the
    ratio admits noise and only k limits it. Strict at ratio = 1.
    """

    name = "margin_ratio"
    STRICT: ClassVar = {"ratio": 1.0}

    def __init__(self, k: int = 3, ratio: float = 0.5) -> None:
        self.k, self.ratio = k, ratio
        self.require("k", k >= 1, "1 or more")
        self.require("ratio", 0 <= ratio <= 1, "between 0 and 1")

    def keeps(self, likelihood: Likelihood) -> Tensor:
        """Keep tokens among the k most probable whose probability is close enough to the best."""
        # Compare logits: they can differ where the probabilities round to the same number.
        near = likelihood.gaps > (math.log(self.ratio) if self.ratio else -math.inf)
        return (likelihood.token_ranks < self.k) & near


class Relaxed(TruncationRule):
    """Keeps a token among the ``n`` most probable with ``p(x) > max p - delta``: TensorRT-LLM's relaxed acceptance.

    TensorRT-LLM uses it only inside a reasoning model's thinking phase (n = 10, delta = 0.6), and so should you:
    where the best token has a probability of at most 0.6, all n tokens pass. Strict at delta = 0.
    """

    name = "relaxed"
    STRICT: ClassVar = {"delta": 0.0}

    def __init__(self, n: int = 10, delta: float = 0.6) -> None:
        self.n, self.delta = n, delta
        self.require("n", n >= 1, "1 or more")
        self.require("delta", 0 <= delta <= 1, "between 0 and 1")

    def keeps(self, likelihood: Likelihood) -> Tensor:
        """Keep tokens among the n most probable whose probability is close enough to the best."""
        return (likelihood.token_ranks < self.n) & (likelihood.token_probs > likelihood.best_probs - self.delta)


class Typical(TruncationRule):
    """Keeps a token with ``p(x) > min(epsilon, delta * exp(-H(p)))``: Medusa's typical acceptance (arXiv 2401.10774).

    The less sure the target is (entropy H, in nats), the less probable a token may be. Medusa recommends delta =
    sqrt(epsilon) and does not sample from p; neither does this rule. Do not use it where the sampling distribution
    matters: measured alone, it costs accuracy. Strict at epsilon = 1 with a delta above the vocabulary size.
    """

    name = "typical"
    STRICT: ClassVar = {"epsilon": 1.0, "delta": 1e9}

    def __init__(self, epsilon: float = 0.09, delta: float = 0.3) -> None:
        self.epsilon, self.delta = epsilon, delta
        self.require("epsilon", 0 <= epsilon <= 1, "between 0 and 1")
        self.require("delta", 0 <= delta < math.inf, "0 or more")

    def keeps(self, likelihood: Likelihood) -> Tensor:
        """Keep tokens that are probable enough, given the entropy."""
        least = (self.delta * torch.exp(-likelihood.entropy)).clamp(max=self.epsilon)
        return likelihood.token_probs > least


class RunningSurprise(VerificationRule):
    """Keeps a token while the running mean of ``-log p(x)`` is below ``epsilon``: Consultant Decoding (2506.02391).

    ``r_i = beta * r_{i-1} + (1 - beta) * (-log p(x_i))``. A rule sees one draft, so the mean restarts with each draft
    at the surprise of its first token. beta = 0 is ``p(x) > exp(-epsilon)``. Do not use it for small draft models of
    another family: the probable tokens before an odd one mask it. Strict at epsilon = 0.
    """

    name = "running_surprise"
    deterministic = True
    STRICT: ClassVar = {"epsilon": 0.0}

    def __init__(self, epsilon: float = 2.0, beta: float = 0.2) -> None:
        self.epsilon, self.beta = epsilon, beta
        self.require("epsilon", 0 <= epsilon < math.inf, "0 or more")
        self.require("beta", 0 <= beta < 1, "0 or more and below 1")

    def accept(self, evidence: Evidence) -> Tensor:
        """Keep agreed tokens, and tokens at which the running mean is below epsilon."""
        # Keep surprises finite, since 0 times infinity is NaN.
        surprises = -evidence.token_probs.clamp(min=torch.finfo(torch.float32).tiny).log()
        means: list[Tensor] = []
        for surprise in surprises.unbind(1):
            means.append(self.beta * means[-1] + (1 - self.beta) * surprise if means else surprise)
        return evidence.agreed | (torch.stack(means, 1) < self.epsilon if means else evidence.agreed)


class EntropyGate(VerificationRule):
    """Keeps a mismatch where the target is unsure and soon agrees again: FLy (arXiv 2511.22972).

    The token is kept if the target's entropy, as a share of log V, is above ``entropy`` and standard verification keeps
    all of the ``window`` tokens after it; a window that reaches beyond the draft does not count. So drafts must be much
    longer than the window. (The paper's text uses the normalised entropy; its code, that of the three best tokens.)
    Strict at entropy = 1.
    """

    name = "entropy_gate"
    STRICT: ClassVar = {"entropy": 1.0}

    def __init__(self, entropy: float = 0.3, window: int = 6) -> None:
        self.entropy, self.window = entropy, window
        self.require("entropy", 0 <= entropy <= 1, "between 0 and 1")
        self.require("window", window >= 0, "0 or more")

    def accept(self, evidence: Evidence) -> Tensor:
        """Keep agreed tokens, and tokens where the target is unsure and then agrees for a whole window."""
        unsure = evidence.entropy / math.log(evidence.target_logits.shape[-1])
        # How many consecutive tokens agree from each position on; padding ends a run.
        runs = [evidence.draft_ids.new_zeros(len(evidence.draft_ids))]
        for good in (evidence.agreed & evidence.drafted).flip(-1).unbind(1):
            runs.append((runs[-1] + 1) * good)
        after = torch.stack(runs[::-1], 1)[:, 1:]
        return evidence.agreed | ((unsure.clamp(max=1) > self.entropy) & (after >= self.window))
