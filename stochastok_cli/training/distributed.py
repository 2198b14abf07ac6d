"""The ranks of a run: which one this process is, and the collective operations that the trainer uses.

A single process is a world of size 1, in which nothing is sent. Larger worlds are described by the environment
variables that torchrun or srun sets.
"""

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor

from stochastok_cli.errors import FAILED, StoppedBySignal, UserError, count_of
from stochastok_cli.training.lost_ranks import RankWatcher, end_by_itself, lost_rank, report_lost_ranks
from stochastok_cli.training.process_rank import is_distributed

T = TypeVar("T")


@dataclass(frozen=True)
class DistributedContext:
    """This process's rank, the number of ranks, and the device of this rank."""

    rank: int
    world_size: int
    device: torch.device

    @property
    def is_main(self) -> bool:
        """Whether this is rank 0, which alone reads and writes the run's folder and prints."""
        return self.rank == 0

    def indices_of_rank(self, count: int) -> range:
        """The indices of `range(count)` that this rank processes: every `world_size`-th, from its rank on."""
        return range(self.rank, count, self.world_size)

    def all_reduce_(self, tensor: Tensor) -> None:
        """Replaces a tensor by its sum over the ranks."""
        self.all_reduce_async(tensor)()

    def all_reduce_async(self, tensor: Tensor) -> Callable[[], None]:
        """Starts to replace a tensor by its sum over the ranks. All ranks must start their sums in the same order.

        Returns:
            A function that waits for the end. On GPUs the device waits, not the host.
        """
        if self.world_size == 1 or not tensor.numel():
            return lambda: None
        with report_lost_ranks():
            work = dist.all_reduce(tensor, async_op=True)

        def wait() -> None:
            with report_lost_ranks():
                work.wait()

        return wait

    def all_gather(self, tensor: Tensor) -> Tensor:
        """The tensors of all ranks, one after another along the first dimension. They must have one shape and type."""
        if self.world_size == 1:
            return tensor
        gathered = tensor.new_empty((self.world_size * len(tensor), *tensor.shape[1:]))
        with report_lost_ranks():  # as bytes, since not every backend has every type
            dist.all_gather_into_tensor(gathered.view(torch.uint8), tensor.contiguous().view(torch.uint8))
        return gathered

    def broadcast_(self, tensors: Iterable[Tensor]) -> None:
        """Copies the values of rank 0 into the tensors of all ranks."""
        if self.world_size > 1:
            with torch.no_grad(), report_lost_ranks():
                for tensor in tensors:
                    dist.broadcast(tensor, src=0)

    def any(self, flag: bool) -> bool:
        """Whether the flag is true on any rank. It travels through host memory, so the device is not waited for."""
        if self.world_size == 1:
            return flag
        votes = torch.tensor([int(flag)])
        with report_lost_ranks():
            dist.all_reduce(votes)
        return bool(votes.item())

    def broadcast_from_rank_0(self, function: Callable[[], T]) -> T:
        """Calls a function on rank 0 only, while the others wait, and returns its result on every rank."""
        result = [function() if self.is_main else None]
        if self.world_size > 1:
            with report_lost_ranks():
                dist.broadcast_object_list(result, src=0, device=torch.device("cpu"))
        return result[0]  # type: ignore[return-value]

    def all_gather_object(self, item: T) -> list[T]:
        """Returns the items of all ranks, in the order of ranks, on every rank. Items must be picklable."""
        if self.world_size == 1:
            return [item]
        items: list[Any] = [None] * self.world_size
        with report_lost_ranks():
            dist.all_gather_object(items, item)
        return items

    def synchronize(self) -> None:
        """Waits until the device has finished all work, as before a clock is read."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def choose_device(wanted: str, local_rank: int = 0) -> torch.device:
    """The device for `general.device` (auto, cpu or cuda) and a local rank. Raises UserError if it does not exist."""
    if wanted == "cpu" or (wanted == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise UserError("general.device is cuda, and torch finds no CUDA device here", fix="set general.device=auto")
    if local_rank >= torch.cuda.device_count():
        raise UserError(
            f"this machine has {count_of(torch.cuda.device_count(), 'GPU')}, too few for local rank {local_rank}"
        )
    return torch.device("cuda", local_rank)


def device_name(device: torch.device) -> str:
    """The GPU's product name, or `CPU`."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"


@contextmanager
def distributed_context(device: str) -> Iterator[DistributedContext]:
    """The context of this process, with a process group until the block ends where there are several.

    When ranks fail, only the first failure is raised as it is. The other ranks exit silently, because their errors are
    mostly consequences of the first. When a rank dies, the others end, whatever they wait for.
    """
    if not is_distributed():
        yield DistributedContext(rank=0, world_size=1, device=choose_device(device))
        return
    _export_srun_variables()
    store, rank, world_size = next(iter(dist.rendezvous("env://")))
    watcher: RankWatcher | None = None
    try:
        chosen = choose_device(device, int(os.environ.get("LOCAL_RANK", 0)))
        if chosen.type == "cuda":
            torch.cuda.set_device(chosen)
        backend = "cpu:gloo,cuda:nccl" if chosen.type == "cuda" else "gloo"
        dist.init_process_group(backend, store=dist.PrefixStore("world", store), rank=rank, world_size=world_size)
        watcher = RankWatcher(lambda: _is_first_to_fail(store))
        yield DistributedContext(rank=rank, world_size=world_size, device=chosen)
        watcher.close()
    except StoppedBySignal:  # all ranks raise it together
        assert watcher is not None
        watcher.close()
        dist.destroy_process_group()
        raise
    except (Exception, KeyboardInterrupt) as error:
        end_by_itself()
        # Operations inside of torch, as those of FSDP, raise their own errors where another rank has ended.
        is_caused_by_loss = isinstance(error, RuntimeError) and watcher is not None and watcher.sees_a_loss()
        if not _is_first_to_fail(store):
            raise SystemExit(FAILED) from None
        if is_caused_by_loss:
            raise lost_rank(cast(RuntimeError, error)) from error
        raise
    else:
        dist.destroy_process_group()


def _is_first_to_fail(store: dist.Store) -> bool:
    try:
        return store.add("failed", 1) == 1
    except RuntimeError:  # the process that holds the store has ended
        return False


def _export_srun_variables() -> None:
    """Sets the variables that torch reads from those of srun, which do not include the address of rank 0."""
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
