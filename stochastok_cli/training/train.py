"""`train`, which `stochastok train` calls: everything is opened and checked, then the run's folder, then the loop."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from stochastok_cli.config import Config
from stochastok_cli.training import preparation, run_folder
from stochastok_cli.training.checkpoints import incomplete_checkpoints
from stochastok_cli.training.distributed import join
from stochastok_cli.training.events import Event, Listener, Note, log_file, metrics_file
from stochastok_cli.training.loop import Loop
from stochastok_cli.training.run_folder import Found
from stochastok_cli.training.signals import stop_signals


@dataclass(frozen=True)
class Trained:
    """A finished run."""

    folder: Path
    checkpoint: Path  # the last
    iteration: int
    fresh: bool  # whether this call did any of it, or found it complete
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
        config, parent, notes = preparation.settle(config, world)
        folder, found = preparation.find_run(config, parent, world, run_name, force=force)
        if found.checkpoint and found.state and found.is_complete(config):
            metrics = run_folder.last_evaluation(folder)
            return Trained(folder, found.checkpoint, found.state.iteration, fresh=False, metrics=metrics)
        data, evaluators = preparation.open_everything(config, parent, found)
        model = preparation.make_model(config, parent, world)

        def open_folder() -> Found:
            stack.enter_context(run_folder.locked(folder))
            aside = run_folder.set_aside(folder) if force else None
            found = run_folder.inspect(folder, config)  # again: now nobody else is in it
            run_folder.begin(folder, config, found)
            notes.extend(f"{torn} is incomplete and ignored" for torn in incomplete_checkpoints(folder))
            notes.extend([f"the run that was in {folder} is now in {aside}"] if aside else [])
            notes.extend([f"going on from {found.checkpoint}"] if found.checkpoint else [])
            return found

        found = world.lead(open_folder)
        tell = _teller(config, folder, found, listeners, stack) if world.leads else _silence
        for note in notes:
            tell(Note(note))
        loop = Loop(config, folder, found, model, data, evaluators, world, stop, tell)
        checkpoint = loop.run()
        return Trained(folder, checkpoint, config.trainer.training.max_iters, fresh=True, metrics=loop.metrics)


def _teller(config: Config, folder: Path, found: Found, listeners: Sequence[Listener], stack: ExitStack) -> Listener:
    """One function that tells all listeners, those that write into the run's folder among them."""
    everyone = [
        stack.enter_context(metrics_file(folder / run_folder.METRICS)),
        stack.enter_context(log_file(folder / run_folder.LOG)),
        *listeners,
    ]

    def tell(event: Event) -> None:
        for listener in everyone:
            listener(event)

    if config.general.logging.wandb_log:
        from stochastok_cli.training.wandb_log import wandb_run

        everyone.append(stack.enter_context(wandb_run(config, folder, tell)))
    if config.general.logging.tensorboard_log:
        from stochastok_cli.training.tensorboard_log import tensorboard_run

        everyone.append(stack.enter_context(tensorboard_run(folder, found.state.iteration if found.state else None)))
    return tell


def _silence(event: Event) -> None:
    pass
