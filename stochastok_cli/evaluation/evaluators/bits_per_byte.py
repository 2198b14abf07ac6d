"""Bits per byte: the loss on a corpus over the bytes of its text, so that models and tokenizations compare."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from stochastok_cli.data.folders import find_dataset, short_dataset_name
from stochastok_cli.errors import UserError
from stochastok_cli.evaluation.base import (
    Direction,
    Evaluator,
    EvaluatorOutput,
    LoadedEvaluator,
    duplicates,
    option,
    register,
)
from stochastok_cli.evaluation.results import Metric, metric_group

if TYPE_CHECKING:
    import numpy as np

    from stochastok_cli.evaluation.robustness import Tokenization
    from stochastok_cli.evaluation.scoring import LM
    from stochastok_cli.progress import ProgressCallback
    from stochastok_cli.tokenization.vocabulary import Vocabulary


@register
@dataclass(frozen=True)
class BitsPerByte(Evaluator):
    """Bits per byte of validation text, and over all tokenizations of it."""

    name = "bits_per_byte"
    title = "Bits per byte of the validation text (lower is better)"
    description = "loss on validation text"
    unit = "tokens"
    has_outcomes = False
    meanings: ClassVar[Mapping[str, str]] = {
        "canonical": "bits per byte of the ids as they are",
        "all_tokenizations": "bits per byte of the sum over all tokenizations",
        "monte_carlo_error": "standard error of that sum, with the bias of its logarithm",
        "effective_sample_size": "how many draws of equal weight would say as much about the other tokenizations",
    }
    directions: ClassVar[Mapping[str, Direction | None]] = {
        "bits_per_byte": "lower",
        "canonical": "lower",
        "all_tokenizations": "lower",
        "monte_carlo_error": None,
        "effective_sample_size": None,
    }
    accuracies = ()
    main_metrics = ("bits_per_byte",)

    benchmarks: tuple[str, ...] = option((), "folders under data_as_memmaps, or paths of such folders", metavar="A,B,…")
    num_samples: int | None = option(None, "windows of text", min=1, show_default="all")
    tokenization: str | None = option(
        None, "also over all tokenizations, by importance sampling from uniform:P", metavar="METHOD:P"
    )
    samples: int | None = option(None, "how many other tokenizations with --tokenization", min=1, show_default="8")

    @classmethod
    def benchmarks_hint(cls) -> str:
        return "name folders under data_as_memmaps, separated by commas"

    def check(self) -> None:
        super().check()
        if twice := duplicates(map(short_dataset_name, self.benchmarks)):
            raise UserError(f"--benchmarks names {', '.join(twice)} twice", fix="one result has room under that name")
        self._tokenization()

    def absent_data(self, data_dir: Path) -> list[Path]:
        folders = [find_dataset(name, data_dir) for name in self.benchmarks]
        return [folder for folder in folders if not folder.is_dir()]

    def _tokenization(self) -> "Tokenization | None":
        from stochastok_cli.evaluation.marginal import require_known_probability
        from stochastok_cli.evaluation.robustness import optional_tokenization

        tokenization = optional_tokenization(self.tokenization, self.samples)
        if tokenization is not None:
            require_known_probability(tokenization)
        return tokenization

    def load(
        self, vocabulary: "Vocabulary", context_window: int, data_dir: Path, progress: "ProgressCallback"
    ) -> list[LoadedEvaluator]:
        from stochastok_cli.evaluation.marginal import require_draws_fit
        from stochastok_cli.tokenization.expansion import StochasTok

        tokenization = self._tokenization()
        if tokenization is not None:
            StochasTok(vocabulary, tokenization.p, tokenization.method)  # raises UserError for an impossible one
        num_tokens = None if self.num_samples is None else self.num_samples * context_window
        texts = [load_validation_text(name, data_dir, vocabulary, num_tokens=num_tokens) for name in self.benchmarks]
        if tokenization is not None:
            for text in texts:
                require_draws_fit(text.name, text.ids, vocabulary, tokenization, context_window)
        return [
            LoadedEvaluator(
                {metric_group(self.name, text.name): len(text.ids)},
                partial(evaluate_bits_per_byte, text=text, tokenization=tokenization),
            )
            for text in texts
        ]


@dataclass(frozen=True)
class ScoredText:
    """The ids of a corpus, `[tokens]`, as they are on disk, and the number of bytes of their text."""

    name: str
    ids: "np.ndarray"
    num_bytes: int


def load_validation_text(
    name: str, data_dir: Path, vocabulary: "Vocabulary", *, num_tokens: int | None = None
) -> ScoredText:
    """The val split of a dataset (see `find_dataset`), or its first `num_tokens` ids.

    Raises UserError if the folder's vocabulary is another, or if there is no text in the split.
    """
    from stochastok_cli.data.memmap import Corpus
    from stochastok_cli.manifest import same_tokenizer

    corpus = Corpus(find_dataset(name, data_dir))
    recorded = (corpus.manifest and corpus.manifest.tokenizer) or corpus.vocabulary
    if not same_tokenizer(recorded.fingerprint, vocabulary.fingerprint):
        raise UserError(
            f"{corpus.path} was made with the tokenizer {recorded.name!r}, which is not the model's",
            fix="give a dataset that was made with the model's",
        )
    ids = corpus.ids("val")[:num_tokens]
    num_bytes = count_bytes(ids, vocabulary)
    if not num_bytes:
        raise UserError(f"{corpus.path / 'val.bin'} holds no text to score")
    return ScoredText(corpus.name, ids, num_bytes)


def count_bytes(ids: "np.ndarray", vocabulary: "Vocabulary") -> int:
    """The number of bytes of the text of ids; special tokens, end-of-text among them, count none.

    Raises UserError for an id that the vocabulary does not have.
    """
    lengths = vocabulary.text_widths
    if len(ids) and int(ids.max()) >= len(lengths):
        raise UserError(
            f"the id {int(ids.max())} is not in the vocabulary {vocabulary.name!r}",
            fix="the data are damaged or of another tokenizer: make them again",
        )
    step = 2**24  # a corpus may be larger than the memory
    return sum(int(lengths[ids[start : start + step]].sum()) for start in range(0, len(ids), step))


def evaluate_bits_per_byte(lm: "LM", text: ScoredText, tokenization: "Tokenization | None" = None) -> EvaluatorOutput:
    """The negative log2-likelihood of all ids over the number of bytes of their text.

    The ids are cut into consecutive windows of `context_window` (the last may be shorter). Every id is scored exactly
    once: given the ids before it in its window and the one id before the window, which for the first window is
    end-of-text. An end-of-text id is scored too, since a model must also predict where a document ends, and counts no
    bytes.

    Two tokenizations of a text thus have the same number of bytes and of document ends. What differs is the length of
    the context, which is counted in tokens. The beginning of a split (`num_tokens`) compares models, not
    tokenizations: equal numbers of ids are different stretches of text.
    """
    import numpy as np

    from stochastok_cli.evaluation.metrics import bits_per_byte

    ids, window = text.ids, lm.context_window
    start_of_text = np.array([lm.vocabulary.end_of_text], dtype=ids.dtype)
    pairs = [
        (ids[start - 1 : start] if start else start_of_text, ids[start : start + window])
        for start in range(0, len(ids), window)
    ]
    nats = -lm.log_likelihoods(pairs, description=text.name).sum()
    value = float(bits_per_byte(nats, text.num_bytes))
    output = EvaluatorOutput([Metric("bits_per_byte", text.name, "", "bits_per_byte", value, len(ids))])
    if tokenization is not None:
        from stochastok_cli.evaluation.marginal import evaluate_marginal

        output += evaluate_marginal(lm, text.name, ids, text.num_bytes, tokenization)
    return output
