"""`plan`: the time, memory and disk that a run will take, measured on this machine. Nothing is written."""

import dataclasses
import math
import os
import resource
import shutil
import sys
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import torch

from stochastok_cli.config import Config, TrainingConfig
from stochastok_cli.data.samplers import WindowSampler
from stochastok_cli.evaluation.base import LoadedEvaluator
from stochastok_cli.evaluation.run import run_evaluators
from stochastok_cli.evaluation.scoring import LM
from stochastok_cli.paths import nearest_existing_path
from stochastok_cli.tokenization.methods import require_method
from stochastok_cli.training import flops, schedules, setup
from stochastok_cli.training.data import Data
from stochastok_cli.training.distributed import DistributedContext, device_name, distributed_context
from stochastok_cli.training.prefetch import prefetch
from stochastok_cli.training.setup import Run, RunInputs
from stochastok_cli.training.sharded import Sharded
from stochastok_cli.training.throughput import tokens_per_iteration
from stochastok_cli.training.trainer import TrainingStep, explain_lack_of_memory, windows_of_rank
from stochastok_cli.training.validation import validations

SECONDS = 5.0  # how long iterations are measured, at least one
VALIDATION_BATCHES = 4, 16  # sizes of the measured validations, in batches per rank, at least
VALIDATION_PASSES = 2, 6  # the same in forward passes, at least; the fused kernels take several batches in one
QUESTIONS = 50, 200  # sizes of the measured evaluations, in questions of each benchmark


@dataclass(frozen=True)
class Plan:
    """The rest of a run, and what it takes.

    Attributes:
        folder: The run's folder.
        device: The name of a rank's device.
        ranks: The number of ranks.
        kernels: The backend, "reference" or "fused".
        parameters: The number of parameters that are trained.
        iterations: Those left to do.
        tokens_per_iteration: Over all ranks.
        dataset_tokens: Tokens of the training split; None for questions, whose number of tokens is not fixed.
        flops_per_token: Forward and backward.
        compile_seconds: Before the first iteration.
        seconds_per_iteration: Measured.
        utilization: The fraction of the GPUs' peak (MFU); None where the peak is unknown.
        memory: Bytes, the most that rank 0 used: on its GPU, or on a CPU of the process.
        memory_total: Bytes of the GPU, or of the machine.
        windows_at_once: How many windows rank 0 computes at once.
        recomputes_activations: Whether the backward pass computes activations again, as configured or for lack of
            memory.
        host_copies: Bytes that `async_save` takes of rank 0's host memory; 0 without it.
        host_memory_total: Bytes of the machine.
        checkpoint_bytes: The size of a checkpoint.
        checkpoints: The most that are on disk at once, with the one being written.
        disk_free: Bytes, where the run's folder will be.
        evaluations: Those left to do.
        seconds_per_evaluation: Measured on smaller ones.
        expansion: Method and p of the expansion of the iterations left; None where windows are not expanded.
        notes: What the run would say when it starts, such as values of the configuration that a checkpoint replaces.
    """

    folder: Path
    device: str
    ranks: int
    kernels: str
    parameters: int
    iterations: int
    tokens_per_iteration: int
    dataset_tokens: int | None
    flops_per_token: int
    compile_seconds: float
    seconds_per_iteration: float
    utilization: float | None
    memory: int
    memory_total: int
    windows_at_once: int
    recomputes_activations: bool
    host_copies: int
    host_memory_total: int
    checkpoint_bytes: int
    checkpoints: int
    disk_free: int
    evaluations: int
    seconds_per_evaluation: float
    expansion: str | None
    notes: list[str]

    @property
    def tokens(self) -> int:
        """Tokens left to train on."""
        return self.iterations * self.tokens_per_iteration

    @property
    def training_seconds(self) -> float:
        """Compiling and all iterations."""
        return self.compile_seconds + self.iterations * self.seconds_per_iteration

    @property
    def evaluation_seconds(self) -> float:
        """All evaluations."""
        return self.evaluations * self.seconds_per_evaluation

    @property
    def seconds(self) -> float:
        """Everything except writing checkpoints."""
        return self.training_seconds + self.evaluation_seconds


