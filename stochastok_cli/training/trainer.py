"""The loop of a run: iterate, and between iterations log, evaluate, save and listen for signals.

It says what happens through events and knows no console.
"""

import dataclasses
import time
from collections.abc import Generator
from contextlib import closing
from pathlib import Path

from stochastok_cli.config import Config
from stochastok_cli.errors import FAILED, StoppedBySignal, UserError
from stochastok_cli.evaluation import Evaluator, evaluate
from stochastok_cli.models.checkpoint_folders import TrainingState
from stochastok_cli.models.llama.model import Llama
from stochastok_cli.training import events, schedules
from stochastok_cli.training.checkpoints import amend_state, load_checkpoint, save_checkpoint
from stochastok_cli.training.distributed import DistributedContext, device_name
from stochastok_cli.training.events import Listener
from stochastok_cli.training.flops import peak_memory, tokens_per_iteration, utilization
from stochastok_cli.training.loggers.profiler import profiled
from stochastok_cli.training.optimizers import optimizer_tensors
from stochastok_cli.training.prefetch import DeviceBatch, prefetch
from stochastok_cli.training.run_dir import RunProgress
from stochastok_cli.training.setup import Data
from stochastok_cli.training.signals import StopRequest
from stochastok_cli.training.step import TrainingStep, memory_enough_for
from stochastok_cli.training.throughput import ThroughputTimer
from stochastok_cli.training.validation import Validation


