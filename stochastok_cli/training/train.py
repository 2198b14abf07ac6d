"""`train`, which `stochastok train` calls: everything is opened and checked, then the run's folder, then the loop."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from stochastok_cli.config import Config
from stochastok_cli.models.checkpoint_folders import incomplete_checkpoints
from stochastok_cli.training import run_dir, setup
from stochastok_cli.training.distributed import join
from stochastok_cli.training.events import Event, Listener, Note, log_file, metrics_file
from stochastok_cli.training.run_dir import RunProgress
from stochastok_cli.training.signals import stop_signals
from stochastok_cli.training.trainer import Trainer


@dataclass(frozen=True)
class Trained:
    """A finished run."""

    folder: Path
    checkpoint: Path  # the last
    iteration: int
    created: bool  # whether this call did any of it, or found it complete
    metrics: dict[str, float]  # of the last evaluation


def train(
    config: Config, *, run_name: str | None = None, force: bool = False, listeners: Sequence[Listener] = ()
) -> Trained:
    """Trains the model that `config` describes, or goes on where an earlier call with the same `config` stopped.

    Args:
        run_name: the run's folder under `checkpoint_dir`; where absent, named after the prefix, data and parent.
        force: begin anew, with an existing run of that name set aside under another.
        listeners: told of every event, on rank 0 only; `metrics.jsonl` and `train.log` are always written.

    Under torchrun every rank calls it. Raises UserError for what the user can mend, StoppedBySignal after a stopping
    signal once a checkpoint is saved, KeyboardInterrupt if there was nothing to save.
    """
    with stop_signals() as stop, join(config.general.device) as world, ExitStack() as stack:
        config, parent, notes = setup.resolve_config(config, world)
        folder, found = setup.find_run(config, parent, world, run_name, force=force)
        if found.checkpoint and found.state and found.is_complete(config):
            metrics = run_dir.last_evaluation(folder)
            return Trained(folder, found.checkpoint, found.state.iteration, created=False, metrics=metrics)
        data, evaluators = setup.open_everything(config, parent, found)
        model = setup.make_model(config, parent, world)

        def open_folder() -> RunProgress:
            stack.enter_context(run_dir.locked(folder))
            aside = run_dir.set_aside(folder) if force else None
            found = run_dir.inspect(folder, config)  # again: now nobody else is in it
            run_dir.begin(folder, config, found)
            notes.extend(f"{torn} is incomplete and ignored" for torn in incomplete_checkpoints(folder))
            notes.extend([f"the run that was in {folder} is now in {aside}"] if aside else [])
            notes.extend([f"going on from {found.checkpoint}"] if found.checkpoint else [])
            return found

        found = world.lead(open_folder)
        emit = _teller(config, folder, found, listeners, stack) if world.is_main_rank else _silence
        for note in notes:
            emit(Note(note))
        loop = Trainer(config, folder, found, model, data, evaluators, world, stop, emit)
        checkpoint = loop.run()
        return Trained(folder, checkpoint, config.trainer.training.max_iters, created=True, metrics=loop.metrics)


def _teller(
    config: Config, folder: Path, found: RunProgress, listeners: Sequence[Listener], stack: ExitStack
) -> Listener:
    """One function that tells all listeners, those that write into the run's folder among them."""
    everyone = [
        stack.enter_context(metrics_file(folder / run_dir.METRICS)),
        stack.enter_context(log_file(folder / run_dir.LOG)),
        *listeners,
    ]

    def emit(event: Event) -> None:
        for listener in everyone:
            listener(event)

    if config.general.logging.wandb_log:
        from stochastok_cli.training.loggers.wandb import wandb_run

        everyone.append(stack.enter_context(wandb_run(config, folder, emit)))
    if config.general.logging.tensorboard_log:
        from stochastok_cli.training.loggers.tensorboard import tensorboard_run

        everyone.append(stack.enter_context(tensorboard_run(folder, found.state.iteration if found.state else None)))
    return emit


def _silence(event: Event) -> None:
    pass
