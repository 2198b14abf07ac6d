"""Training iterations of the shipped model on one GPU: the fused and reference kernels, and a compiled baseline.

    python benchmarks/bench_training_step.py                  # all; the fused ones on packed instruction data too
    python benchmarks/bench_training_step.py --profile        # where the fused step's time goes as well
    python benchmarks/bench_training_step.py --only fused model.context_window=2048 …      # another configuration
    python benchmarks/bench_training_step.py --only fused,launched trainer.training.gradient_accumulation_steps=1

An iteration is 480 windows of 512 tokens, forward and backward pass with dropout 0.1, clipping and AdamW. Token ids
follow Zipf's law and are already on the device; instruction data are examples of 30 to 60 tokens packed end to end,
with the loss on their last two. The baseline is what plain PyTorch does best with this model: modules under
`torch.compile`, fused projections, cuDNN's attention, the vocabulary padded to 50,304, a head that writes its gradient
over the logits, 8 micro-batches of 60. It has no packed data (that would need a dense mask), so both kinds are
compared with the one. Times are medians of whole iterations after several seconds of warm-up: at its power limit a
card slows down.
"""

import argparse
import itertools
import time
from collections.abc import Callable
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from stochastok_cli.config import Config, ModelConfig, load_config
from stochastok_cli.models.llama.attention import rotary_table
from stochastok_cli.models.llama.model import NORM_EPS, Llama
from stochastok_cli.training.backends import windows_per_iteration

DROPOUT, RATE = 0.1, 1e-4
WINDOWS, LENGTH, VOCAB = 480, 512, 50257  # those of the overrides, where there are any
BETAS, EPS, DECAY, CLIP = (0.9, 0.95), 1e-8, 0.1, 1.0
OURS: dict[str, dict[str, Any]] = {
    "fused": {"kernels": "fused"},
    "launched": {"kernels": "fused", "cuda_graphs": False},
    "instruction": {"kernels": "fused", "packed": True},
    "fp8": {"kernels": "fused", "fp8": True},
    "reference": {"kernels": "reference"},
}
MFLOP_A_TOKEN = 295.75  # of the shipped model: three products of each weight, and the attention
OVERRIDES: list[str] = []


def configuration(*overrides: str) -> Config:
    """The shipped pretraining configuration with the overrides of the command line and of a row."""
    return load_config("pretraining", [*OVERRIDES, *overrides])


def set_configuration(overrides: list[str]) -> None:
    """Measures another configuration than the shipped one."""
    global OVERRIDES, WINDOWS, LENGTH, VOCAB, MFLOP_A_TOKEN
    OVERRIDES = overrides
    config = configuration()
    WINDOWS, LENGTH, VOCAB = (
        windows_per_iteration(config.trainer.training),
        config.model.context_window,
        config.model.vocab_size,
    )
    with torch.device("meta"):
        MFLOP_A_TOKEN = Llama(config.model).flops_per_token(LENGTH) / 1e6


def zipf_ids(*shape: int) -> Tensor:
    weights = 1.0 / (torch.arange(VOCAB, device="cuda") + 2.7)
    return torch.multinomial(weights, shape[0] * shape[1], replacement=True).view(shape)


def instruction_data() -> tuple[Tensor, Tensor]:
    """Segment starts (int32) and token weights (float32), both `[WINDOWS, LENGTH]`."""
    first, weights = torch.zeros(WINDOWS, LENGTH, dtype=torch.int32), torch.zeros(WINDOWS, LENGTH)
    for row in range(WINDOWS):
        start = 0
        while start < LENGTH:
            end = start + int(torch.randint(30, 61, ()))
            first[row, start:end] = start
            weights[row, end - 2 : end] = 1
            start = end
        weights[row] /= weights[row].sum().clamp(min=1)
    return first.cuda(), weights.cuda()


