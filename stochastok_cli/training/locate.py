"""Where a run is, and where its parent is: the checkpoint that it starts from.

A run that has a checkpoint of its own goes on from that, and does not need its parent any more, unless its checkpoints
are adapters (`trainer.lora`). This module imports neither torch nor numpy, but for the name of a model on the Hub.
"""

import shlex
from pathlib import Path
from typing import NamedTuple

from stochastok_cli.config import Config
from stochastok_cli.errors import UserError
from stochastok_cli.models.checkpoint_reader import latest_checkpoint, locate_checkpoint, run_of
from stochastok_cli.models.intact_checkpoints import require_intact
from stochastok_cli.training.run_dir import CONFIG, LOG, METRICS, STARTS, run_folder


class LocatedRun(NamedTuple):
    """Where a run reads and writes.

    Attributes:
        folder: The run's folder, which may not exist.
        checkpoint: Its latest complete checkpoint, from which it goes on; None where it begins.
        parent: The folder of the checkpoint that the configuration names; None for fresh weights, for a model on the
            Hub, and for one that is not there any more.
    """

    folder: Path
    checkpoint: Path | None
    parent: Path | None

    def require_intact_parent(self) -> None:
        """Raises UserError if a run that begins has a damaged parent. One that goes on has its own weights."""
        if self.checkpoint is None and self.parent is not None:
            require_intact(self.parent, with_optimizer=False)


def locate_run(config: Config, run_name: str | None, *, force: bool = False) -> LocatedRun:
    """Finds the folder of a run, its latest checkpoint and its parent, without a look into the files of weights.

    Args:
        config: The configuration as it was loaded.
        run_name: The folder's name; None for the default one.
        force: Whether the run begins anew, and a folder that is there is set aside.

    Raises:
        UserError: The parent is not there, and the run has no checkpoint of its own. Or the run can't have its folder:
            its name is not possible, or the parent is in the folder that is set aside.
    """
    parent = parent_name = missing = None
    if (name := config.checkpoint_name) is not None:
        try:
            parent = locate_checkpoint(name, Path(config.general.paths.checkpoint_dir))
            parent_name = _name_on_the_hub(name) if parent is None else run_of(parent)
        except UserError as error:
            missing, parent_name = error, run_of(Path(name))
    folder = run_folder(config, parent_name, run_name)
    checkpoint = None if force else latest_checkpoint(folder)
    if missing is not None and checkpoint is None:
        raise missing
    if force and parent is not None and parent.resolve().is_relative_to(folder.resolve()):
        raise UserError(
            f"{parent}, which training starts from, is in {folder}, which --force sets aside",
            fix="give another --run-name",
        )
    return LocatedRun(folder, checkpoint, parent)


def other_run_note(config_file: Path, folder: Path) -> str:
    """Says how to go on with the run whose folder a configuration file lies in, where a command trains another; or "".

    A run's `config.yaml` doesn't name the run, which may have had a `--run-name`.

    Args:
        config_file: The configuration file that was given.
        folder: The folder of the run that the command trains.
    """
    run = config_file.absolute().parent
    is_of_run = config_file.name == CONFIG and any((run / name).is_file() for name in (METRICS, STARTS, LOG))
    if not is_of_run or run.resolve() == folder.resolve():
        return ""
    options = ["--run-name", run.name]
    options += [] if run.parent == folder.absolute().parent else [f"general.paths.checkpoint_dir={run.parent}"]
    another = f"{config_file} is that of another run than {folder}, which this trains"
    return f"{another}; to go on with it: {shlex.join(options)}"


def _name_on_the_hub(name: str) -> str:
    from stochastok_cli import hub  # imports numpy

    return hub.parse_repo_id(name)[0].rpartition("/")[2]
