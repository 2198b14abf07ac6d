"""The fused attention kernels on one GPU: time by kernel, and other tiles than those of the table.

    PYTHONPATH=. python benchmarks/bench_attention.py                  # 32 heads of width 128 in 8 groups
    PYTHONPATH=. python benchmarks/bench_attention.py --try dkdv       # the table's tile and all that have room
    PYTHONPATH=. python benchmarks/bench_attention.py --head-dim 32 --heads 16 --kv-heads 4 --length 512 --windows 480

The default is the attention of Llama 3 8B. Times are those that torch's profiler gives for a kernel, means over 20
calls after warming up. TFLOP/s count the products of causal attention. Another tile is put into the table of
`fused/attention_tiles.py` while it is measured, and its results are compared with those of the table's tile.
"""

import argparse
import itertools
from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from triton.runtime.errors import OutOfResources, PTXASError

from stochastok_cli.models.llama.attention import rotary_table
from stochastok_cli.models.llama.fused import attention_tiles as tiles
from stochastok_cli.models.llama.fused.attention_backward import attention_backward
from stochastok_cli.models.llama.fused.attention_forward import attention_forward
from stochastok_cli.models.llama.fused.attention_tiles import Tile
from stochastok_cli.models.llama.fused.dropout import attention_hashes

CALLS = 20
KERNELS = {  # name, table, number of products
    "forward": ("_attention_forward", tiles.FORWARD, 2),
    "dq": ("_attention_backward_dq", tiles.DQ, 3),
    "dkdv": ("_attention_backward_dkdv", tiles.DKDV, 4),
}


def make_pass(options: argparse.Namespace) -> Callable[[], tuple[Tensor, Tensor]]:
    """A function that runs all three kernels, and returns the output and the gradient."""
    windows, length, heads, kv_heads, head_dim = (
        options.windows, options.length, options.heads, options.kv_heads, options.head_dim,
    )  # fmt: skip
    torch.manual_seed(0)

    def random(columns: int) -> Tensor:
        return torch.randn(windows * length, columns, device="cuda").bfloat16()

    qkv, grad, out = random((heads + 2 * kv_heads) * head_dim), random(heads * head_dim), random(heads * head_dim)
    qkv[:, : heads * head_dim] *= head_dim**-0.5
    query_hash = torch.empty(windows, heads, length, dtype=torch.int32, device="cuda")
    key_hash = torch.empty(windows, kv_heads, length, dtype=torch.int32, device="cuda")
    attention_hashes(torch.arange(windows, device="cuda"), 0, query_hash, key_hash)
    lse, delta = torch.empty(2, windows, heads, length, device="cuda")
    rotation, dqkv = rotary_table(head_dim, length).cuda(), torch.empty_like(qkv)
    rstd = torch.ones(windows * length, device="cuda")

    def run() -> tuple[Tensor, Tensor]:
        attention_forward(qkv, None, query_hash, key_hash, options.dropout, out, lse)
        attention_backward(
            qkv, out, grad, lse, None, query_hash, key_hash, rstd, rotation, options.dropout, delta, dqkv
        )  # fmt: skip
        return out, dqkv

    return run


def milliseconds(run: Callable[[], object]) -> dict[str, float]:
    """Of each kernel."""
    for _ in range(3):
        run()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profiler:
        for _ in range(CALLS):
            run()
        torch.cuda.synchronize()
    times = {event.key: event.device_time_total / CALLS / 1e3 for event in profiler.key_averages()}
    return {
        name: sum(time for key, time in times.items() if key.startswith(kernel))
        for name, (kernel, _, _) in KERNELS.items()
    }


def candidates(kernel: str, options: argparse.Namespace) -> Iterator[tuple[int, Tile]]:
    """Heads of a tile, and tiles, that make up the window and have room in shared memory."""
    group = options.heads // options.kv_heads
    for heads, block_q, block_k, warps, stages, registers, unrolled in itertools.product(
        (1, 2, 4), (16, 32, 64, 128), (32, 64, 128), (4, 8), (2, 3), (None, 96, 128, 168), (1, 2, 4)
    ):
        tile = Tile(block_q, block_k, warps, stages, registers, unrolled)
        if kernel == "dkdv":
            rows, sums = block_k, 2 * block_k * options.head_dim
            size = tiles.dkdv_shared_memory(tile, options.head_dim, heads * unrolled)
        else:
            rows, sums = heads * block_q, heads * block_q * options.head_dim
            size = getattr(tiles, f"{kernel}_shared_memory")(tile, options.head_dim, heads)
        scores = (1 if kernel == "forward" else 2) * heads * block_q * block_k
        limits = (
            options.length % max(block_q, block_k) == group % (heads * unrolled) == 0,
            unrolled == 1 or kernel == "dkdv",
            rows in (64, 128, 256) and rows >= 16 * warps,
            kernel != "dkdv" or block_k % block_q == 0,
            size <= tiles.SHARED_MEMORY,
            (sums + scores) / (32 * warps) <= min(220, registers or 255),
        )
        if all(limits):
            yield heads, tile


def report(name: str, time: float, options: argparse.Namespace, note: str = "") -> None:
    products = KERNELS[name][2] * options.windows * options.heads * options.length**2 * options.head_dim  # causal
    print(f"{name:8} {time:8.3f} ms {products / time / 1e9:6.0f} TFLOP/s   {note}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, default in {"head-dim": 128, "heads": 32, "kv-heads": 8, "length": 4096, "windows": 4}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--dropout", type=float, default=0.0)
    parser.add_argument("--try", dest="kernel", choices=list(KERNELS), help="measure other tiles of this kernel")
    options = parser.parse_args()
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, {options}")
    run = make_pass(options)
    expected = [result.clone() for result in run()]
    for name, time in milliseconds(run).items():
        heads, tile = tiles.choose(
            KERNELS[name][1][options.head_dim], options.length, options.heads // options.kv_heads
        )
        report(name, time, options, f"{heads} x {tile}")
    if options.kernel is None:
        return
    table, found = KERNELS[options.kernel][1], []
    for heads, tile in candidates(options.kernel, options):
        table[options.head_dim] = {heads: tile}
        try:
            time = milliseconds(run)[options.kernel]
        except (OutOfResources, PTXASError) as error:
            print(f"{heads} x {tile}: {type(error).__name__}")
            continue
        errors = [
            ((a.float() - e.float()).norm() / e.float().norm()).item() for a, e in zip(run(), expected, strict=True)
        ]
        found.append((time, f"{heads} x {tile}" + ("" if max(errors) < 1e-2 else f"  WRONG: {max(errors):.1e}")))
        report(options.kernel, *found[-1][:1], options, found[-1][1])
    print("fastest:")
    for time, note in sorted(found)[:5]:
        report(options.kernel, time, options, note)


if __name__ == "__main__":
    main()
