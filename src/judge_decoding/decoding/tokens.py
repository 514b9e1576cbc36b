"""The tokens of a row, on the host and on the device."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


class TokenBuffer:
    """Token ids on the host, and as a tensor on request. A drafter may read but not change them.

    A compiled round needs only the last few ids, which it sends to the device with its other inputs; each small tensor
    operation would cost it as much as some thousand weights of a model.

    Args:
        ids: the first ids [T], on the device of the tensor.

    Attributes:
        host: all ids.
    """

    __slots__ = ("_ids", "host")

    def __init__(self, ids: Tensor) -> None:
        self._ids = ids
        self.host: list[int] = ids.tolist()

    def __len__(self) -> int:
        return len(self.host)

    @property
    def device(self) -> torch.device:
        """The device of the tensor."""
        return self._ids.device

    def extend(self, ids: Sequence[int]) -> None:
        """Append ``ids``."""
        self.host.extend(ids)

    @property
    def ids(self) -> Tensor:
        """All ids as a tensor [T]."""
        known = self._ids.shape[0]
        if known < len(self.host):
            new = torch.tensor(self.host[known:], device=self._ids.device)
            self._ids = torch.cat((self._ids, new))
        return self._ids
