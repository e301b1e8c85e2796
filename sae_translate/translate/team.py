"""Training by several processes, joined by accelerate: each draws batches of its own, and all make the same step."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Team:
    """The processes that train one network; of a single one all this changes nothing."""

    rank: int = 0
    size: int = 1
    device: str = "cpu"
    "This process's own."

    def mean(self, numbers: Sequence[float]) -> list[float]:
        """The mean of each number over the processes, the same to the bit on all of them."""
        if self.size == 1:
            return list(numbers)
        from accelerate.utils import reduce

        return reduce(torch.tensor(numbers, dtype=torch.float64, device=self.device), "mean").tolist()

    def average(self, tensors: Sequence[Tensor]) -> None:
        """Put the mean over the processes in the place of every tensor."""
        if self.size > 1 and tensors:
            from accelerate.utils import reduce

            nn.utils.vector_to_parameters(reduce(nn.utils.parameters_to_vector(tensors), "mean"), tensors)

    def copy_first(self, tensors: Sequence[Tensor]) -> None:
        """Put the first process's tensors in the place of every other's."""
        if self.size > 1:
            from accelerate.utils import broadcast

            nn.utils.vector_to_parameters(broadcast(nn.utils.parameters_to_vector(tensors)), tensors)
