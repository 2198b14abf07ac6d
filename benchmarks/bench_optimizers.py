"""One step of the optimizer on the shipped model: AdamW, Muon with AdamW, and `torch.optim.Muon` for the matrices.

    python benchmarks/bench_optimizers.py                  # on the GPU; without one, on a CPU
    python benchmarks/bench_optimizers.py --config speedrun --rounds 20

All sides train copies of one model with the same random gradients, clipped and with the check for gradients that are
not finite; `muon, launched` without CUDA graphs. They take turns in one process: a round has `--steps` steps of each
side, in another order each time. Times are medians over rounds of the milliseconds of a step, without the first round.
`host` is the time in which the process launches the work of a step, which training spends while the GPU is still busy;
on a CPU it is the step itself. Kernels are those that the profiler counts on the GPU. `torch.optim.Muon` has no
clipping, no skipping, and takes a weight that holds several projections as one matrix, so it does less.
"""

import argparse
import dataclasses
import itertools
import statistics
import time
from collections.abc import Callable

import torch

from stochastok_cli.config import Config, OptimizerConfig, load_config
from stochastok_cli.models.llama.model import Llama
from stochastok_cli.training.muon import MuonWithAuxAdamW
from stochastok_cli.training.optimizers import clip_or_skip_update, make_optimizer, muon_weights

Step = Callable[[], object]


def ours(config: Config, optimizer: OptimizerConfig, device: torch.device, *, cuda_graphs: bool = True) -> Step:
    """A step of `stochastok train`. Without `cuda_graphs`, each kernel of Muon is launched by itself."""
    model = _model_with_gradients(config, device)
    updates = make_optimizer(model, optimizer)
    if isinstance(updates, MuonWithAuxAdamW):
        updates.uses_cuda_graphs = cuda_graphs
    norm, skip = torch.tensor(4.0, device=device), torch.tensor(False, device=device)

    def step() -> None:
        clip_or_skip_update(updates, norm, optimizer.grad_clip, skip=skip)
        updates.step()

    return step


def of_torch(config: Config, optimizer: OptimizerConfig, device: torch.device) -> Step:
    """`torch.optim.Muon` for the same matrices, and the fused AdamW for the rest."""
    model = _model_with_gradients(config, device)
    matrices = muon_weights(model)
    rest = [parameter for parameter in model.parameters() if parameter not in matrices]
    muon = torch.optim.Muon([*matrices], lr=optimizer.muon_lr)
    adamw = torch.optim.AdamW(rest, lr=optimizer.lr, fused=True)
    return lambda: (muon.step(), adamw.step())


def _model_with_gradients(config: Config, device: torch.device) -> Llama:
    torch.manual_seed(0)
    model = Llama(config.model).to(device)
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter) * 1e-3
    return model


def measure(step: Step, steps: int, device: torch.device) -> tuple[float, float]:
    """Milliseconds of a step, and those in which the process launches it."""
    _synchronize(device)
    began = time.perf_counter()
    for _ in range(steps):
        step()
    launched = time.perf_counter()
    _synchronize(device)
    done = time.perf_counter()
    return (done - began) / steps * 1e3, (launched - began) / steps * 1e3


def count_kernels(step: Step) -> int:
    """How many kernels a step launches on the GPU, copies included."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profiler:
        step()
        torch.cuda.synchronize()
    return sum(event.count for event in profiler.key_averages() if event.device_time_total > 0)


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", default="speedrun", help="has the model and the options of the optimizers")
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--steps", type=int, help="of each side in a round; 50 on a GPU, 2 on a CPU")
    options = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    steps = options.steps or (50 if device.type == "cuda" else 2)
    name = torch.cuda.get_device_name() if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    config = load_config(options.config)
    optimizer = config.trainer.optimizer
    muon = dataclasses.replace(optimizer, name="muon")
    sides = {
        "adamw": ours(config, dataclasses.replace(optimizer, name="adamw"), device),
        "muon": ours(config, muon, device),
        "muon, launched": ours(config, muon, device, cuda_graphs=False),
        "torch.optim.Muon": of_torch(config, optimizer, device),
    }
    parameters = Llama(config.model).num_parameters()
    print(f"{name}, torch {torch.__version__}, {parameters:,} parameters, {options.rounds} rounds of {steps} steps")
    times: dict[str, list[tuple[float, float]]] = {side: [] for side in sides}
    orders = itertools.cycle(itertools.permutations(sides))
    for _ in range(options.rounds):
        for side in next(orders):
            times[side].append(measure(sides[side], steps, device))
    for side, measured in times.items():
        total, host = (statistics.median(one) for one in zip(*measured[1:], strict=True))
        kernels = f"{count_kernels(sides[side]):5} kernels" if device.type == "cuda" else ""
        print(f"{side:18} {total:9.3f} ms a step, host {host:9.3f} ms {kernels}")


if __name__ == "__main__":
    main()
