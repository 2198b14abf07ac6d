"""Training iterations of models of `transformers` on one or more GPUs: `stochastok train`'s step and a plain loop.

    python benchmarks/bench_huggingface.py --shape gpt2
    torchrun --standalone --nproc-per-node 2 benchmarks/bench_huggingface.py --shape llama-1b --parallel shard

Shapes have random weights. The side "plain" is a loop of what Hugging Face's `Trainer` runs with `bf16=True`: float32
weights, the model called with labels under bfloat16 autocast, sdpa attention, clipping, fused AdamW. The side
"trainer" is `Trainer` itself; it needs `accelerate`, and CUDA_VISIBLE_DEVICES must name one GPU. An iteration is one
micro-batch on each rank. The sides run in one process, one after the other, twice, with the same ids. Each run prints a
line of JSON.
"""

import argparse
import gc
import itertools
import json
import tempfile
import time
from collections.abc import Callable
from typing import Any

import torch
import transformers
from torch import Tensor

from stochastok_cli.config import config_from_dict
from stochastok_cli.data.samplers import Batch
from stochastok_cli.models.huggingface import HuggingFaceModel
from stochastok_cli.training.distributed import DistributedContext, distributed_context
from stochastok_cli.training.flops import peak_flops
from stochastok_cli.training.trainer import TrainingStep

_LLAMA_3_2: dict[str, Any] = {
    "vocab_size": 128256,
    "rope_parameters": {"rope_type": "default", "rope_theta": 500000.0},
    "max_position_embeddings": 8192,
    "tie_word_embeddings": True,
    "head_dim": 128,
    "num_key_value_heads": 8,
    "intermediate_size": 8192,
}
SHAPES = {
    "gpt2": (lambda: transformers.GPT2Config(attn_pdrop=0.0, embd_pdrop=0.0, resid_pdrop=0.0), 32, 1024),
    "qwen3-0.6b": (
        lambda: transformers.Qwen3Config(
            vocab_size=151936,
            hidden_size=1024,
            intermediate_size=3072,
            num_hidden_layers=28,
            num_attention_heads=16,
            num_key_value_heads=8,
            head_dim=128,
            tie_word_embeddings=True,
        ),
        8,
        2048,
    ),
    "llama-1b": (
        lambda: transformers.LlamaConfig(
            **{**_LLAMA_3_2, "head_dim": 64}, hidden_size=2048, num_hidden_layers=16, num_attention_heads=32
        ),
        8,
        2048,
    ),
    "llama-3b": (
        lambda: transformers.LlamaConfig(**_LLAMA_3_2, hidden_size=3072, num_hidden_layers=28, num_attention_heads=24),
        2,
        4096,
    ),
}
"""By name: the configuration, the windows of a micro-batch, the tokens of a window."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="gpt2")
    parser.add_argument("--windows", type=int, help="windows of a micro-batch; default: that of the shape")
    parser.add_argument("--parallel", choices=["auto", "replicate", "shard"], default="auto")
    parser.add_argument("--iterations", type=int, default=10)
    parser.add_argument("--sides", default="plain,ours,plain,ours")
    parser.add_argument("--checkpointing", action="store_true", help="compute activations again in the backward pass")
    parser.add_argument("--profile", action="store_true", help="print the kernels that take most time of our iteration")
    arguments = parser.parse_args()
    make_config, windows, length = SHAPES[arguments.shape]
    windows = arguments.windows or windows
    with distributed_context("cuda") as world:
        generator = torch.Generator("cuda").manual_seed(world.rank)
        ids = torch.randint(make_config().vocab_size, (windows, length + 1), device="cuda", generator=generator)
        for side in arguments.sides.split(","):
            torch.manual_seed(0)
            with torch.device("cuda"):
                model = transformers.AutoModelForCausalLM.from_config(make_config(), dtype=torch.float32)
            wrapper = HuggingFaceModel(model.eval(), length).train()
            flops = wrapper.flops_per_token(length)
            iterate: Callable[[], Tensor] | None = None
            if side == "trainer":
                first, milliseconds, losses = measure_trainer(wrapper.model, ids, arguments.iterations)
            else:
                if side == "plain":
                    iterate = plain(wrapper.model, ids)
                else:
                    iterate = ours(wrapper, ids, world, arguments.parallel, arguments.checkpointing)
                first, milliseconds, losses = measure(iterate, arguments.iterations)
            if world.is_main:
                rate = windows * length * world.world_size / milliseconds * 1e3
                peak = peak_flops(world.device)
                share = None if peak is None else round(rate * flops / peak / world.world_size, 3)
                line = {
                    "shape": arguments.shape,
                    "side": side,
                    "ranks": world.world_size,
                    "tokens": windows * length,
                    "ms": round(milliseconds, 1),
                    "tokens_per_second": round(rate),
                    "share_of_peak": share,
                    "gib": round(torch.cuda.max_memory_allocated() / 2**30, 1),
                    "first_iteration_s": round(first, 1),
                    "losses": losses,
                }
                print(json.dumps(line), flush=True)
            if arguments.profile and side == "ours" and iterate is not None:
                table = kernels(iterate)
                if world.is_main:
                    print(table)
            del iterate, model, wrapper
            gc.collect()
            torch.cuda.empty_cache()


def measure(iterate: Callable[[], Tensor], iterations: int) -> tuple[float, float, list[float]]:
    """Seconds of the first iteration, median milliseconds of the later ones, and the losses of the first and last."""
    torch.cuda.reset_peak_memory_stats()
    began = time.perf_counter()
    first_loss = iterate().item()
    first = time.perf_counter() - began
    for _ in range(warm_up(iterations)):
        iterate()
    marks = [torch.cuda.Event(enable_timing=True) for _ in range(iterations + 1)]
    marks[0].record()
    loss = torch.zeros(())
    for mark in marks[1:]:
        loss = iterate()
        mark.record()
    return first, median_milliseconds(marks), [round(first_loss, 4), round(loss.item(), 4)]


def measure_trainer(
    model: transformers.PreTrainedModel, ids: Tensor, iterations: int
) -> tuple[float, float, list[float]]:
    """As `measure`, of `transformers.Trainer`, which runs the loop itself."""
    if torch.cuda.device_count() != 1:
        raise SystemExit("CUDA_VISIBLE_DEVICES must name one GPU: Trainer spreads a batch over all that it sees")
    rows = ids[:, :-1].cpu()
    steps = 1 + warm_up(iterations) + iterations
    dataset = [{"input_ids": row, "labels": row} for row in rows] * steps
    marks: list[torch.cuda.Event] = []
    losses: list[Tensor] = []

    class Timed(transformers.Trainer):
        def training_step(self, *args: Any, **kwargs: Any) -> Tensor:
            loss = super().training_step(*args, **kwargs)
            losses.append(loss.detach())
            return loss

    class Mark(transformers.TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            marks.append(torch.cuda.Event(enable_timing=True))
            marks[-1].record()

    torch.cuda.reset_peak_memory_stats()
    with tempfile.TemporaryDirectory() as folder:
        settings = transformers.TrainingArguments(
            folder,
            bf16=True,
            max_steps=steps,
            per_device_train_batch_size=len(rows),
            learning_rate=1e-4,
            lr_scheduler_type="constant",
            weight_decay=0.1,
            adam_beta2=0.95,
            optim="adamw_torch_fused",
            save_strategy="no",
            logging_strategy="no",
            report_to=[],
            disable_tqdm=True,
        )
        trainer = Timed(model, settings, train_dataset=dataset, callbacks=[Mark()])
        began = time.perf_counter()
        trainer.train()
        whole = time.perf_counter() - began
    timed = marks[-iterations - 1 :]
    milliseconds = median_milliseconds(timed)
    first = whole - milliseconds / 1e3 * (steps - 1)
    return first, milliseconds, [round(losses[0].item(), 4), round(losses[-1].item(), 4)]


def warm_up(iterations: int) -> int:
    """How many iterations after the first run before the timed ones."""
    return max(iterations // 2, 3)


def median_milliseconds(marks: list[torch.cuda.Event]) -> float:
    """The median time between neighbouring events."""
    torch.cuda.synchronize()
    times = sorted(a.elapsed_time(b) for a, b in itertools.pairwise(marks))
    return times[len(times) // 2]


def kernels(iterate: Callable[[], Tensor]) -> str:
    """A table of the kernels of an iteration that take most time."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        iterate()
        torch.cuda.synchronize()
    rows = sorted(profile.key_averages(), key=lambda row: -row.self_device_time_total)
    return "\n".join(f"{row.self_device_time_total / 1e3:8.2f} ms {row.count:5} x {row.key[:110]}" for row in rows[:28])


