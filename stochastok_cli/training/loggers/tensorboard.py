"""TensorBoard event files, for `general.logging.tensorboard_log`."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from stochastok_cli.training.events import Evaluated, Event, Listener, Logged, metrics_of


@contextmanager
def tensorboard_logger(folder: Path, resumed_at: int | None) -> Iterator[Listener]:
    """A listener that writes scalars to `<folder>/tensorboard`.

    Args:
        folder: The run's folder.
        resumed_at: The iteration that the run resumes at, whose later scalars are purged; None for a new run.
    """
    from torch.utils.tensorboard import SummaryWriter

    purge_step = 0 if resumed_at is None else resumed_at + 1
    with SummaryWriter(str(folder / "tensorboard"), purge_step=purge_step) as writer:

        def write(event: Event) -> None:
            if isinstance(event, Logged | Evaluated):
                for name, value in metrics_of(event).items():
                    writer.add_scalar(name, value, event.iteration)
                writer.flush()

        yield write
