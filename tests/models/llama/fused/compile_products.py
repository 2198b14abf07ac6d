"""Compiles the kernels of `fused.pingpong`'s products for an H100, which needs no GPU, and prints their shared memory.

It is a program of its own: a process in which Triton interprets kernels can't compile any.
"""

import json
from typing import Any

from triton.backends.compiler import GPUTarget
from triton.compiler import compile as compile_kernel
from triton.experimental.gluon import language as gl
from triton.experimental.gluon._runtime import GluonASTSource

from stochastok_cli.models.llama.fused import attention_dkdv, exp_logits, residual, rotary, swiglu
from stochastok_cli.models.llama.fused.pingpong import LAUNCH_OPTIONS

DTYPES = {"bf16": gl.bfloat16, "fp8e4nv": gl.float8e4nv}


def blocks(*shape: int, dtype: str = "bf16") -> str:
    """The type of a descriptor of blocks of this shape."""
    layout = gl.NVMMASharedLayout.get_default_for(list(shape), DTYPES[dtype])
    return f"tensordesc<{dtype}{list(shape)},{layout!r}>"


def shared_memory(kernel: Any, types: dict[str, str], constants: dict[str, Any]) -> int:
    """Bytes that a kernel has, compiled for arguments of these types and for these constants."""
    names = kernel.arg_names
    source = GluonASTSource(
        fn=kernel,
        signature={name: "constexpr" if name in constants else types[name] for name in names},
        constexprs={(i,): constants[name] for i, name in enumerate(names) if name in constants},
        attrs={(i,): [["tt.divisibility", 16]] for i, name in enumerate(names) if types.get(name, "").startswith("*")},
    )
    return compile_kernel(source, target=GPUTarget("cuda", 90, 32), options=LAUNCH_OPTIONS).metadata.shared


def exp_logits_kernels() -> dict[str, int]:
    kernel = exp_logits._exp_logits
    types = {"exp_desc": blocks(128, 64), "target_ptr": "*i32", "row_count": "i32"}
    types |= dict.fromkeys(("target_logit_ptr", "partial_ptr", "hidden_scale_ptr", "weight_scale_ptr"), "*fp32")
    wide = types | {"hidden_desc": blocks(128, 64), "weight_desc": blocks(128, 64)}
    narrow = types | dict.fromkeys(("hidden_desc", "weight_desc"), blocks(128, 128, dtype="fp8e4nv"))
    constants = {"vocab_size": 50257, "column_tiles": 393, "group": exp_logits.GROUP, "stages": exp_logits.STAGES}
    unscaled = constants | {"hidden_scale_ptr": None, "weight_scale_ptr": None, "steps": 8}
    return {
        "logits": shared_memory(kernel, wide, unscaled),
        "losses": shared_memory(kernel, wide, unscaled | {"exp_desc": None}),
        "logits of 8-bit floats": shared_memory(kernel, narrow, constants | {"steps": 4}),
    }


def swiglu_kernels(depth: int, width: int) -> dict[str, int]:
    forward = {"x_desc": blocks(128, 64), "weight_desc": blocks(2, 64, 64), "row_count": "i32"}
    forward |= dict.fromkeys(("gate_desc", "up_desc", "hidden_desc"), blocks(128, 64))
    forward |= {"rstd_ptr": "*fp32"}
    constants = {"steps": depth // 64, "width": width}
    options = swiglu.backward_options(depth)
    backward = {"grad_desc": blocks(128, 64), "weight_desc": blocks(64, 128), "row_count": "i32"}
    parts = "gate_desc", "up_desc", "gate_grad_desc", "up_grad_desc"
    backward |= dict.fromkeys(parts, blocks(128, options.columns))
    backward |= {"rstd_ptr": "*fp32"}
    chosen = {"group": options.group, "stages": options.stages, "num_slots": options.slots}
    return {
        f"gate and up, {depth}": shared_memory(
            swiglu._gate_up_swiglu, forward, constants | {"group": swiglu.GROUP, "stages": swiglu.STAGES}
        ),
        f"their gradient, {depth}": shared_memory(swiglu._swiglu_backward, backward, constants | chosen),
    }


def rotation_kernel(head_dim: int, heads: int, kv_heads: int) -> dict[str, int]:
    types = dict.fromkeys(("x_desc", "weight_desc", "qkv_desc"), blocks(128, 64))
    types |= {"rstd_ptr": "*fp32", "cos_ptr": "*fp32", "sin_ptr": "*fp32", "q_scale": "fp32", "row_count": "i32"}
    constants = {"steps": 8, "length": 512, "heads": heads, "kv_heads": kv_heads, "head_dim": head_dim}
    constants |= {"group": rotary.GROUP, "stages": rotary.STAGES}
    return {f"queries, keys and values, {head_dim}": shared_memory(rotary._rotated_qkv, types, constants)}


def residual_kernel(length: int) -> dict[str, int]:
    types = dict.fromkeys(("x_desc", "weight_desc", "residual_desc", "total_desc"), blocks(128, 64))
    types |= {"square_sums_ptr": "*fp32", "dropout_keys_ptr": "*i64", "stream": "i32", "row_count": "i32"}
    constants = {"steps": 8, "length": length, "column_tiles": 4, "threshold": 2**32 // 10, "scale": 1 / 0.9}
    constants |= {"group": residual.GROUP, "stages": residual.STAGES}
    return {f"addition to the residual stream, {length}": shared_memory(residual._add_projection, types, constants)}


def dkdv_kernel(head_dim: int, heads: int, kv_heads: int) -> dict[str, int]:
    layout = gl.NVMMASharedLayout(swizzle_byte_width=0, element_bitwidth=32, rank=2)
    types = dict.fromkeys(("qkv_desc", "grad_desc"), blocks(64, head_dim))
    types |= {f"{name}_desc": f"tensordesc<fp32[1, 64],{layout!r}>" for name in ("lse", "delta")}
    types |= {"hash_desc": f"tensordesc<i32[1, 64],{layout!r}>", "key_hash_ptr": "*i32", "dqkv_ptr": "*bf16"}
    types |= dict.fromkeys(("rstd_ptr", "cos_ptr", "sin_ptr"), "*fp32") | dict.fromkeys(
        ("dk_scale", "dv_scale"), "fp32"
    )
    constants = {"length": 512, "heads": heads, "kv_heads": kv_heads, "head_dim": head_dim, "threshold": 2**32 // 10}
    constants |= {"stages": attention_dkdv.STAGES}
    kernel = attention_dkdv._attention_dkdv
    return {f"gradients of keys and values, {head_dim}": shared_memory(kernel, types, constants)}


if __name__ == "__main__":
    compiled = exp_logits_kernels() | swiglu_kernels(512, 1320) | swiglu_kernels(2048, 8192)
    for sizes in ((32, 16, 4), (64, 12, 12), (128, 6, 6)):
        compiled |= rotation_kernel(*sizes)
    for sizes in ((32, 16, 4), (64, 12, 12)):
        compiled |= dkdv_kernel(*sizes)
    for length in (512, 192):
        compiled |= residual_kernel(length)
    print(json.dumps(compiled))
