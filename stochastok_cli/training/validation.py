"""The loss on windows of the validation split: the same windows each time, whatever the number of ranks.

Windows are validated as they are on disk. Where training expands its windows, they are validated expanded besides.
"""

import math

import numpy as np
import torch

from stochastok_cli.config import TrainingConfig
from stochastok_cli.data.samplers import Sampler
from stochastok_cli.evaluation.metrics import bits_per_byte
from stochastok_cli.models.base import CausalLM
from stochastok_cli.tokenization.vocabulary import Vocabulary
from stochastok_cli.training.backends import Backend, indices_of_windows
from stochastok_cli.training.data import Data
from stochastok_cli.training.distributed import DistributedContext
from stochastok_cli.training.prefetch import prefetch

CANONICAL, EXPANDED = "validation", "validation_expanded"
"""What the names of the metrics of each kind of window begin with."""


def validations(data: Data, training: TrainingConfig, world: DistributedContext) -> list["Validation"]:
    """The validations of a run: of windows as they are, and of expanded ones where training expands."""
    made = [Validation(data.val, training, world, data.vocabulary)]
    if data.val_expanded is not None:
        made.append(Validation(data.val_expanded, training, world, data.vocabulary, EXPANDED))
    return made


def text_widths(vocabulary: Vocabulary, device: torch.device) -> torch.Tensor:
    """The bytes of the text of each id, float64 `[vocabulary size]`; 0 for special tokens."""
    return torch.from_numpy(vocabulary.text_widths.astype(np.float64)).to(device)


class Validation:
    """Measures the loss on `eval_iters` batches of `batch_size` windows, divided over the ranks.

    Args:
        sampler: Draws the windows.
        training: Has `eval_iters` and `batch_size`.
        world: The ranks.
        vocabulary: The vocabulary of the ids, for bits per byte; special tokens count no bytes.
        name: What the names of its metrics begin with.
    """

    def __init__(
        self,
        sampler: Sampler,
        training: TrainingConfig,
        world: DistributedContext,
        vocabulary: Vocabulary,
        name: str = CANONICAL,
    ):
        self.sampler, self.training, self.world, self.name = sampler, training, world, name
        self.text_widths = text_widths(vocabulary, world.device)

    @torch.no_grad()
    def __call__(self, model: CausalLM, backend: Backend) -> dict[str, float]:
        """Returns loss (nats, the mean over windows), perplexity and bits per byte."""
        world, batch_size = self.world, self.training.batch_size
        batches = np.array(world.indices_of_rank(self.training.eval_iters), dtype=np.int64)
        own = self._divide(batches, backend)
        # Sharded models need as many forward passes on every rank. Their backend takes a batch at a time.
        is_short = len(batches) < math.ceil(self.training.eval_iters / world.world_size)
        passes = own + (self._divide(np.zeros(1, dtype=np.int64), backend) if is_short else [])
        totals = torch.zeros(2, dtype=torch.float64, device=world.device)  # nats, `weighted_bytes`
        model.eval()
        for i, batch in enumerate(prefetch(self.sampler, ((0, index) for index in passes), world.device)):
            loss = backend.loss(batch)
            if i < len(own):
                totals[0] += loss
                totals[1] += batch.weighted_bytes(self.text_widths)
        model.train()
        world.all_reduce_(totals)
        nats, num_bytes = totals.tolist()
        loss_of_window = nats / (self.training.eval_iters * batch_size)
        metrics = {
            f"{self.name}/loss": loss_of_window,
            f"{self.name}/perplexity": math.exp(loss_of_window) if loss_of_window < 700 else math.inf,
        }
        if num_bytes:
            metrics[f"{self.name}/bits_per_byte"] = bits_per_byte(nats, num_bytes)
        return metrics

    def _divide(self, batches: np.ndarray, backend: Backend) -> list[np.ndarray]:
        """The indices of the windows of each forward pass: as many windows as a training iteration of this rank takes
        at once."""
        windows = indices_of_windows(batches, self.training.batch_size)
        of_iteration = math.ceil(self.training.gradient_accumulation_steps / self.world.world_size)
        parts = (windows[first : first + of_iteration] for first in range(0, len(windows), of_iteration))
        return [index for part in parts for index in backend.micro_batches(part)]
