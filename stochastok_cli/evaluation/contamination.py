"""Contamination: which questions of a benchmark occur in the data that were trained on.

There are two criteria: the same text, and the same predicate with the same answer, whatever the wording and the other
options (`Which word starts with 'hu'?` → `hundred`), which is all that a model has to remember.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from stochastok_cli.data.memmap import memmap_dir
from stochastok_cli.data.recipes.langgame_questions import predicate_of
from stochastok_cli.data.sft_dataset import SFTDataset
from stochastok_cli.errors import UserError
from stochastok_cli.evaluation.benchmarks import Benchmark
from stochastok_cli.evaluation.question_evaluator import UNSEEN_PREDICATE_AND_ANSWER, UNSEEN_QUESTION
from stochastok_cli.progress import ProgressCallback, no_progress


@dataclass(frozen=True)
class Contamination:
    """Which questions were trained on, bool `[questions]` each.

    Attributes:
        same_text: The text of the question occurs in the training data.
        same_predicate: Its predicate does, with the same correct answer.
    """

    same_text: np.ndarray
    same_predicate: np.ndarray


def find_contamination(
    benchmark: Benchmark, training_data: SFTDataset, *, progress: ProgressCallback = no_progress
) -> Contamination:
    """Looks for each question of `benchmark` among the rows of the training data."""
    decode = training_data.vocabulary.decode
    texts = [question.prefix for question in benchmark.questions]
    predicates = [(predicate_of(question.prefix), question.options[0].strip()) for question in benchmark.questions]
    wanted_texts, wanted_predicates = set(texts), set(predicates)
    seen_texts, seen_predicates = set(), set()
    rows, offsets = training_data.rows("train"), training_data.offsets("train")
    for i, (row, (_, middle, end)) in enumerate(zip(rows, offsets.tolist(), strict=True)):
        text = decode(row[:middle].tolist())
        if text in wanted_texts:
            seen_texts.add(text)
        key = predicate_of(text), decode(row[middle:end].tolist()).strip()
        if key in wanted_predicates:
            seen_predicates.add(key)
        if i % 4096 == 0:
            progress(f"look for {benchmark.name} in {training_data.name}", i, len(rows))
    return Contamination(
        np.array([text in seen_texts for text in texts]), np.array([key in seen_predicates for key in predicates])
    )


def uncontaminated(
    benchmark: Benchmark, data_dir: Path, *, progress: ProgressCallback = no_progress
) -> dict[str, np.ndarray]:
    """Which questions do not occur in the data that were trained on, bool `[questions]` for each criterion.

    Raises UserError where no data of this program teach the benchmark.
    """
    if benchmark.trained_on is None:
        raise UserError(
            f"benchmark {benchmark.name}: no data of this program teach it, so that nothing can have leaked",
            fix="drop --contamination (in trainer.eval: contamination)",
        )
    contamination = find_contamination(
        benchmark, SFTDataset(memmap_dir(data_dir) / benchmark.trained_on), progress=progress
    )
    return {UNSEEN_QUESTION: ~contamination.same_text, UNSEEN_PREDICATE_AND_ANSWER: ~contamination.same_predicate}
