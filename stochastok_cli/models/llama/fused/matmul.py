"""Matrix products that cuBLAS computes, added to float32 sums."""

import torch
from torch import Tensor


def add_matmul_(out: Tensor, a: Tensor, b: Tensor) -> None:
    """`out += a @ b` for a float32 `out` and `a`, `b` of any one type. The product is not rounded before the sum."""
    if a.dtype == torch.float32:
        out.addmm_(a, b)
    else:
        torch.ops.aten.addmm.dtype_out(out, a, b, torch.float32, out=out)