def plan(config: Config, *, run_name: str | None = None, force: bool = False) -> Plan | Path:
    """Opens and checks everything that `train` would, and measures a few iterations and parts of an evaluation.

    All ranks call it, and all get the same result. It raises what `train` would.

    Args:
        config: As for `train`.
        run_name: As for `train`.
        force: Plan the whole run, even where the folder holds a part of it.

    Returns:
        The plan; only the run's folder if the run is complete.
    """
    with distributed_context(config.general.device) as world:
        run = setup.resolve_run(config, world, run_name, force=force)
        if run.progress.is_complete(run.config):
            return run.folder
        return _measure(run, setup.load_inputs(run))


def _measure(run: Run, inputs: RunInputs) -> Plan:
    config, world, training = run.config, run.world, run.config.trainer.training
    start = run.progress.iteration
    measured = config if world.device.type == "cuda" else _one_micro_batch(config, world)
    step = TrainingStep(inputs.model, measured, world, fused=run.fused)
    compile_seconds, seconds = _measure_iterations(step, measured, inputs.data, world)
    seconds *= training.gradient_accumulation_steps / measured.trainer.training.gradient_accumulation_steps
    seconds_per_evaluation = _measure_evaluation(step, config, inputs, world)
    first_due = start if run.progress.state is None or run.progress.state.evaluation_pending else start + 1
    tokens = tokens_per_iteration(config)
    memory, memory_total = _memory(world.device)
    sharded = isinstance(step.parallel, Sharded)
    return Plan(
        folder=run.folder,
        device=device_name(world.device),
        ranks=world.world_size,
        kernels=step.backend.name,
        parameters=inputs.model.num_parameters(),
        iterations=training.max_iters - start,
        tokens_per_iteration=tokens,
        dataset_tokens=len(inputs.data.train.ids) if isinstance(inputs.data.train, WindowSampler) else None,
        flops_per_token=inputs.model.flops_per_token(config.model.context_window),
        compile_seconds=compile_seconds,
        seconds_per_iteration=seconds,
        utilization=flops.utilization(tokens / seconds, inputs.model, config, world),
        memory=memory,
        memory_total=memory_total,
        windows_at_once=step.backend.windows_at_once,
        recomputes_activations=step.backend.recomputes_activations,
        host_copies=flops.async_save_bytes(inputs.model, config, sharded=sharded) if training.async_save else 0,
        host_memory_total=_host_memory_total(),
        checkpoint_bytes=flops.checkpoint_bytes(inputs.model, config),
        checkpoints=_checkpoints_at_once(start, training),
        disk_free=shutil.disk_usage(nearest_existing_path(run.folder)).free,
        evaluations=schedules.count_due(training.eval_interval, first_due, training.max_iters),
        seconds_per_evaluation=seconds_per_evaluation,
        expansion=_expansion(config, start),
        notes=run.notes + inputs.data.notes,
    )


def _expansion(config: Config, start: int) -> str | None:
    """Method and p of the iterations from `start` on: `uniform, p = 0.2 to 0.002 (linear)`."""
    dataset, training = config.trainer.dataset, config.trainer.training
    method = require_method(dataset.expand_method)
    if not method.takes_p:
        return method.name
    if dataset.expand_prop == 0:
        return None
    first, last = (schedules.expand_prop(i, dataset, training) for i in (start, training.max_iters - 1))
    falling = f" to {last:.3g} ({dataset.expand_schedule})" if dataset.expand_schedule != "constant" else ""
    return f"{method.name}, p = {first:.3g}{falling}"


def _one_micro_batch(config: Config, world: DistributedContext) -> Config:
    """The configuration with one micro-batch per rank and iteration: a whole iteration may take minutes on a CPU."""
    training = dataclasses.replace(config.trainer.training, gradient_accumulation_steps=world.world_size)
    return dataclasses.replace(config, trainer=dataclasses.replace(config.trainer, training=training))


