"""The trainer with an architecture that it has never seen: one that is registered here."""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from stochastok_cli.config import load_config
from stochastok_cli.errors import UserError
from stochastok_cli.models import base
from stochastok_cli.models.base import CausalLM, ModelSpec, load_model, register_model
from stochastok_cli.training.plan import plan
from stochastok_cli.training.train import train
from tests.training.runs import metrics, tensors, train_at_once_and_in_parts, validation_losses


@dataclass(frozen=True)
class BagConfig:
    context_window: int
    vocab_size: int
    width: int


class Bag(CausalLM):
    """Predicts from the mean of all embeddings so far: the smallest causal model there is."""

    model_type = "bag"

    def __init__(self, config: BagConfig, dropout: float) -> None:
        super().__init__()
        self.config, self.dropout = config, nn.Dropout(dropout)
        self.context_window, self.vocab_size = config.context_window, config.vocab_size
        self.embedding = nn.Embedding(config.vocab_size, config.width)
        self.body = nn.ModuleList([nn.Linear(config.width, config.width)])
        self.head = nn.Linear(config.width, config.vocab_size, bias=False)

    def forward(self, ids, segment_start=None, cache=None):
        assert cache is None
        x = self.dropout(self.embedding(ids))
        x = x.cumsum(1) / torch.arange(1, ids.shape[1] + 1, device=ids.device)[:, None]
        return x + self.body[0](x).relu()

    @property
    def head_weight(self):
        return self.head.weight

    def logits(self, hidden):
        return self.head(hidden)

    @property
    def blocks(self):
        return list(self.body)

    def flops_per_token(self, context_window):
        return 6 * self.num_matrix_parameters()


def read_config(folder: Path) -> BagConfig:
    tree = json.loads((folder / "config.json").read_text())
    return BagConfig(tree["context_window"], tree["vocab_size"], tree["width"])


def save(model, folder, vocabulary, state_dict=None) -> None:
    config = {"model_type": "bag", **dataclasses.asdict(model.config)}
    (folder / "config.json").write_text(json.dumps(config))
    save_file({k: t.contiguous() for k, t in (state_dict or model.state_dict()).items()}, folder / "model.safetensors")
    vocabulary.save_tokenizer(folder)


def load_weights(model, folder) -> None:
    model.load_state_dict(load_file(folder / "model.safetensors"))


@pytest.fixture
def bag(tmp_path, vocabulary, monkeypatch) -> Path:
    """A folder with an untrained model of an architecture that is registered for the time of a test."""
    monkeypatch.setattr(base, "_specs", dict(base.model_specs()))
    register_model(ModelSpec("bag", read_config, Bag, load_weights, save))
    folder = tmp_path / "bag"
    folder.mkdir()
    torch.manual_seed(0)
    save(Bag(BagConfig(context_window=16, vocab_size=2048, width=8), 0.0), folder, vocabulary)
    return folder


def test_it_trains_resumes_and_its_checkpoints_open(configured, bag):
    options = (f"trainer.checkpoint_name={bag}", "trainer.optimizer.lr=3e-2")
    straight, parts = train_at_once_and_in_parts(configured, *options)
    assert tensors(parts.checkpoint) == tensors(straight.checkpoint)
    assert isinstance(load_model(straight.checkpoint), Bag)
    child = train(configured(f"trainer.checkpoint_name={straight.checkpoint}"), run_name="child")
    first = metrics(child.folder)[0]["validation/loss"]
    assert first == pytest.approx(validation_losses(straight.folder)[-1], rel=1e-6)


def test_what_is_recorded_of_it_opens(configured, bag):
    config = configured(f"trainer.checkpoint_name={bag}", "trainer.training.max_iters=1")
    seen = []
    trained = train(config, listeners=[seen.append])
    recorded = load_config(str(trained.folder / "config.yaml"))
    assert (recorded.model.context_window, recorded.model.vocab_size) == (16, 2048)
    assert any(getattr(e, "text", "").startswith("model.context_window = 16 as in ") for e in seen)
    assert plan(config) == trained.folder  # complete: the configuration counts as the same
    planned = plan(configured(f"trainer.checkpoint_name={bag}"), run_name="other")
    assert planned.flops_per_token == 6 * (2 * 2048 * 8 + 8 * 8 - 2048 * 8)  # without the embedding
    assert (planned.kernels, planned.tokens_per_iteration) == ("reference", 3 * 4 * 16)


def test_instruction_data_and_benchmarks_work(configured, bag):
    options = (
        "trainer.dataset.name=langgame",
        "trainer.dataset.is_instruction=true",
        "trainer.training.max_iters=2",
        "model.context_window=128",
    )
    tree = {**json.loads((bag / "config.json").read_text()), "context_window": 128}
    (bag / "config.json").write_text(json.dumps(tree))
    trained = train(configured(f"trainer.checkpoint_name={bag}", *options))
    assert trained.iteration == 2


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.hidden_dim=32", "model.hidden_dim does not apply to .*bag, whose model_type is 'bag'"),
        ("model.context_window=32", "has model.context_window = 16, not 32; its weights fit no other model"),
        ("general.kernels=fused", "general.kernels is fused, but there are none for this architecture"),
    ],
)
def test_what_it_does_not_have_is_refused(configured, bag, override, message):
    with pytest.raises(UserError, match=message):
        train(configured(f"trainer.checkpoint_name={bag}", override))
