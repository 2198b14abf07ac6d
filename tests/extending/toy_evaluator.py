"""An evaluator in one file: how often the model's most likely next token is the right one."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

from stochastok_cli.evaluation.base import Evaluator, EvaluatorOutput, LoadedEvaluator, option, register
from stochastok_cli.evaluation.results import Metric, metric_group


@register
@dataclass(frozen=True)
class NextTokenAccuracy(Evaluator):
    """Accuracy of greedy next-token predictions on the beginning of a validation split."""

    name = "next_token"
    title = "Next-token accuracy"
    description = "how often the most likely next token is right"

    benchmarks: tuple[str, ...] = option((), "folders under data_as_memmaps", metavar="A,B,…")
    num_samples: int | None = option(16, "predictions", min=1)
    prompt_length: int = option(8, "tokens before each prediction", min=1)

    def load(self, vocabulary, context_window, data_dir: Path, progress) -> list[LoadedEvaluator]:
        from stochastok_cli.data.memmap import Corpus, memmap_dir

        loaded = []
        for name in self.benchmarks:
            ids = Corpus(memmap_dir(data_dir) / name).ids("val").tolist()
            n = min(self.num_samples or len(ids), len(ids) - self.prompt_length)
            prompts = [ids[i : i + self.prompt_length] for i in range(n)]
            targets = ids[self.prompt_length : self.prompt_length + n]
            run = partial(predict, name=name, prompts=prompts, targets=targets)
            loaded.append(LoadedEvaluator({metric_group(self.name, name): n}, run))
        return loaded


def predict(lm, name: str, prompts: list[list[int]], targets: list[int]) -> EvaluatorOutput:
    import numpy as np

    predictions = lm.generate_greedy(prompts, 1, lambda ids: True)
    outcomes = np.array([ids[0] == target for ids, target in zip(predictions, targets, strict=True)], dtype=np.float64)
    metric = Metric("next_token", name, "", "accuracy", float(outcomes.mean()), len(outcomes), outcomes)
    return EvaluatorOutput([metric])