class Trainer:
    """A run between the moment when its folder is ready and its last checkpoint."""

    def __init__(
        self,
        config: Config,
        folder: Path,
        found: RunProgress,
        model: Llama,
        data: Data,
        evaluators: list[Evaluator],
        world: DistributedContext,
        stop: StopRequest,
        emit: Listener,
    ):
        self.config, self.training, self.folder, self.found = config, config.trainer.training, folder, found
        self.model, self.data, self.evaluators = model, data, evaluators
        self.world, self.stop, self.emit = world, stop, emit
        self.step = TrainingStep(model, config, world)
        bytes_are_known = not config.trainer.dataset.is_instruction
        self.validation = Validation(data.val, self.training, world, data.vocabulary if bytes_are_known else None)
        self.start = found.state.iteration if found.state else 0
        self.checkpoint = found.checkpoint
        self.metrics: dict[str, float] = {}
        self.clock = ThroughputTimer(self.start)

    def run(self) -> Path:
        """Trains to the end; returns the last checkpoint."""
        training = self.training
        self._resume()
        self.emit(
            events.Started(
                folder=self.folder,
                iteration=self.start,
                max_iters=training.max_iters,
                parameters=self.model.num_parameters(),
                tokens_per_iteration=tokens_per_iteration(self.config),
                device=device_name(self.world.device),
                kernels=self.step.kernels.name,
                ranks=self.world.size,
            )
        )
        self._evaluate_at_the_start()
        trace = self.folder / "trace.json" if training.run_profiler and self.world.is_main_rank else None
        with closing(self._batches()) as batches, profiled(trace, self.world.device, self.emit) as profile_step:
            self._compile()
            self.clock = ThroughputTimer(self.start)
            self.stop.armed = True
            for iteration in range(self.start, training.max_iters):
                with memory_enough_for(self.step.kernels, training):
                    self.step(iteration, batches)
                profile_step()
                self._between(iteration + 1)
        assert self.checkpoint is not None
        return self.checkpoint

    def _batches(self) -> Generator[DeviceBatch]:
        """This rank's micro-batches of all iterations to come."""
        training = self.training
        keys = (
            (iteration, micro_step * training.batch_size)
            for iteration in range(self.start, training.max_iters)
            for micro_step in self.world.share(training.gradient_accumulation_steps)
        )
        return prefetch(self.data.train, keys, training.batch_size, self.world.device)

    def _between(self, done: int) -> None:
        """What is due when `done` iterations are done."""
        training = self.training
        if schedules.log_is_due(done, training):
            self._log(done)
        stopping = self._is_stopping()
        evaluation_due, loss = schedules.evaluation_is_due(done, training), None
        pending = evaluation_due and stopping
        if evaluation_due and not stopping:
            loss = self._evaluate(done)
            stopping = self._is_stopping()
        if stopping or schedules.checkpoint_is_due(done, training):
            self._save(done, pending, loss)
        if stopping and (pending or done < training.max_iters):
            signal = self.stop.signal or "a signal to another rank"
            self.emit(events.Stopped(done, signal))
            self.world.any(False)  # rank 0 has said it: now everyone may leave
            raise StoppedBySignal(f"stopped by {signal} after iteration {done:,}; run the same command again to go on")

    def _is_stopping(self) -> bool:
        return self.world.any(self.stop.signal is not None)

    def _resume(self) -> None:
        """Takes weights and moments from the checkpoint to go on from; rank 0 reads them for all."""
        checkpoint = self.found.checkpoint
        if checkpoint is not None:
            self.world.lead(lambda: load_checkpoint(checkpoint, self.model, self.step.optimizer))
            self.world.broadcast_(self.model.parameters())
            self.world.broadcast_(optimizer_tensors(self.model, self.step.optimizer).values())

    def _evaluate_at_the_start(self) -> None:
        state, checkpoint = self.found.state, self.found.checkpoint
        if state is None or checkpoint is None:
            self._evaluate(0)
        elif state.evaluation_pending:
            loss = self._evaluate(self.start)
            state = dataclasses.replace(state, evaluation_pending=False, validation_loss=loss)
            self.world.lead(lambda: amend_state(checkpoint, state))

    def _compile(self) -> None:
        if self.world.device.type == "cuda" and self.start < self.training.max_iters:
            began = time.monotonic()
            with closing(self._batches()) as batches, memory_enough_for(self.step.kernels, self.training):
                self.step.compile(self.start, batches)
            self.emit(events.Compiled(time.monotonic() - began))

    def _log(self, done: int) -> None:
        self._require_finite()
        figures = self.step.figures()
        training, speed = self.training, tokens_per_iteration(self.config) * self.clock.speed(done)
        self.emit(
            events.Logged(
                iteration=done,
                max_iters=training.max_iters,
                loss=figures.loss,
                learning_rate=schedules.learning_rate(done - 1, self.config.trainer.optimizer, training),
                gradient_norm=figures.gradient_norm,
                tokens_per_second=speed,
                seconds_left=self.clock.seconds_left(done, training.max_iters),
                utilization=utilization(speed, self.config, self.world),
                memory=peak_memory(self.world.device),
            )
        )

    def _evaluate(self, done: int) -> float:
        """Validates, and asks this rank's share of the benchmarks; returns the validation loss."""
        self.world.synchronize()
        began = time.monotonic()
        with self.clock.between(), memory_enough_for(self.step.kernels, self.training):
            self.emit(events.Evaluating(done))
            self.metrics = self.validation(self.model, self.step.kernels)
            mine = [self.evaluators[i] for i in self.world.share(len(self.evaluators))]
            for part in self.world.gather(evaluate(self.model, mine)):
                self.metrics |= part
        self.emit(events.Evaluated(done, self.metrics, time.monotonic() - began))
        return self.metrics["validation/loss"]

    def _save(self, done: int, evaluation_pending: bool, validation_loss: float | None) -> None:
        self._require_finite()
        state = TrainingState(done, evaluation_pending, validation_loss, self.data.identity, self.config.to_dict())
        began = time.monotonic()
        with self.clock.between():
            self.checkpoint = self.world.lead(
                lambda: save_checkpoint(
                    self.folder,
                    state,
                    self.model,
                    self.step.optimizer,
                    self.data.vocabulary,
                    self.training.keep_checkpoints,
                )
            )
        self.emit(events.Saved(done, self.checkpoint, time.monotonic() - began))

    def _require_finite(self) -> None:
        bad = self.step.first_bad_iteration()
        if bad is not None:
            last = f"the last good checkpoint is {self.checkpoint}" if self.checkpoint else "there is no checkpoint yet"
            raise UserError(
                f"the loss or the gradient of iteration {bad + 1} is not finite; it was not applied, and {last}",
                fix="lower trainer.optimizer.lr or raise warmup_iters",
                exit_code=FAILED,
            )
