"""TensorBoard, where `general.logging.tensorboard_log` asks for it: a listener that writes event files."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from stochastok_cli.training.events import Evaluated, Event, Listener, Logged, metrics_of


@contextmanager
def tensorboard_run(folder: Path, resumed: int | None) -> Iterator[Listener]:
    """Scalars in `<folder>/tensorboard`; what an earlier call wrote after the iteration resumed from is hidden."""
    from torch.utils.tensorboard import SummaryWriter

    first = 0 if resumed is None else resumed + 1
    with SummaryWriter(str(folder / "tensorboard"), purge_step=first) as writer:

        def write(event: Event) -> None:
            if isinstance(event, Logged | Evaluated):
                for name, value in metrics_of(event).items():
                    writer.add_scalar(name, value, event.iteration)
                writer.flush()

        yield write
