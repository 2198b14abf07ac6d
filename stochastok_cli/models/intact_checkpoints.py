"""Whether the bytes of a checkpoint are those that were written, by the checksums in its training state.

`checkpoint_reader.py` looks at the sizes of the files alone. This imports neither torch nor numpy.
"""

from pathlib import Path

from stochastok_cli.errors import FAILED, UserError
from stochastok_cli.manifest import file_checksum
from stochastok_cli.models.checkpoint_reader import (
    MOST_LISTED,
    STATE,
    STEP,
    checkpoints,
    is_optimizer_file,
    locate_checkpoint,
    recorded_files,
)
from stochastok_cli.paths import path_inside


def find_local_checkpoint(name: str, checkpoint_dir: Path) -> Path | None:
    """The folder of an intact checkpoint on this machine, or None where `name` can only be a model on the Hub.

    Args:
        name: A path, a run under `checkpoint_dir`, or `OWNER/MODEL[@REVISION]`.
        checkpoint_dir: The folder of all runs.

    Raises:
        UserError: It is neither a checkpoint nor the id of a model, or the checkpoint is damaged.
    """
    checkpoint = locate_checkpoint(name, checkpoint_dir)
    if checkpoint is not None:
        require_intact(checkpoint, with_optimizer=False)
    return checkpoint


def require_intact(folder: Path, *, with_optimizer: bool) -> None:
    """Raises UserError (exit code 1) if the bytes of a checkpoint are not those that were written.

    The optimizer's state is checked only if `with_optimizer`: evaluation does not read it, and users may delete it to
    free space. A folder without a training state is a model from another program, whose checksums are not known.
    """
    if (folder / STATE).is_file():
        try:
            files = recorded_files(folder)
        except UserError as error:
            raise UserError(str(error), fix=_remedy(folder), exit_code=FAILED) from None
        if not with_optimizer:
            files = {name: file for name, file in files.items() if not is_optimizer_file(name)}
        for name, written in files.items():
            path = path_inside(folder, name)
            actual = file_checksum(path) if path.is_file() else None
            if actual is None or actual.bytes != written.bytes or written.sha256 not in (None, actual.sha256):
                raise UserError(
                    f"{folder / name} is damaged: its bytes are not those that were written",
                    fix=_remedy(folder),
                    exit_code=FAILED,
                )


def _remedy(damaged: Path) -> str:
    """What to do about a damaged checkpoint: the last one of a run can be trained again from the one before it."""
    damaged = damaged.resolve()
    run = damaged.parent
    if not STEP.fullmatch(damaged.name) or not (run / "config.yaml").is_file():
        return "name another checkpoint"
    others = [folder for folder, _ in checkpoints(run).values() if folder.name != damaged.name]
    if not others:
        return "bring the file back from a copy, or train anew: the same train command with --force"
    if _step(others[-1]) > _step(damaged):
        return f"name another checkpoint: {run} has {', '.join(folder.name for folder in others[-MOST_LISTED:])}"
    return f"remove {damaged.name} and run the same train command again: it goes on from {others[-1].name}"


def _step(checkpoint: Path) -> int:
    return int(checkpoint.name.removeprefix("step_"))