def plain(model: transformers.PreTrainedModel, ids: Tensor) -> Callable[[], Tensor]:
    """An iteration of the plain loop, on one GPU."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, betas=(0.9, 0.95), weight_decay=0.1, fused=True)

    def iterate() -> Tensor:
        with torch.autocast("cuda", torch.bfloat16):
            loss = model(ids[:, :-1], labels=ids[:, :-1], use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        return loss.detach()

    return iterate


def ours(
    model: HuggingFaceModel, ids: Tensor, world: DistributedContext, parallel: str, checkpointing: bool
) -> Callable[[], Tensor]:
    """An iteration of `stochastok train`, without the drawing of windows."""
    windows, length = ids.shape[0], ids.shape[1] - 1
    training = {
        "batch_size": windows,
        "gradient_accumulation_steps": world.world_size,
        "warmup_iters": 0,
        "activation_checkpointing": checkpointing,
    }
    tree = {
        "model": {"context_window": length},
        "trainer": {"training": training, "optimizer": {"lr": 1e-4, "min_lr": 1e-4}, "parallel": parallel},
    }
    step = TrainingStep(model, config_from_dict(tree, "this benchmark"), world)
    weights = torch.full((windows, length), 1 / length, device="cuda")
    batch = Batch(ids, None, weights, windows * length)
    iteration = itertools.count()

    def iterate() -> Tensor:
        step(next(iteration), iter([batch]))
        return step.parallel.loss

    return iterate


if __name__ == "__main__":
    main()
