"""The optimizer's state in a checkpoint: one file, or one for each rank where the ranks hold parts of the tensors.

The parts are written and read by `torch.distributed.checkpoint` in safetensors files, whose headers say where in the
whole tensors they belong, so any number of ranks can read them. Nothing is pickled. It is imported only for parts, as
its import takes as long as that of the rest of torch.
"""

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from stochastok_cli.errors import FAILED, UserError
from stochastok_cli.models.checkpoint_reader import OPTIMIZER, OPTIMIZER_PARTS
from stochastok_cli.training.optimizers import MASTER_WEIGHT


def save_whole(tensors: Mapping[str, Tensor], folder: Path) -> None:
    """Writes full tensors into a checkpoint's folder."""
    save_file({name: tensor.detach().cpu() for name, tensor in tensors.items()}, folder / OPTIMIZER)


def save_parts(tensors: Mapping[str, Tensor], folder: Path) -> None:
    """Writes this rank's parts of DTensors, and other tensors on one of the ranks. All ranks must call it.

    Raises OSError if a rank can't write.
    """
    import torch.distributed.checkpoint as dcp

    with _first_failure():
        writer = dcp.HuggingFaceStorageWriter(str(folder / OPTIMIZER_PARTS), save_distributed=True)
        dcp.save(dict(tensors), storage_writer=writer)


def has_parts(folder: Path) -> bool:
    """Whether a checkpoint has the state in parts."""
    return (folder / OPTIMIZER_PARTS).is_dir()


def has_master_weights(folder: Path) -> bool:
    """Whether the state has the weights, too, which the checkpoint's model has in another type."""
    files = sorted((folder / OPTIMIZER_PARTS).iterdir()) if has_parts(folder) else [folder / OPTIMIZER]
    for file in files:
        with safe_open(file, framework="pt") as stream:
            if any(name.endswith(MASTER_WEIGHT) for name in stream.keys()):  # noqa: SIM118
                return True
    return False


@torch.no_grad()
def load_whole(tensors: Mapping[str, Tensor], folder: Path) -> None:
    """Copies a state, in whichever form it was saved, into full tensors of this process."""
    if has_parts(folder):
        _read_parts(tensors, folder, on_all_ranks=False)
        return
    with safe_open(folder / OPTIMIZER, framework="pt") as stream:
        for name, tensor in tensors.items():
            tensor.copy_(stream.get_tensor(name))


@torch.no_grad()
def load_parts(tensors: Mapping[str, Tensor], folder: Path) -> None:
    """Copies a state that was saved in parts into DTensors; each rank reads its own. All ranks must call it."""
    _read_parts(tensors, folder, on_all_ranks=True)


def _read_parts(tensors: Mapping[str, Tensor], folder: Path, *, on_all_ranks: bool) -> None:
    import torch.distributed.checkpoint as dcp

    with _first_failure(), warnings.catch_warnings(action="ignore"):  # that only one process reads
        reader = dcp.HuggingFaceStorageReader(str(folder / OPTIMIZER_PARTS))
        dcp.load(dict(tensors), storage_reader=reader, no_dist=not on_all_ranks)


@contextmanager
def _first_failure() -> Iterator[None]:
    """Raises what a rank raised, out of the exception that `torch.distributed.checkpoint` raises on all ranks."""
    from torch.distributed.checkpoint.api import CheckpointException

    try:
        yield
    except CheckpointException as error:
        failure = next(iter(error.failures.values()))[0]
        if isinstance(failure, Exception):
            raise failure from None
        raise UserError(str(failure), exit_code=FAILED) from None
