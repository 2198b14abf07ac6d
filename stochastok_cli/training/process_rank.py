"""What the environment says of this process: whether it is one of several ranks, and which. Without torch."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from stochastok_cli.errors import UserError


def is_distributed() -> bool:
    """Whether this process is one of several that torchrun or srun started."""
    return "RANK" in os.environ or int(os.environ.get("SLURM_STEP_NUM_TASKS", 1)) > 1


def is_main_process() -> bool:
    """Whether this process is rank 0, or the only one."""
    return int(os.environ.get("RANK", os.environ.get("SLURM_PROCID", 0))) == 0 if is_distributed() else True


@contextmanager
def errors_of_rank_0() -> Iterator[None]:
    """Around checks that come out the same on all ranks, before these know of each other: the others end silently."""
    try:
        yield
    except UserError as error:
        if is_main_process():
            raise
        raise SystemExit(error.exit_code) from None
