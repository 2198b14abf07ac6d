"""`plan`, which `stochastok train --plan` calls: what a run will take, measured on this machine. Nothing is written."""

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

from stochastok_cli.artifacts import nearest_existing_path
from stochastok_cli.config import Config, TrainingConfig
from stochastok_cli.data.samplers import WindowSampler
from stochastok_cli.evaluation import Evaluator, evaluate
from stochastok_cli.training import flops, schedules, setup
from stochastok_cli.training.distributed import DistributedContext, device_name, join
from stochastok_cli.training.prefetch import prefetch
from stochastok_cli.training.setup import Data
from stochastok_cli.training.step import TrainingStep, memory_enough_for
from stochastok_cli.training.validation import Validation

SECONDS = 5.0  # for which iterations are measured, where one is shorter
VALIDATION_BATCHES = 4, 16  # measured, for each rank
QUESTIONS = 50, 200  # measured, of each benchmark


@dataclass(frozen=True)
class Plan:
    """What is left of a run, and what it takes."""

    folder: Path
    device: str
    ranks: int
    kernels: str
    parameters: int
    iterations: int  # left to do
    tokens_per_iteration: int
    dataset_tokens: int | None  # None for rows of questions, which have no fixed number
    flops_per_token: int
    compile_seconds: float
    seconds_per_iteration: float
    utilization: float | None  # of the GPUs' peak
    memory: int  # bytes, the most that rank 0 held: on its GPU, or of the process on a CPU
    memory_total: int  # bytes of the GPU, or of the machine
    checkpoint_bytes: int
    checkpoints: int  # on disk at once at most, the one being written included
    disk_free: int  # bytes, where the run's folder will be
    evaluations: int
    seconds_per_evaluation: float

    @property
    def tokens(self) -> int:
        return self.iterations * self.tokens_per_iteration

    @property
    def training_seconds(self) -> float:
        return self.compile_seconds + self.iterations * self.seconds_per_iteration

    @property
    def evaluation_seconds(self) -> float:
        return self.evaluations * self.seconds_per_evaluation

    @property
    def seconds(self) -> float:
        """All of it but the writing of checkpoints."""
        return self.training_seconds + self.evaluation_seconds


def plan(config: Config, *, run_name: str | None = None, force: bool = False) -> Plan | Path:
    """Opens and checks all that `train` would, and measures a few iterations and a part of an evaluation.

    Of a run that is complete there is nothing to plan: only its folder is returned. On several ranks all call it, and
    all get the same. Raises what `train` would.
    """
    with join(config.general.device) as world:
        config, parent, _ = setup.resolve_config(config, world)
        folder, found = setup.find_run(config, parent, world, run_name, force=force)
        if found.is_complete(config):
            return folder
        data, evaluators = setup.open_everything(config, parent, found)
        model = setup.make_model(config, parent, world)
        start = found.state.iteration if found.state else 0
        training = config.trainer.training

        measured = config if world.device.type == "cuda" else _one_micro_batch(config, world)
        step = TrainingStep(model, measured, world)
        compile_seconds, seconds = _measure_iterations(step, measured, data, world)
        seconds *= training.gradient_accumulation_steps / measured.trainer.training.gradient_accumulation_steps
        per_evaluation = _measure_evaluation(step, config, data, evaluators, world)
        pending = found.state is None or found.state.evaluation_pending
        evaluations = schedules.times(training.eval_interval, start if pending else start + 1, training.max_iters)
        tokens = flops.tokens_per_iteration(config)
        parameters = model.num_parameters()
        memory, memory_total = _memory(world.device)
        return Plan(
            folder=folder,
            device=device_name(world.device),
            ranks=world.size,
            kernels=step.kernels.name,
            parameters=parameters,
            iterations=training.max_iters - start,
            tokens_per_iteration=tokens,
            dataset_tokens=len(data.train.ids) if isinstance(data.train, WindowSampler) else None,
            flops_per_token=flops.flops_per_token(config.model),
            compile_seconds=compile_seconds,
            seconds_per_iteration=seconds,
            utilization=flops.utilization(tokens / seconds, config, world),
            memory=memory,
            memory_total=memory_total,
            checkpoint_bytes=flops.checkpoint_bytes(parameters),
            checkpoints=_checkpoints_at_once(start, training),
            disk_free=shutil.disk_usage(nearest_existing_path(folder)).free,
            evaluations=evaluations,
            seconds_per_evaluation=per_evaluation,
        )