def _measure_iterations(
    step: TrainingStep, config: Config, data: Data, world: DistributedContext
) -> tuple[float, float]:
    """Seconds to compile (0 on a CPU) and seconds per iteration, as measured on rank 0."""
    done = 0

    def iterate(count: int) -> float:
        """Runs iterations; returns the seconds of one."""
        nonlocal done
        iterations = range(done, done + count)
        done += count
        keys = [(iteration, index) for iteration in iterations for index in step.micro_batches]
        with closing(prefetch(data.train, keys, world.device)) as batches:

            def run() -> None:
                for iteration in iterations:
                    step(iteration, batches)

            return _timed(run, world) / count

    with explain_lack_of_memory(step.backend, config.trainer.training):
        first = iterate(1)
        seconds = iterate(1) if world.device.type == "cuda" else first
        compile_seconds = first - seconds
        more = world.broadcast_from_rank_0(lambda: math.ceil(SECONDS / seconds))
        seconds = iterate(more) if more > 1 else seconds
    return world.broadcast_from_rank_0(lambda: (max(compile_seconds, 0.0), seconds))


def _measure_evaluation(step: TrainingStep, config: Config, inputs: RunInputs, world: DistributedContext) -> float:
    """Seconds of an evaluation, extrapolated from two smaller ones."""
    training, data, evaluators = config.trainer.training, inputs.data, inputs.evaluators

    def validate(batches: int) -> float:
        smaller = dataclasses.replace(training, eval_iters=batches)
        all_of_them = validations(data, smaller, world)
        return _timed(lambda: [validation(step.model, step.backend) for validation in all_of_them], world)

    of_iteration = windows_of_rank(training, world)
    of_pass = len(of_iteration) // len(step.backend.micro_batches(of_iteration))
    sizes = (max(n, passes * of_pass) for n, passes in zip(VALIDATION_BATCHES, VALIDATION_PASSES, strict=True))
    seconds = _extrapolated(validate, tuple(n * world.world_size for n in sizes), training.eval_iters)
    samples = {n: _with_fewer_questions(config, data, n) for n in QUESTIONS}
    lm = LM(step.model, data.vocabulary, ranks=world)
    for i, evaluator in enumerate(evaluators):
        smaller = {_num_questions(samples[n][i]): samples[n][i] for n in QUESTIONS}

        def score(questions: int, smaller: dict[int, LoadedEvaluator] = smaller) -> float:
            return _timed(lambda: run_evaluators(lm, [smaller[questions]]), world)

        seconds += _extrapolated(score, tuple(smaller), _num_questions(evaluator))
    return max(world.all_gather_object(seconds))


def _extrapolated(measure: Callable[[int], float], sizes: tuple[int, ...], full: int) -> float:
    """Seconds for size `full`, on the line through the measurements of two smaller sizes. One more run warms up."""
    sizes = tuple(dict.fromkeys(min(size, full) for size in sizes))
    measure(sizes[0])
    seconds = [measure(size) for size in sizes]
    slope = max(seconds[-1] - seconds[0], 0.0) / (sizes[-1] - sizes[0]) if len(sizes) > 1 else 0.0
    return seconds[-1] + slope * (full - sizes[-1])


def _with_fewer_questions(config: Config, data: Data, questions: int) -> list[LoadedEvaluator]:
    fewer = tuple(
        dataclasses.replace(e, num_samples=min(e.num_samples or questions, questions)) for e in config.trainer.eval
    )
    trainer = dataclasses.replace(config.trainer, eval=fewer)
    return setup.load_evaluators_of(dataclasses.replace(config, trainer=trainer), data.vocabulary)


def _num_questions(evaluator: LoadedEvaluator) -> int:
    return next(iter(evaluator.sample_counts.values()))


def _timed(work: Callable[[], object], world: DistributedContext) -> float:
    world.synchronize()
    began = time.monotonic()
    work()
    world.synchronize()
    return time.monotonic() - began


def _memory(device: torch.device) -> tuple[int, int]:
    """The most bytes used so far, and the bytes that the device has."""
    used = flops.peak_memory(device)
    if used is not None:
        return used, torch.cuda.get_device_properties(device).total_memory
    unit = 1 if sys.platform == "darwin" else 1024
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    return resident, _host_memory_total()


def _host_memory_total() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _checkpoints_at_once(start: int, training: TrainingConfig) -> int:
    """The most that are on disk at once: those that are kept, the best one, and the one being written."""
    written, permanent = schedules.count_checkpoints(start + 1, training.max_iters, training)
    if training.keep_checkpoints is None:
        return written
    return permanent + min(written - permanent, training.keep_checkpoints + 2)
