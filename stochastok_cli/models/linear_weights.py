"""How the weights of linear layers hold the matrices that are multiplied."""

from typing import NamedTuple

from torch import Tensor


class LinearWeight(NamedTuple):
    """The matrices `[out, in]` in the weight of a linear layer.

    Attributes:
        out_features: The rows of each matrix, one below the other: several where one product computes several
            projections, such as queries, keys and values.
        transposed: Whether the weight is `[in, out]`, as in GPT-2.
    """

    out_features: tuple[int, ...]
    transposed: bool = False

    def matrices(self, tensor: Tensor) -> tuple[Tensor, ...]:
        """The matrices as views of a weight, or of a tensor of its shape such as its gradient.

        >>> import torch
        >>> [tuple(part.shape) for part in LinearWeight((4, 2), transposed=True).matrices(torch.zeros(3, 6))]
        [(4, 3), (2, 3)]
        """
        return (tensor.T if self.transposed else tensor).split(self.out_features)
