"""The tokens of a row, where they are wanted."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


class TokenBuffer:
    """Token ids on the host, and as a tensor for who asks for one. A drafter may read them, and never changes them.

    A compiled round needs the last few only, as part of what it hands to the device anyway; each small operation on
    tensors would cost it as much as some thousand numbers of a model.

    Args:
        ids: the first ones [T], on the device where the tensor is to be.

    Attributes:
        host: all of them.
    """

    __slots__ = ("_ids", "host")

    def __init__(self, ids: Tensor) -> None:
        self._ids = ids
        self.host: list[int] = ids.tolist()

    def __len__(self) -> int:
        return len(self.host)

    @property
    def device(self) -> torch.device:
        """Where the tensor is."""
        return self._ids.device

    def extend(self, ids: Sequence[int]) -> None:
        """Go on with some more."""
        self.host.extend(ids)

    @property
    def ids(self) -> Tensor:
        """All of them [T]."""
        known = self._ids.shape[0]
        if known < len(self.host):
            new = torch.tensor(self.host[known:], device=self._ids.device)
            self._ids = torch.cat((self._ids, new))
        return self._ids
