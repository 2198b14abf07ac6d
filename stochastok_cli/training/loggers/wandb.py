"""Metrics to Weights & Biases, for `general.logging.wandb_log`."""

import netrc
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlparse

from stochastok_cli.atomic_writes import write_atomically
from stochastok_cli.config import Config
from stochastok_cli.training.events import Evaluated, Event, Listener, Logged, Note, metrics_of


@contextmanager
def wandb_logger(config: Config, folder: Path, emit: Listener) -> Iterator[Listener]:
    """A listener that logs to a W&B run of the folder's name, which a resumed run continues.

    Without a login the W&B run is offline and stays in the folder, and a note is emitted.
    """
    import wandb

    mode = os.environ.get("WANDB_MODE") or ("online" if _is_logged_in() else "offline")
    if mode == "offline":
        emit(Note(f"Weights & Biases is offline (not logged in): wandb sync sends what is in {folder / 'wandb'}"))
    with wandb.init(
        project=config.general.logging.wandb_project,
        name=folder.name,
        id=_run_id(folder),
        resume="allow",
        dir=str(folder),
        mode=mode,
        config=config.to_dict(),
        settings=wandb.Settings(no_progress=True),
    ) as run:

        def send(event: Event) -> None:
            if isinstance(event, Logged | Evaluated):
                run.log({"iteration": event.iteration, **metrics_of(event)})

        yield send


def _run_id(folder: Path) -> str:
    """The W&B id, kept in the run's folder, so that a new run in a folder of the same name gets a new one."""
    file = folder / "wandb_id"
    if not file.is_file():
        write_atomically(file, f"{folder.name}-{secrets.token_hex(4)}\n".encode())
    return file.read_text(encoding="utf-8").strip()


def _is_logged_in() -> bool:
    """Whether wandb would find an API key. (wandb's own check may prompt or use the network.)"""
    host = urlparse(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname or ""
    try:
        hosts = netrc.netrc().hosts
    except (OSError, netrc.NetrcParseError):
        hosts = {}
    return bool(os.environ.get("WANDB_API_KEY")) or host in hosts
