"""The training step, and the loop around it: log, evaluate, save, stop on signals.

The loop reports what happens as events (see `events`) and prints nothing.
"""

import dataclasses
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager, closing, suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from stochastok_cli.config import Config, TrainingConfig
from stochastok_cli.data.samplers import Batch
from stochastok_cli.errors import FAILED, StoppedBySignal, UserError
from stochastok_cli.evaluation.metrics import bits_per_byte
from stochastok_cli.evaluation.registry import main_keys
from stochastok_cli.evaluation.run import run_evaluators
from stochastok_cli.evaluation.scoring import LM
from stochastok_cli.models.base import CausalLM, explain_out_of_memory
from stochastok_cli.models.checkpoint_reader import TrainingState
from stochastok_cli.tokenization.vocabulary import Vocabulary
from stochastok_cli.training import events, schedules
from stochastok_cli.training.backends import (
    MODEL_TOO_LARGE,
    Backend,
    EagerBackend,
    FusedBackend,
    indices_of_windows,
    windows_per_iteration,
)
from stochastok_cli.training.background_writer import BackgroundWriter
from stochastok_cli.training.checkpoint_writer import amend_state, save_checkpoint
from stochastok_cli.training.distributed import DistributedContext, device_name
from stochastok_cli.training.events import Listener
from stochastok_cli.training.flops import peak_memory, utilization
from stochastok_cli.training.loggers.profiler import profiler
from stochastok_cli.training.lost_ranks import end_by_itself
from stochastok_cli.training.optimizers import clip_or_skip_update, make_optimizer, optimizer_tensors
from stochastok_cli.training.prefetch import prefetch
from stochastok_cli.training.setup import Run, RunInputs, load_weights_from
from stochastok_cli.training.sharded import make_parallel
from stochastok_cli.training.signals import StopRequest
from stochastok_cli.training.throughput import ThroughputTimer, tokens_per_iteration
from stochastok_cli.training.validation import CANONICAL, text_widths, validations


class StepMetrics(NamedTuple):
    """The metrics of one iteration.

    Attributes:
        loss: Nats per token, the mean over the windows of all ranks.
        gradient_norm: Before clipping.
        bits_per_byte: The loss over the bytes of the text that has a loss; None where it is not known.
        first_bad: The first iteration so far (from 0) whose loss or gradient was not finite; None where all were.
    """

    loss: float
    gradient_norm: float
    bits_per_byte: float | None
    first_bad: int | None


class TrainingStep:
    """The model, its optimizer, and one iteration of training. An iteration never waits for the device.

    Args:
        model: The model; its weights on rank 0 are those that count.
        config: The configuration.
        world: The ranks.
        fused: Whether the fused kernels are used.
        vocabulary: The vocabulary of the ids, to measure bits per byte as well.
    """

    def __init__(
        self,
        model: CausalLM,
        config: Config,
        world: DistributedContext,
        *,
        fused: bool = False,
        vocabulary: Vocabulary | None = None,
    ):
        self.config, self.world = config, world
        self.parallel = make_parallel(model, config, world, fused=fused)
        self.model = self.parallel.prepare(model)
        self.backend: Backend = (
            FusedBackend(self.model, config) if fused else EagerBackend(self.model, config, world.device)
        )
        self.optimizer = make_optimizer(self.model, config.trainer.optimizer, world)
        if fused:  # its kernels take the memory that is free before the first update, which would make the moments
            optimizer_tensors(self.model, self.optimizer)
        self.micro_batches = self.backend.micro_batches(windows_of_rank(config.trainer.training, world))
        self.gradient_norm = torch.zeros((), device=world.device)
        self.text_widths = None if vocabulary is None else text_widths(vocabulary, world.device)
        self.num_bytes = torch.zeros((), dtype=torch.float64, device=world.device)  # of this rank: `weighted_bytes`
        self.first_bad = torch.full((), -1, dtype=torch.int64, device=world.device)

    def __call__(self, iteration: int, batches: Iterator[Batch[Tensor]]) -> None:
        """Iteration `iteration`, counted from 0: this rank's micro-batches, then one update, the same on all ranks."""
        self.parallel.zero_grad()
        self.num_bytes.zero_()
        for index in self.micro_batches:
            batch = next(batches)
            if self.text_widths is not None:
                self.num_bytes += batch.weighted_bytes(self.text_widths)
            self.parallel.loss += self.backend.forward_backward(
                batch, iteration, index, self.parallel.on_gradients_ready
            )
        self.parallel.reduce_gradients()
        self.gradient_norm = self.parallel.gradient_norm()

        # From the first loss or gradient on that is not finite, updates are skipped. The next log stops the run.
        bad = ~torch.isfinite(self.gradient_norm + self.parallel.loss)
        self.first_bad = torch.where(bad & (self.first_bad < 0), iteration, self.first_bad)
        max_norm = self.config.trainer.optimizer.grad_clip
        clip_or_skip_update(self.optimizer, self.gradient_norm, max_norm, skip=self.first_bad >= 0)

        rate = schedules.learning_rate(iteration, self.config.trainer.optimizer, self.config.trainer.training)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["lr_scale"]
        self.optimizer.step()

    def compile(self, iteration: int, batches: Iterator[Batch[Tensor]]) -> None:
        """Makes the backend compile, on an iteration's batches, and sets the gradients to 0 again."""
        for index in self.micro_batches:
            self.backend.forward_backward(next(batches), iteration, index, lambda block: None)
        self.parallel.zero_grad()
        self.world.synchronize()

    def start_reading_metrics(self) -> Callable[[], StepMetrics]:
        """Starts to copy the metrics of the last iteration to the host. All ranks must call it.

        Returns:
            A function that waits until they are there. What the device was given since goes on meanwhile.
        """
        num_bytes = self.num_bytes.clone()
        self.world.all_reduce_(num_bytes)
        scalars = self.parallel.loss, self.gradient_norm, num_bytes, self.first_bad
        values = _start_copy_to_host(torch.stack([scalar.double() for scalar in scalars]))
        windows = windows_per_iteration(self.config.trainer.training)

        def wait() -> StepMetrics:
            loss, norm, total, first_bad = values()
            bits = bits_per_byte(loss * windows, total) if total else None
            return StepMetrics(loss, norm, bits, int(first_bad) if first_bad >= 0 else None)

        return wait

    def metrics(self) -> StepMetrics:
        """The metrics of the last iteration. Waits for the device. All ranks must call it."""
        return self.start_reading_metrics()()


