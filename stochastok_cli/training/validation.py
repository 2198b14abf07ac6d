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
from stochastok_cli.training.backends import Backend
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
        batches = list(world.indices_of_rank(self.training.eval_iters))
        # Every rank makes the same number of forward passes, which sharded models need. Extra ones are not counted.
        passes = math.ceil(self.training.eval_iters / world.world_size)
        padded = batches + [0] * (passes - len(batches))
        keys = ((0, np.arange(batch * batch_size, (batch + 1) * batch_size)) for batch in padded)
        totals = torch.zeros(2, dtype=torch.float64, device=world.device)  # nats, `weighted_bytes`
        model.eval()
        for i, batch in enumerate(prefetch(self.sampler, keys, world.device)):
            loss = backend.loss(batch)
            if i < len(batches):
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
