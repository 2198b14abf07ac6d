"""The loss on windows of the validation split: the same windows each time, whatever the ranks."""

import math

import torch

from stochastok_cli.config import TrainingConfig
from stochastok_cli.data.samplers import Sampler
from stochastok_cli.models.llama.model import Llama
from stochastok_cli.tokenization.vocabulary import Vocabulary
from stochastok_cli.training.backends import Backend
from stochastok_cli.training.distributed import DistributedContext
from stochastok_cli.training.prefetch import prefetch


class Validation:
    """`eval_iters` batches of `batch_size` windows, divided over the ranks.

    `vocabulary` is given where the loss is to be told as bits per byte as well, which needs windows whose tokens all
    count: the bytes are those that the predicted ids spell, special tokens spelling none.
    """

    def __init__(
        self, windows: Sampler, training: TrainingConfig, world: DistributedContext, vocabulary: Vocabulary | None
    ):
        self.windows, self.training, self.world = windows, training, world
        self.byte_lengths = None if vocabulary is None else torch.from_numpy(vocabulary.text_widths).to(world.device)

    @torch.no_grad()
    def __call__(self, model: Llama, kernels: Backend) -> dict[str, float]:
        """Loss (nats, the mean over windows), perplexity and, where they can be told, bits per byte."""
        batch_size = self.training.batch_size
        keys = ((0, batch * batch_size) for batch in self.world.share(self.training.eval_iters))
        totals = torch.zeros(2, dtype=torch.float64, device=self.world.device)  # nats, bytes
        tokens = 0
        model.eval()
        for batch in prefetch(self.windows, keys, batch_size, self.world.device):
            totals[0] += kernels.loss(batch)
            if self.byte_lengths is not None:
                totals[1] += self.byte_lengths[batch.ids[:, 1:]].sum()
            tokens = batch.ids.shape[1] - 1
        model.train()
        self.world.all_reduce_(totals)
        nats, num_bytes = totals.tolist()
        loss = nats / (self.training.eval_iters * batch_size)
        metrics = {"validation/loss": loss, "validation/perplexity": math.exp(loss) if loss < 700 else math.inf}
        if num_bytes:
            metrics["validation/bits_per_byte"] = nats * tokens / math.log(2) / num_bytes
        return metrics
