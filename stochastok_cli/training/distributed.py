"""The ranks of a run: who they are, and the few things that they do together.

A run of one process is a world of size 1 in which nothing is sent. Larger worlds are described by the environment
that torchrun sets, or by srun's.
"""

import os
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from stochastok_cli.errors import FAILED, StoppedBySignal, UserError

T = TypeVar("T")


@dataclass(frozen=True)
class DistributedContext:
    """The ranks of this run, seen from one of them."""

    rank: int
    size: int
    device: torch.device

    @property
    def is_main_rank(self) -> bool:
        """Whether this is rank 0, which alone touches the run's folder and speaks."""
        return self.rank == 0

    def share(self, count: int) -> range:
        """The part of `range(count)` that this rank does."""
        return range(self.rank, count, self.size)

    def all_reduce_(self, tensor: Tensor) -> None:
        """Replaces a tensor by its sum over the ranks."""
        self.all_reduce_async(tensor)()

    def all_reduce_async(self, tensor: Tensor) -> Callable[[], None]:
        """Begins to replace a tensor by its sum over the ranks; the function that is returned waits for the end.

        All ranks must begin their sums in the same order. On GPUs it is the device that waits, not the host.
        """
        if self.size == 1 or not tensor.numel():
            return lambda: None
        with _peers():
            work = dist.all_reduce(tensor, async_op=True)

        def wait() -> None:
            with _peers():
                work.wait()

        return wait

    def broadcast_(self, tensors: Iterable[Tensor]) -> None:
        """Gives every rank the values that rank 0 has."""
        if self.size > 1:
            with torch.no_grad(), _peers():
                for tensor in tensors:
                    dist.broadcast(tensor, src=0)

    def any(self, flag: bool) -> bool:
        """Whether it is true on some rank. Goes through host memory, so the device is not waited for."""
        if self.size == 1:
            return flag
        votes = torch.tensor([int(flag)])
        with _peers():
            dist.all_reduce(votes)
        return bool(votes.item())

    def lead(self, function: Callable[[], T]) -> T:
        """What `function` returns on rank 0, on every rank. It runs there alone, and the others wait."""
        box = [function() if self.is_main_rank else None]
        if self.size > 1:
            with _peers():
                dist.broadcast_object_list(box, src=0, device=torch.device("cpu"))
        return box[0]  # type: ignore[return-value]

    def gather(self, item: T) -> list[T]:
        """Every rank's item, in their order, on every rank."""
        if self.size == 1:
            return [item]
        items: list[Any] = [None] * self.size
        with _peers():
            dist.all_gather_object(items, item)
        return items

    def synchronize(self) -> None:
        """Waits for the device, so that a clock read afterwards tells the truth."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


@contextmanager
def _peers() -> Iterator[None]:
    """Around what all ranks do together: there a rank learns that another one is gone."""
    try:
        yield
    except RuntimeError as error:
        # "[where in torch] What happened. What it may mean …"
        reason = re.sub(r"^\[[^]]*\] *", "", str(error).splitlines()[0]).split(". ")[0][:120]
        raise UserError(
            f"another process of this run has died ({reason})",
            fix="if it said nothing it was killed, perhaps for memory; the same command goes on from the checkpoint",
            exit_code=FAILED,
        ) from error


def launched() -> bool:
    """Whether this process is one of several that torchrun or srun started."""
    return "RANK" in os.environ or int(os.environ.get("SLURM_STEP_NUM_TASKS", 1)) > 1


def is_main_rank() -> bool:
    """Whether this process is rank 0, or alone."""
    return int(os.environ.get("RANK", os.environ.get("SLURM_PROCID", 0))) == 0 if launched() else True


def choose_device(wanted: str, local_rank: int = 0) -> torch.device:
    """The device of `general.device` (auto, cpu or cuda) for the local rank. UserError if it is not there."""
    if wanted == "cpu" or (wanted == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise UserError("general.device is cuda, and torch finds no CUDA device here", fix="set general.device=auto")
    if local_rank >= torch.cuda.device_count():
        raise UserError(f"there are {torch.cuda.device_count()} GPUs here, too few for local rank {local_rank}")
    return torch.device("cuda", local_rank)


def device_name(device: torch.device) -> str:
    """What people call it."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"


@contextmanager
def join(device: str) -> Iterator[DistributedContext]:
    """The world of this run, and its process group while the block lasts.

    When ranks fail, the first one's exception goes on its way to be shown. The others end silently, because what they
    have to say is most often only that the first one is gone.
    """
    if not launched():
        yield DistributedContext(rank=0, size=1, device=choose_device(device))
        return
    _adopt_srun()
    store, rank, size = next(iter(dist.rendezvous("env://")))
    try:
        chosen = choose_device(device, int(os.environ.get("LOCAL_RANK", 0)))
        if chosen.type == "cuda":
            torch.cuda.set_device(chosen)
        backend = "cpu:gloo,cuda:nccl" if chosen.type == "cuda" else "gloo"
        dist.init_process_group(backend, store=dist.PrefixStore("world", store), rank=rank, world_size=size)
        yield DistributedContext(rank=rank, size=size, device=chosen)
    except StoppedBySignal:  # all of them agreed on it
        dist.destroy_process_group()
        raise
    except (Exception, KeyboardInterrupt):
        if not _is_first_to_fail(store):
            raise SystemExit(FAILED) from None
        raise
    else:
        dist.destroy_process_group()


def _is_first_to_fail(store: dist.Store) -> bool:
    try:
        return store.add("failed", 1) == 1
    except RuntimeError:  # the store is gone, and with it the process that started all
        return False


def _adopt_srun() -> None:
    """Gives srun's variables the names that torch reads; where to meet can't be known from them."""
    if "RANK" in os.environ:
        return
    if "MASTER_ADDR" not in os.environ:
        raise UserError(
            "srun started several processes, and MASTER_ADDR does not say where they meet",
            fix="export MASTER_ADDR as the first host's name, or start with srun torchrun … -m stochastok_cli train …",
        )
    os.environ.setdefault("MASTER_PORT", "29500")
    os.environ["RANK"] = os.environ["SLURM_PROCID"]
    os.environ["WORLD_SIZE"] = os.environ["SLURM_STEP_NUM_TASKS"]
    os.environ["LOCAL_RANK"] = os.environ["SLURM_LOCALID"]