def _one_micro_batch(config: Config, world: DistributedContext) -> Config:
    """An iteration of one micro-batch for each rank: on a CPU a whole one may take many minutes."""
    training = dataclasses.replace(config.trainer.training, gradient_accumulation_steps=world.size)
    return dataclasses.replace(config, trainer=dataclasses.replace(config.trainer, training=training))


def _measure_iterations(
    step: TrainingStep, config: Config, data: Data, world: DistributedContext
) -> tuple[float, float]:
    """Seconds to compile (0 on a CPU), and seconds of an iteration, as rank 0 saw them."""
    training = config.trainer.training
    places = [micro_step * training.batch_size for micro_step in world.share(training.gradient_accumulation_steps)]
    done = 0

    def iterate(count: int) -> float:
        nonlocal done
        first, done = done, done + count
        keys = [(iteration, place) for iteration in range(first, done) for place in places]
        with closing(prefetch(data.train, keys, training.batch_size, world.device)) as batches:

            def run() -> None:
                for iteration in range(first, done):
                    step(iteration, batches)

            return _timed(run, world) / count

    with memory_enough_for(step.kernels, training):
        first = iterate(1)
        each = iterate(1) if world.device.type == "cuda" else first
        compile_seconds = first - each
        more = world.lead(lambda: math.ceil(SECONDS / each))
        each = iterate(more) if more > 1 else each
    return world.lead(lambda: (max(compile_seconds, 0.0), each))


def _measure_evaluation(
    step: TrainingStep, config: Config, data: Data, evaluators: list[Evaluator], world: DistributedContext
) -> float:
    """Seconds of an evaluation, from those of smaller ones of two sizes."""
    training = config.trainer.training

    def validate(batches: int) -> float:
        part = dataclasses.replace(training, eval_iters=batches)
        validation = Validation(data.val, part, world, None)
        return _timed(lambda: validation(step.model, step.kernels), world)

    seconds = _extrapolated(validate, tuple(n * world.size for n in VALIDATION_BATCHES), training.eval_iters)
    samples = {n: _with_fewer_questions(config, data, n) for n in QUESTIONS}
    mine = 0.0
    for i in world.share(len(evaluators)):
        smaller = {_questions(samples[n][i]): samples[n][i] for n in QUESTIONS}

        def ask(questions: int, smaller: dict[int, Evaluator] = smaller) -> float:
            return _timed(lambda: evaluate(step.model, [smaller[questions]]), world)

        mine += _extrapolated(ask, tuple(smaller), _questions(evaluators[i]))
    return seconds + max(world.gather(mine))


def _extrapolated(measure: Callable[[int], float], sizes: tuple[int, ...], full: int) -> float:
    """Seconds for `full` on the line through those for two sizes: a part is the same for any. The first warms up."""
    sizes = tuple(dict.fromkeys(min(size, full) for size in sizes))
    measure(sizes[0])
    seconds = [measure(size) for size in sizes]
    slope = max(seconds[-1] - seconds[0], 0.0) / (sizes[-1] - sizes[0]) if len(sizes) > 1 else 0.0
    return seconds[-1] + slope * (full - sizes[-1])


def _with_fewer_questions(config: Config, data: Data, questions: int) -> list[Evaluator]:
    fewer = tuple(
        dataclasses.replace(e, num_samples=min(e.num_samples or questions, questions)) for e in config.trainer.eval
    )
    trainer = dataclasses.replace(config.trainer, eval=fewer)
    return setup.load_all_evaluators(dataclasses.replace(config, trainer=trainer), data.vocabulary)


def _questions(evaluator: Evaluator) -> int:
    return next(iter(evaluator.n.values()))


def _timed(work: Callable[[], object], world: DistributedContext) -> float:
    world.synchronize()
    began = time.monotonic()
    work()
    world.synchronize()
    return time.monotonic() - began


def _memory(device: torch.device) -> tuple[int, int]:
    """Bytes held at most, and bytes that there are."""
    held = flops.peak_memory(device)
    if held is not None:
        return held, torch.cuda.get_device_properties(device).total_memory
    unit = 1 if sys.platform == "darwin" else 1024
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    return resident, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _checkpoints_at_once(start: int, training: TrainingConfig) -> int:
    """How many are on disk when there are most: those that are kept, the best one, and the one being written."""
    written = schedules.times(training.checkpoint_interval, start + 1, training.max_iters)
    kept = written if training.keep_checkpoints is None else training.keep_checkpoints + 2
    return min(written, kept)
