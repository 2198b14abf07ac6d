"""Evaluators on two ranks, as processes that communicate through gloo: the metrics of one process, and on every rank
the same number of forward passes, which sharded models need."""

import json
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing

from stochastok_cli.data.recipes.addition import make_addition
from stochastok_cli.data.recipes.langgame import make_langgame
from stochastok_cli.evaluation.base import Evaluator
from stochastok_cli.evaluation.evaluators.alignment import Alignment
from stochastok_cli.evaluation.evaluators.bits_per_byte import BitsPerByte
from stochastok_cli.evaluation.evaluators.math_generation import MathGeneration
from stochastok_cli.evaluation.evaluators.multiple_choice import MultipleChoice
from stochastok_cli.evaluation.run import load_evaluators, run_evaluators
from stochastok_cli.evaluation.scoring import LM, SINGLE_PROCESS, Ranks
from stochastok_cli.tokenization.loaders import load_vocabulary
from stochastok_cli.training.distributed import DistributedContext
from tests.evaluation.test_bits_per_byte import flat_ids, save
from tests.models.small_models import sharp_model, small_config

WINDOW = 128
BATCH_TOKENS = 600  # several batches of each kind
EVALUATORS: dict[str, Evaluator] = {
    "mcq": MultipleChoice(("langgame-val",), num_samples=25, tokenization="uniform:0.3", samples=2, adversarial=20),
    "one question": MultipleChoice(("langgame-val",), num_samples=1),
    "math_generation": MathGeneration(num_samples=30),
    "one sum": MathGeneration(num_samples=1),
    "bits_per_byte": BitsPerByte(("text-tokenized",), tokenization="uniform:0.2", samples=2),
    "one window": BitsPerByte(("text-tokenized",), num_samples=1),
    "alignment": Alignment(num_samples=40, prompt="The old house", samples=3),
    "one word": Alignment(num_samples=1),
}


def run_all(data_dir: Path, ranks: Ranks) -> dict[str, dict]:
    """The metrics of each evaluator, its completions, and the number of forward passes and of tokens in them."""
    vocabulary = load_vocabulary("sample2k")
    model = sharp_model(small_config(context_window=WINDOW))
    passes = tokens = 0

    def count(module, arguments, output):
        nonlocal passes, tokens
        passes += 1
        tokens += arguments[0].numel()

    model.register_forward_hook(count)
    results = {}
    for name, evaluator in EVALUATORS.items():
        loaded = load_evaluators([evaluator], data_dir, vocabulary, WINDOW)
        passes = tokens = 0
        output = run_evaluators(LM(model, vocabulary, BATCH_TOKENS, ranks=ranks), loaded)
        results[name] = {"metrics": output.values, "completions": output.completions}
        results[name] |= {"passes": passes, "tokens": tokens}
    return results


def run_rank(rank: int, folder: Path) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder / 'store'}", rank=rank, world_size=2)
    results = run_all(folder, DistributedContext(rank, 2, torch.device("cpu")))
    (folder / f"rank{rank}.json").write_text(json.dumps(results))
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> list[dict[str, dict]]:
    """Of one process, and of both ranks of two."""
    folder, vocabulary = tmp_path_factory.mktemp("ranks"), load_vocabulary("sample2k")
    save(flat_ids(vocabulary), vocabulary, folder)
    make_langgame(vocabulary, folder, train_size=30, val_size=30)
    make_addition(vocabulary, folder, num_digits=2, val_fraction=0.01)
    torch.multiprocessing.spawn(run_rank, (folder,), nprocs=2)
    return [run_all(folder, SINGLE_PROCESS), *(json.loads((folder / f"rank{r}.json").read_text()) for r in (0, 1))]


@pytest.mark.slow
@pytest.mark.parametrize("name", EVALUATORS)
def test_both_ranks_have_the_metrics_of_one_process(results, name):
    alone, first, second = (result[name] for result in results)
    assert list(alone["metrics"]) == list(first["metrics"]) == list(second["metrics"])
    assert first["metrics"] == pytest.approx(alone["metrics"], rel=1e-6)
    assert (first["metrics"], first["completions"]) == (second["metrics"], second["completions"])
    assert first["completions"] == alone["completions"]


@pytest.mark.parametrize("name", EVALUATORS)
def test_both_ranks_make_the_same_number_of_forward_passes(results, name):
    alone, first, second = (result[name]["passes"] for result in results)
    assert first == second
    assert first <= alone
    if not name.startswith("one "):
        tokens = [result[name]["tokens"] for result in results]
        assert max(tokens[1:]) < 0.8 * tokens[0]  # the work is shared
