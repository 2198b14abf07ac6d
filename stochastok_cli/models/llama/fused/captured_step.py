"""A step of the fused kernels as CUDA graphs, with the tensors that it reads and writes."""

from collections.abc import Hashable
from dataclasses import dataclass

from torch import Tensor

from stochastok_cli.models.cuda_graphs import CapturedKernels
from stochastok_cli.models.llama.fused.batch import Batch


@dataclass(frozen=True)
class CapturedStep:
    """The captured kernels of a step, and the tensors that they read and write besides weights, gradients and buffers.

    Attributes:
        key: What another call must have in common with the captured one.
        kernels: From the copies of the weights to the last gradient.
        batch: What they compute on. To be overwritten before they are replayed.
        loss: The loss, overwritten by each replay.
    """

    key: Hashable
    kernels: CapturedKernels
    batch: Batch
    loss: Tensor
