"""`train`: the whole of a training run, as a function."""

import itertools
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from stochastok_cli.config import Config
from stochastok_cli.errors import UserError, count_of
from stochastok_cli.models.checkpoint_reader import incomplete_checkpoints, incomplete_note
from stochastok_cli.training import run_dir, setup
from stochastok_cli.training.distributed import distributed_context
from stochastok_cli.training.events import Event, Listener, Note
from stochastok_cli.training.loggers.jsonl import (
    config_logger,
    jsonl_logger,
    log_file_logger,
    read_metrics,
    remove_damaged_starts,
    starts_logger,
)
from stochastok_cli.training.run_dir import RunProgress
from stochastok_cli.training.same_run import note_on_changes
from stochastok_cli.training.setup import Run
from stochastok_cli.training.signals import stop_signals
from stochastok_cli.training.trainer import Trainer
from stochastok_cli.training.write_failures import explain_write_failure


@dataclass(frozen=True)
class TrainResult:
    """A finished run.

    Attributes:
        folder: The run's folder.
        checkpoint: Its last checkpoint.
        iteration: How many iterations are done.
        created: Whether this call trained; False if the run was complete already.
        metrics: Those of the last evaluation, by name; None for a value that was not finite.
    """

    folder: Path
    checkpoint: Path
    iteration: int
    created: bool
    metrics: dict[str, float | None]


def train(
    config: Config, *, run_name: str | None = None, force: bool = False, listeners: Sequence[Listener] = ()
) -> TrainResult:
    """Trains the model that a configuration describes, or resumes where an earlier call with it stopped.

    Under torchrun every rank calls it.

    Args:
        config: From `load_config` or `config_from_dict`.
        run_name: The run's folder under `general.paths.checkpoint_dir`; by default it is named after the prefix, the
            dataset and the run that training starts from.
        force: Start anew, and rename an existing run of that name.
        listeners: Called with every event (see `training.events`), on rank 0 only. `metrics.jsonl`, `starts.jsonl`
            and `train.log` are always written.

    Returns:
        The run's folder, its last checkpoint and metrics.

    Raises:
        UserError: Something that the user can correct; nothing has been written unless training had begun.
        StoppedBySignal: After SIGINT, SIGTERM, SIGUSR1 or SIGHUP, once a checkpoint is saved.
        KeyboardInterrupt: A signal came when there was nothing to save.
    """
    with stop_signals() as stop, distributed_context(config.general.device) as world, ExitStack() as stack:
        run = setup.resolve_run(config, world, run_name, force=force)
        if run.progress.checkpoint and run.progress.is_complete(run.config):
            world.broadcast_from_rank_0(lambda: run_dir.tidy_complete_run(run.folder))
            metrics = world.broadcast_from_rank_0(lambda: run_dir.last_evaluation(run.folder))
            problems = world.broadcast_from_rank_0(lambda: run_dir.problems_of_metrics(run.folder, run.progress))
            if world.is_main:  # its log is left as it is
                for listener, problem in itertools.product(listeners, run.input_notes + problems):
                    listener(Note(problem))
            return TrainResult(run.folder, run.progress.checkpoint, run.progress.iteration, False, metrics)
        inputs = setup.load_inputs(run)
        run = replace(run, progress=world.broadcast_from_rank_0(lambda: _lock_folder(run, stack, force=force)))
        trainer = Trainer(run, inputs, stop)  # the last that may refuse: nothing has been written so far
        notes = world.broadcast_from_rank_0(lambda: _prepare_folder(run, force=force))
        emit = _all_listeners(run, listeners, stack) if world.is_main else _no_listener
        for note in [*run.notes, *inputs.data.notes, *notes, *run.input_notes]:
            emit(Note(note))
        checkpoint = trainer.train(emit)
        max_iters = run.config.trainer.training.max_iters
        return TrainResult(run.folder, checkpoint, max_iters, True, {**trainer.metrics})


def _lock_folder(run: Run, stack: ExitStack, *, force: bool) -> RunProgress:
    """Locks the run's folder. Returns the progress in it: another process may have trained before it was locked."""
    stack.enter_context(run_dir.run_lock(run.folder))
    progress = RunProgress() if force else run_dir.read_progress(run.folder, run.config)
    if run.progress.checkpoint is not None and progress.checkpoint is None:
        raise UserError(f"{run.progress.checkpoint} has gone meanwhile", fix="run the same command again")
    return progress


def _prepare_folder(run: Run, *, force: bool) -> list[str]:
    """Makes the run's folder, which is locked, ready for training. Returns notes for the user."""
    folder, progress = run.folder, run.progress
    renamed = run_dir.set_aside(folder) if force else None
    recorded = [] if progress.checkpoint else read_metrics(folder / run_dir.METRICS)
    lost_metrics = run_dir.lost_metrics(folder, progress)
    with explain_write_failure(folder):
        removed = {
            run_dir.METRICS: run_dir.start_or_resume(folder, run.config, progress),
            run_dir.STARTS: remove_damaged_starts(folder / run_dir.STARTS),
        }
    notes = [incomplete_note(torn) for torn in incomplete_checkpoints(folder)]
    if progress.config_problem:
        notes.append(f"{progress.config_problem}; it is taken from the checkpoint and written anew")
    notes += [lost_metrics] if lost_metrics else []
    notes += [f"removed {count_of(n, 'damaged line')} of {folder / name}" for name, n in removed.items() if n]
    notes += [f"the run that was in {folder} is now in {renamed}"] if renamed else []
    if recorded:
        reached = max(record["iteration"] for record in recorded)
        notes.append(f"the run has no checkpoint yet and begins again; metrics up to iteration {reached:,} are removed")
    if progress.checkpoint:
        notes.append(f"going on from {progress.checkpoint}")
        notes += [changes] if (changes := note_on_changes(progress.changed)) else []
    elif run.model_folder is not None:
        notes.append(f"starting from {run.model_folder}")
    return notes


def _all_listeners(run: Run, listeners: Sequence[Listener], stack: ExitStack) -> Listener:
    """One listener that passes every event to those of the run's folder, the configured loggers and `listeners`."""
    folder, logging = run.folder, run.config.general.logging
    active = [
        config_logger(folder / run_dir.CONFIG, run.config),
        stack.enter_context(jsonl_logger(folder / run_dir.METRICS)),
        starts_logger(folder / run_dir.STARTS, run.progress.changed),
        stack.enter_context(log_file_logger(folder / run_dir.LOG)),
        *listeners,
    ]

    def emit(event: Event) -> None:
        for listener in active:
            listener(event)

    if logging.wandb_log:
        from stochastok_cli.training.loggers.wandb import wandb_logger

        active.append(stack.enter_context(wandb_logger(run.config, folder, emit)))
    if logging.tensorboard_log:
        from stochastok_cli.training.loggers.tensorboard import tensorboard_logger

        resumed_at = run.progress.iteration if run.progress.state else None
        active.append(stack.enter_context(tensorboard_logger(folder, resumed_at)))
    return emit


def _no_listener(event: Event) -> None:
    pass