def _start_copy_to_host(values: Tensor) -> Callable[[], list[float]]:
    """Starts a copy of a vector; the result waits for its end."""
    if values.device.type != "cuda":
        return values.tolist
    host = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
    host.copy_(values, non_blocking=True)
    copied = torch.cuda.Event()
    copied.record()

    def wait() -> list[float]:
        copied.synchronize()
        return host.tolist()

    return wait


def windows_of_rank(training: TrainingConfig, world: DistributedContext) -> np.ndarray:
    """The indices of a rank's windows in each iteration, int64 `[accumulation steps of the rank, batch_size]`."""
    steps = np.array(world.indices_of_rank(training.gradient_accumulation_steps))
    return indices_of_windows(steps, training.batch_size)


def explain_lack_of_memory(backend: Backend, training: TrainingConfig) -> AbstractContextManager[None]:
    """Raises an out-of-memory error of the block as a UserError that says how to use less memory."""
    what = f"micro-batches of {training.batch_size} windows and {backend.name} kernels"
    return explain_out_of_memory(what, backend.out_of_memory_fix)


class Trainer:
    """A run from the moment when its folder is locked to its last checkpoint. It writes nothing before `train`.

    Attributes:
        logs_later: Whether metrics are logged when the device has been given the next iteration, or an evaluation or a
            checkpoint is due. So the device does not wait for the host, which waits for the metrics.
    """

    emit: Listener

    def __init__(self, run: Run, inputs: RunInputs, stop: StopRequest):
        self.run, self.inputs, self.stop = run, inputs, stop
        self.config, self.training, self.world = run.config, run.config.trainer.training, run.world
        self.checkpoint = run.progress.checkpoint
        self.start = run.progress.iteration
        if self.checkpoint is not None:
            load_weights_from(self.checkpoint, inputs.model, self.world)
        with explain_out_of_memory("the gradients and moments of all weights", MODEL_TOO_LARGE):
            self.step = TrainingStep(
                inputs.model, self.config, self.world, fused=run.fused, vocabulary=inputs.data.vocabulary
            )
        if self.checkpoint is not None:
            self.step.parallel.load_optimizer_state(self.step.optimizer, self.checkpoint)
        self.validations = validations(inputs.data, self.training, self.world)
        self.timer = ThroughputTimer(self.start)
        self.metrics: dict[str, float] = {}  # of the last evaluation
        self.background = BackgroundWriter() if self.training.async_save else None
        self._being_written: events.Saved | None = None
        self.logs_later = self.world.device.type == "cuda"
        self._pending_log: Callable[[], None] | None = None

    def train(self, emit: Listener) -> Path:
        """Trains to the end and returns the last checkpoint. `emit` is called with every event."""
        self.emit = emit
        try:
            return self._train()
        except BaseException:
            end_by_itself()
            self._log_after_failure()
            self._collect_after_failure()
            raise

    def _train(self) -> Path:
        self._emit_started()
        self._evaluate_at_start()
        trace = self.run.folder / "trace.json" if self.training.run_profiler and self.world.is_main else None
        iterations = range(self.start, self.training.max_iters)
        with closing(self._batches(iterations)) as batches, profiler(trace, self.world.device, self.emit) as profile:
            self._compile()
            self.timer = ThroughputTimer(self.start)
            self.stop.armed = True
            for iteration in iterations:
                with explain_lack_of_memory(self.step.backend, self.training):
                    self.step(iteration, batches)
                profile()
                self._after(iteration + 1)
        assert self.checkpoint is not None
        return self.checkpoint

    def _batches(self, iterations: range) -> Generator[Batch[Tensor]]:
        """This rank's micro-batches of some iterations, in order."""
        keys = ((iteration, index) for iteration in iterations for index in self.step.micro_batches)
        return prefetch(self.inputs.data.train, keys, self.world.device)

    def _after(self, done: int) -> None:
        """Logs, evaluates, saves and stops where it is time to, after `done` iterations."""
        training = self.training
        if self.background is not None and self.background.has_ended:
            self._collect()
        if self._pending_log is not None:  # of the iteration before: the device has had the next one since
            self._pending_log()
        if schedules.log_is_due(done, training):
            self._pending_log = self._start_log(done)
        stopping = self._is_stopping()
        evaluation_due, loss = schedules.evaluation_is_due(done, training), None
        saving = stopping or schedules.checkpoint_is_due(done, training)
        if self._pending_log is not None and (evaluation_due or saving or not self.logs_later):
            self._pending_log()
        pending = evaluation_due and stopping  # a signal leaves no time for it
        if evaluation_due and not stopping:
            loss = self._evaluate(done)
            stopping = self._is_stopping()
        if stopping or saving:
            self._save(done, pending, loss, is_last=stopping or done == training.max_iters)
        if stopping and (pending or done < training.max_iters):
            signal = self.stop.signal or "a signal to another rank"
            self.emit(events.Stopped(done, signal))
            self.world.any(False)  # no rank leaves before rank 0 has reported it
            raise StoppedBySignal(f"stopped by {signal} after iteration {done:,}; run the same command again to go on")

    def _is_stopping(self) -> bool:
        return self.world.any(self.stop.signal is not None)

    def _emit_started(self) -> None:
        self.emit(
            events.Started(
                folder=self.run.folder,
                iteration=self.start,
                max_iters=self.training.max_iters,
                parameters=self.inputs.model.num_parameters(),
                tokens_per_iteration=tokens_per_iteration(self.config),
                device=device_name(self.world.device),
                kernels=self.step.backend.name,
                ranks=self.world.world_size,
                parent=self.run.model_folder if self.run.progress.checkpoint is None else None,
                data=self.inputs.data.identity | self.inputs.data.expansion,
            )
        )

    def _evaluate_at_start(self) -> None:
        """The evaluation before the first iteration, or the one that a signal has put off."""
        state, checkpoint = self.run.progress.state, self.checkpoint
        if state is None or checkpoint is None:
            self._evaluate(0)
        elif state.evaluation_pending:
            loss = self._evaluate(self.start)
            state = dataclasses.replace(state, evaluation_pending=False, validation_loss=loss)
            self.world.broadcast_from_rank_0(lambda: amend_state(checkpoint, state))

    def _compile(self) -> None:
        if self.world.device.type == "cuda" and self.start < self.training.max_iters:
            began = time.monotonic()
            one_iteration = range(self.start, self.start + 1)
            with (
                closing(self._batches(one_iteration)) as batches,
                explain_lack_of_memory(self.step.backend, self.training),
            ):
                self.step.compile(self.start, batches)
            self.emit(events.Compiled(time.monotonic() - began))
            if self.step.backend.recomputes_activations and not self.training.activation_checkpointing:
                windows = self.step.backend.windows_at_once
                self.emit(
                    events.Note(
                        f"activations are computed again in the backward pass, {windows} windows at once: the GPU's "
                        "memory has no room for all of them"
                    )
                )

    def _start_log(self, done: int) -> Callable[[], None]:
        """Starts to read the metrics after `done` iterations. The result logs them, once they are there."""
        read = self.step.start_reading_metrics()

        def log() -> None:
            self._pending_log = None
            metrics = read()
            self._require_finite(metrics.first_bad)
            self._emit_logged(done, metrics)

        return log

    def _emit_logged(self, done: int, metrics: StepMetrics) -> None:
        training, optimizer, dataset = self.training, self.config.trainer.optimizer, self.config.trainer.dataset
        scheduled = dataset.expand_schedule != "constant"
        tokens_per_second = tokens_per_iteration(self.config) * self.timer.iterations_per_second(done)
        self.emit(
            events.Logged(
                iteration=done,
                max_iters=training.max_iters,
                loss=metrics.loss,
                bits_per_byte=metrics.bits_per_byte,
                learning_rate=schedules.learning_rate(done - 1, optimizer, training),
                expand_prop=schedules.expand_prop(done - 1, dataset, training) if scheduled else None,
                gradient_norm=metrics.gradient_norm,
                tokens_per_second=tokens_per_second,
                seconds_left=self.timer.seconds_left(done, training.max_iters),
                utilization=utilization(tokens_per_second, self.inputs.model, self.config, self.world),
                memory=peak_memory(self.world.device),
            )
        )

    def _evaluate(self, done: int) -> float:
        """Validates and runs the benchmarks; returns the validation loss."""
        self.world.synchronize()
        began = time.monotonic()
        with self.timer.pause(), explain_lack_of_memory(self.step.backend, self.training):
            self.emit(events.Evaluating(done))
            self.metrics = {}
            for validation in self.validations:
                self.metrics |= validation(self.step.model, self.step.backend)
            lm = LM(self.step.model, self.inputs.data.vocabulary, ranks=self.world)
            output = run_evaluators(lm, self.inputs.evaluators)
            shown = [*self.metrics, *main_keys(output.metrics)]
            self.metrics |= output.values
        self.emit(events.Evaluated(done, self.metrics, time.monotonic() - began, shown))
        return self.metrics[f"{CANONICAL}/loss"]

    def _save(self, done: int, evaluation_pending: bool, validation_loss: float | None, *, is_last: bool) -> None:
        """Saves a checkpoint, or starts to. One is written at a time, and the last one before training ends."""
        self._require_finite(self.step.metrics().first_bad)
        data = self.inputs.data
        state = TrainingState(done, evaluation_pending, validation_loss, data.identity, self.config.to_dict())
        began = time.monotonic()
        with self.timer.pause():
            self.world.broadcast_from_rank_0(self._collect)
            folder = save_checkpoint(
                self.run.folder,
                state,
                self.step.parallel,
                self.step.optimizer,
                data.vocabulary,
                keep=self.training.keep_checkpoints,
                dtype=getattr(torch, self.training.checkpoint_dtype),
                background=self.background,
            )
        self._being_written = events.Saved(done, folder, time.monotonic() - began)
        if self.background is None or is_last:
            with self.timer.pause():
                self.world.broadcast_from_rank_0(self._collect)
            self.checkpoint = folder

    def _collect(self) -> None:
        """Waits for the checkpoint that is being written, if there is one, and reports it. Rank 0 alone writes."""
        try:
            seconds = None if self.background is None else self.background.collect()
        except Exception:
            self._being_written = None
            raise
        if self._being_written is not None:
            saved, self._being_written = self._being_written, None
            self.checkpoint = saved.folder
            self.emit(dataclasses.replace(saved, background_seconds=seconds))

    def _log_after_failure(self) -> None:
        """Logs the last iteration that was done, except among several ranks, where its metrics may never be there."""
        if self._pending_log is not None and self.world.world_size == 1:
            with suppress(Exception):  # another error is on its way
                self._pending_log()

    def _collect_after_failure(self) -> None:
        """Waits for the checkpoint that is being written when training ends early. Another error is on its way."""
        try:
            self._collect()
        except Exception as error:
            self.emit(events.Note(str(error)))

    def _require_finite(self, bad: int | None) -> None:
        """Raises a UserError if there is an iteration whose loss or gradient was not finite."""
        if bad is not None:
            muon = self.config.trainer.optimizer.name == "muon"
            rates = "trainer.optimizer.lr" + (" or trainer.optimizer.muon_lr," if muon else "")
            self._collect_after_failure()
            last = f"the last good checkpoint is {self.checkpoint}" if self.checkpoint else "there is no checkpoint yet"
            raise UserError(
                f"the loss or the gradient of iteration {bad + 1} is not finite; it was not applied, and {last}",
                fix=f"lower {rates} or raise trainer.training.warmup_iters in a new run: with another "
                "--run-name, or with --force, which sets this one aside",
                exit_code=FAILED,
            )
