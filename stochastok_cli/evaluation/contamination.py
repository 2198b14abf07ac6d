"""Leakage: which of the questions asked stand in the data trained on.

Two senses: the very text, and the same thing asked of the same answer whatever the wording and the other options
(`Which word starts with 'hu'?` → `hundred`), which is all that a model need remember.
"""

from dataclasses import dataclass

import numpy as np

from stochastok_cli.data.recipes.langgame_questions import predicate_of
from stochastok_cli.data.sft_dataset import SFTDataset
from stochastok_cli.evaluation.benchmarks import Benchmark
from stochastok_cli.progress import ProgressCallback, no_progress


@dataclass(frozen=True)
class Contamination:
    """By question, bool `[questions]`: its text was trained on; what it asks was, with the same right answer."""

    same_text: np.ndarray
    same_ask: np.ndarray


def contamination_of(
    benchmark: Benchmark, trained: SFTDataset, *, progress: ProgressCallback = no_progress
) -> Contamination:
    """Looks for each question of `benchmark` among the rows to train on."""
    decode = trained.vocabulary.decode
    texts = {question.prefix for question in benchmark.questions}
    asks = [(predicate_of(question.prefix), question.options[0].strip()) for question in benchmark.questions]
    seen_texts, seen_asks = set(), set()
    wanted = set(asks)
    rows, offsets = trained.rows("train"), trained.offsets("train")
    for i, (row, (_, middle, end)) in enumerate(zip(rows, offsets.tolist(), strict=True)):
        text = decode(row[:middle].tolist())
        if text in texts:
            seen_texts.add(text)
        key = predicate_of(text), decode(row[middle:end].tolist()).strip()
        if key in wanted:
            seen_asks.add(key)
        if i % 4096 == 0:
            progress(f"look for {benchmark.name} in {trained.name}", i, len(rows))
    return Contamination(
        np.array([question.prefix in seen_texts for question in benchmark.questions]),
        np.array([key in seen_asks for key in asks]),
    )
