"""`train`, which `stochastok train` calls: everything is opened and checked, then the run's folder, then the loop."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import torch

from stochastok_cli.config import Config
from stochastok_cli.model.transformer import Transformer
from stochastok_cli.model.weights import load_weights
from stochastok_cli.randomness import key64
from stochastok_cli.storage import plain_name
from stochastok_cli.training import preparation, run_folder
from stochastok_cli.training.checkpoints import incomplete_checkpoints, require_intact
from stochastok_cli.training.distributed import World, join
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
    metrics: dict[str, float]  # of the last evaluation; empty where this call found the run complete


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
        notes = preparation.unused_keys(config)
        config, parent, differing = preparation.starting_point(config)
        notes += differing
        preparation.require_divisible(config, world)
        preparation.require_wandb(config)
        name = plain_name(run_name or run_folder.run_name(config, parent))
        folder = Path(config.general.paths.checkpoint_dir) / name
        found = Found() if force else world.lead(lambda: run_folder.inspect(folder, config))
        if found.checkpoint and found.state and found.is_complete(config):
            return Trained(folder, found.checkpoint, found.state.iteration, fresh=False, metrics={})

        data = preparation.open_data(config)
        run_folder.require_same_data(found, data.identity)
        if parent is not None:
            preparation.require_same_vocabulary(parent, data.vocabulary)
        evaluators = preparation.load_all_evaluators(config, data.vocabulary)
        model = _make_model(config, parent, world)

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
        tell = _teller(config, folder, listeners, stack) if world.leads else _silence
        for note in notes:
            tell(Note(note))
        loop = Loop(config, folder, found, model, data, evaluators, world, stop, tell)
        checkpoint = loop.run()
        return Trained(folder, checkpoint, config.trainer.training.max_iters, fresh=True, metrics=loop.metrics)


def _make_model(config: Config, parent: Path | None, world: World) -> Transformer:
    """The model of the seed, or with the weights of the checkpoint to start from, which rank 0 reads for all."""
    torch.manual_seed(key64(config.general.seed, "weights"))
    model = Transformer(config.model, config.trainer.dropout_scheduler.dropout).to(world.device)
    if parent is not None:
        world.lead(lambda: _load_parent(model, parent))
        world.copy_from_lead_(model.parameters())
    return model


def _load_parent(model: Transformer, parent: Path) -> None:
    require_intact(parent, fix="start from another checkpoint")
    load_weights(model, parent)


def _teller(config: Config, folder: Path, listeners: Sequence[Listener], stack: ExitStack) -> Listener:
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
    return tell


def _silence(event: Event) -> None:
    pass