def measure(iterate: Callable[[], object], iterations: int) -> tuple[float, float, float]:
    """Seconds until the first iteration was done, median milliseconds of one, peak GiB."""
    torch.cuda.reset_peak_memory_stats()
    start = time.perf_counter()
    iterate()
    torch.cuda.synchronize()
    compiled = time.perf_counter() - start
    marks = [torch.cuda.Event(enable_timing=True) for _ in range(iterations + 1)]
    for _ in range(max(iterations // 2, 3)):
        iterate()
    marks[0].record()
    for mark in marks[1:]:
        iterate()
        mark.record()
    torch.cuda.synchronize()
    times = sorted(a.elapsed_time(b) for a, b in itertools.pairwise(marks))
    return compiled, times[len(times) // 2], torch.cuda.max_memory_allocated() / 2**30


def report(name: str, measured: tuple[float, float, float], dense: bool = True) -> float:
    """Prints a line and returns tokens a second. Only work that is all done has a rate of operations."""
    compiled, milliseconds, memory = measured
    tokens = WINDOWS * LENGTH / milliseconds * 1e3
    rate = f"{tokens * MFLOP_A_TOKEN / 1e6:4.0f} TFLOP/s" if dense else " " * 12
    print(
        f"{name:24} {milliseconds:7.1f} ms {tokens / 1e6:6.3f} M tokens/s {rate} {memory:5.1f} GiB   "
        f"first iteration {compiled:5.1f} s",
        flush=True,
    )
    return tokens


# ------------------------------------------------------------------------------------------------ our own step


def ours(kernels: str, *, packed: bool = False, fp8: bool = False, cuda_graphs: bool = True) -> Callable[[], Tensor]:
    """An iteration of `stochastok train`, without the drawing of windows. Without
    `cuda_graphs`, each kernel is launched by itself."""
    from stochastok_cli.data.samplers import Batch
    from stochastok_cli.models.llama.fused.step import LlamaFusedStep
    from stochastok_cli.training.backends import FusedBackend
    from stochastok_cli.training.distributed import DistributedContext
    from stochastok_cli.training.trainer import TrainingStep

    config = configuration(f"general.kernels={kernels}", f"trainer.training.fp8_logits={str(fp8).lower()}")
    torch.manual_seed(0)
    world = DistributedContext(0, 1, torch.device("cuda", 0))
    step = TrainingStep(
        Llama(config.model, config.trainer.dropout_scheduler.dropout).cuda(), config, world, fused=kernels == "fused"
    )
    if kernels == "fused" and not cuda_graphs:
        fused_step = cast(FusedBackend, step.backend).step
        cast(LlamaFusedStep, fused_step).uses_cuda_graphs = False
    ids = zipf_ids(WINDOWS, LENGTH + 1)
    if packed:
        segment_start, token_weights = instruction_data()
    else:
        segment_start, token_weights = None, torch.full((WINDOWS, LENGTH), 1 / LENGTH, device="cuda")
    batches = []
    for index in map(torch.from_numpy, step.micro_batches):
        weights = token_weights[index]
        visible = None if segment_start is None else segment_start[index]
        batches.append(Batch(ids[index], visible, weights, int((weights != 0).sum())))
    iteration = itertools.count()

    def iterate() -> Tensor:
        step(next(iteration), iter(batches))
        return step.parallel.loss

    return iterate


# ------------------------------------------------------------------------------------------------ the baseline


class _Norm(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        wide = x.float()
        return (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + NORM_EPS)).to(x.dtype) * self.weight.to(
            x.dtype
        )


class _Block(nn.Module):
    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width, ffn = config.hidden_dim, config.core_model.ffn.ffn_dim
        self.heads, self.groups, self.head_dim = config.core_model.attn.num_heads, config.kv_heads, config.head_dim
        self.attention_norm, self.ffn_norm = _Norm(width), _Norm(width)
        self.qkv = nn.Linear(width, (self.heads + 2 * self.groups) * self.head_dim, bias=False)
        self.output = nn.Linear(width, width, bias=False)
        self.gate_up, self.down = nn.Linear(width, 2 * ffn, bias=False), nn.Linear(ffn, width, bias=False)

    def _turn(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        first, second = x.chunk(2, dim=-1)
        return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        heads = self.qkv(self.attention_norm(x)).unflatten(-1, (-1, self.head_dim))
        q, k, v = heads.split((self.heads, self.groups, self.groups), dim=2)
        q, k = self._turn(q, cos, sin).transpose(1, 2), self._turn(k, cos, sin).transpose(1, 2)
        k, v = (t.repeat_interleave(self.heads // self.groups, dim=1) for t in (k, v.transpose(1, 2)))
        attended = F.scaled_dot_product_attention(q, k, v, dropout_p=DROPOUT, is_causal=True)
        x = x + F.dropout(self.output(attended.transpose(1, 2).flatten(2)), DROPOUT)
        gate, up = self.gate_up(self.ffn_norm(x)).chunk(2, dim=-1)
        return x + self.down(F.silu(gate) * up)


class _Baseline(nn.Module):
    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.vocab = config.vocab_size
        self.embedding = nn.Embedding(-(-config.vocab_size // 128) * 128, config.hidden_dim)
        nn.init.normal_(self.embedding.weight, std=0.02)
        self.layers = nn.ModuleList(_Block(config) for _ in range(config.core_model.num_layers))
        self.norm = _Norm(config.hidden_dim)
        cos, sin = rotary_table(config.head_dim, LENGTH)[:, :, None, : config.head_dim // 2].bfloat16()
        self.register_buffer("cos", cos)
        self.register_buffer("sin", sin)

    def forward(self, ids: Tensor) -> Tensor:
        x = F.dropout(self.embedding(ids).bfloat16(), DROPOUT)
        for layer in self.layers:
            x = layer(x, self.cos, self.sin)
        return self.norm(x).flatten(0, 1)


@torch.compile
def _logit_gradients(logits: Tensor, targets: Tensor, vocab: int) -> tuple[Tensor, Tensor]:
    column = torch.arange(logits.shape[1], device=logits.device)
    wide = torch.where(column < vocab, logits.float(), -torch.inf)
    norm = torch.logsumexp(wide, 1, keepdim=True)
    loss = (norm - wide.gather(1, targets[:, None])).mean()
    return loss, ((torch.exp(wide - norm) - (column == targets[:, None]).float()) / len(logits)).bfloat16()


class _HeadLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx, hidden: Tensor, weight: Tensor, targets: Tensor, vocab: int) -> Tensor:
        rounded = weight.bfloat16()
        loss, grad = _logit_gradients(hidden @ rounded.T, targets, vocab)
        weight_grad = torch.empty_like(weight)
        torch.ops.aten.mm.dtype_out(grad.T, hidden, torch.float32, out=weight_grad)
        ctx.save_for_backward(grad @ rounded, weight_grad)
        return loss

    @staticmethod
    def backward(ctx, grad: Tensor):
        hidden_grad, weight_grad = ctx.saved_tensors
        return hidden_grad * grad.bfloat16(), weight_grad * grad, None, None


def baseline(micro_batches: int = 8) -> Callable[[], None]:
    model = _Baseline(ModelConfig()).cuda()
    compiled = torch.compile(model)
    groups = [
        {"params": [p for p in model.parameters() if p.dim() > 1], "weight_decay": DECAY},
        {"params": [p for p in model.parameters() if p.dim() < 2], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=RATE, betas=BETAS, eps=EPS, fused=True)
    batches = zipf_ids(WINDOWS, LENGTH + 1).split(WINDOWS // micro_batches)

    def iterate() -> None:
        for ids in batches:
            with sdpa_kernel([SDPBackend.CUDNN_ATTENTION]), torch.autocast("cuda", torch.bfloat16):
                hidden = compiled(ids[:, :-1])
                loss = _HeadLoss.apply(hidden, model.embedding.weight, ids[:, 1:].flatten(), model.vocab)
            (loss / micro_batches).backward()
        nn.utils.clip_grad_norm_(model.parameters(), CLIP, foreach=True)
        optimizer.step()
        optimizer.zero_grad(set_to_none=False)

    return iterate


def print_profile(iterate: Callable[[], object], rows: int = 32) -> None:
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profiler:
        for _ in range(3):
            iterate()
        torch.cuda.synchronize()
    events = sorted(profiler.key_averages(), key=lambda e: -e.device_time_total)
    print(f"  {sum(e.device_time_total for e in events) / 3e3:8.2f} ms on the device an iteration")
    for event in events[:rows]:
        print(f"  {event.device_time_total / 3e3:8.2f} ms {event.count // 3:4} x {event.key[:90]}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--iterations", type=int, default=50)
    parser.add_argument("--only", default="", metavar="ROW,ROW", help=f"of baseline, {', '.join(OURS)}")
    parser.add_argument("--profile", action="store_true")
    parser.add_argument(
        "overrides", nargs="*", help="of the configuration, for `--only fused` and the other rows of ours"
    )
    options = parser.parse_args()
    rows = options.only.split(",") if options.only else ["baseline", *OURS]
    if unknown := set(rows) - {"baseline", *OURS}:
        parser.error(f"--only: there is no row {', '.join(sorted(unknown))}")
    if options.overrides:
        if "baseline" in rows:
            parser.error("the baseline has one configuration: overrides go with --only, for another row")
        set_configuration(options.overrides)
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}")

    speed = {}
    for kind, how in OURS.items():
        if kind in rows:
            iterate = ours(**how)
            iterations = options.iterations if how["kernels"] == "fused" else options.iterations // 2
            speed[kind] = report(kind, measure(iterate, iterations), dense=not how.get("packed"))
            if options.profile:
                print_profile(iterate)
            del iterate
            torch.cuda.empty_cache()
    if "baseline" in rows:
        base = report("baseline", measure(baseline(), options.iterations // 2))
        for kind, tokens in speed.items():
            print(f"{kind}: {tokens / base:.2f} x the baseline on pretraining data")


if __name__ == "__main__":
    main()
