"""Matrix products that are left to cuBLAS, with the gradients of the weights summed in float32."""

import torch
from torch import Tensor


def add_product(out: Tensor, a: Tensor, b: Tensor) -> None:
    """`out += a @ b` with `out` float32, `a` and `b` of any one type: nothing is rounded on the way to the sum."""
    if a.dtype == torch.float32:
        out.addmm_(a, b)
    else:
        torch.ops.aten.addmm.dtype_out(out, a, b, torch.float32, out=out)
