"""Alignment: do the tokenizations of a word end in similar activations? (Figures 11 to 13 of the StochasTok paper)

A word, with the space before it, is read after an end-of-text id in its canonical tokenization and in others. The
activations at its last id are compared after each attention layer, in the residual stream before the feed-forward.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from stochastok_cli.errors import UserError
from stochastok_cli.evaluation.base import Direction, Evaluator, EvaluatorOutput, LoadedEvaluator, option, register
from stochastok_cli.evaluation.results import Curve, Metric, metric_group

if TYPE_CHECKING:
    from stochastok_cli.data.word_list import WordList
    from stochastok_cli.evaluation.robustness import Tokenization
    from stochastok_cli.evaluation.scoring import LM
    from stochastok_cli.progress import ProgressCallback
    from stochastok_cli.tokenization.expansion import StochasTok
    from stochastok_cli.tokenization.vocabulary import Vocabulary

DEFAULT_TOKENIZATION = "uniform:1.0"
PCA_WORDS = 20
MAX_NEW_TOKENS = 24  # of a completion


@register
@dataclass(frozen=True)
class Alignment(Evaluator):
    """Distances between the activations of a word's tokenizations, after each attention layer."""

    name = "alignment"
    title = "Distance between the tokenizations of a word, after each attention layer"
    description = "distances inside the model between tokenizations of a word"
    unit = "words"
    parts_table = "{benchmark}"
    same_questions = False  # a word counts where its tokenizer can cut it in another way
    meanings: ClassVar[Mapping[str, str]] = {
        "distance": "mean Euclidean distance between the activations of two tokenizations of a word",
        "relative": "distance over the mean distance between the activations of two words",
    }
    directions: ClassVar[Mapping[str, Direction | None]] = {
        "distance": "lower",
        "relative": "lower",
    }
    accuracies = ()
    main_metrics = ()

    num_samples: int | None = option(None, "words", min=1, show_default="all")
    tokenization: str | None = option(
        None, f"the other tokenizations of a word ({DEFAULT_TOKENIZATION} where absent)", metavar="METHOD:P"
    )
    samples: int | None = option(None, "how many other tokenizations with --tokenization", min=1, show_default="8")
    words: Path | None = option(None, "one word a line; the bundled list where absent", metavar="FILE")
    prompt: str | None = option(
        None, "also complete this text in every tokenization", metavar="TEXT", in_training=False
    )

    def check(self) -> None:
        super().check()
        if self.prompt == "":
            raise UserError("--prompt is empty")
        self._tokenization()

    def _tokenization(self) -> "Tokenization":
        from stochastok_cli.evaluation.robustness import parse_tokenization

        return parse_tokenization(self.tokenization or DEFAULT_TOKENIZATION, self.samples)

    def load(
        self, vocabulary: "Vocabulary", context_window: int, data_dir: Path, progress: "ProgressCallback"
    ) -> list[LoadedEvaluator]:
        from stochastok_cli.data.word_list import read_words

        tokenization = self._tokenization()
        if self.prompt is not None:
            prompts = prompt_tokenizations(self.prompt, vocabulary, tokenization)
            longest = max(len(before) + len(ids) for before, ids in prompts)
            if longest > context_window:
                raise UserError(
                    f"--prompt has {longest} tokens in one of its tokenizations, and the model's context window is "
                    f"{context_window}",
                    fix="give a shorter prompt",
                )
        words = tokenize_words(read_words(self.words), vocabulary, tokenization, self.num_samples, context_window)
        counts = {metric_group(self.name, tokenization.name): len(words.words)}
        return [LoadedEvaluator(counts, partial(self._run, words=words, tokenization=tokenization))]

    def _run(self, lm: "LM", *, words: "TokenizedWords", tokenization: "Tokenization") -> EvaluatorOutput:
        output = evaluate_alignment(lm, words, tokenization.name)
        if self.prompt is not None:
            output.completions = complete(lm, self.prompt, tokenization)
        return output


@dataclass(frozen=True)
class TokenizedWords:
    """Words and their distinct tokenizations.

    Attributes:
        words: The words.
        tokenizations: For each word two or more, the canonical one first; each begins as documents do: with the ids
            that the tokenizer puts before every text, such as Llama's beginning-of-text, or else with end-of-text.
    """

    words: list[str]
    tokenizations: list[list[list[int]]]


def tokenize_words(
    words: "WordList",
    vocabulary: "Vocabulary",
    tokenization: "Tokenization",
    num_words: int | None,
    context_window: int,
) -> TokenizedWords:
    """Always the same sample of `num_words` words (all where None) that have other tokenizations among the draws.

    Raises UserError if there are none.
    """
    from stochastok_cli.evaluation.prompts import PromptEncoder
    from stochastok_cli.random_streams import stream
    from stochastok_cli.tokenization.expansion import StochasTok

    begin = PromptEncoder.of(vocabulary).before or [vocabulary.end_of_text]
    expanders = [
        StochasTok(vocabulary, tokenization.p, tokenization.method, seed=seed) for seed in range(tokenization.samples)
    ]
    if not words.words:
        raise UserError(f"{words.name} holds no words", fix="one word a line")
    kept, tokenizations, plain = [], [], []
    for index in stream(0, "alignment/words").permutation(len(words.words)).tolist():
        canonical = vocabulary.encode(f" {words.words[index]}")
        plain.append(canonical)
        drawn = [tuple(canonical), *(tuple(expand(canonical, index).tolist()) for expand in expanders)]
        most = context_window - len(begin)
        distinct = [[*begin, *ids] for ids in dict.fromkeys(drawn) if len(ids) <= most]
        if len(distinct) > 1:
            kept.append(words.words[index])
            tokenizations.append(distinct)
        if len(kept) == num_words:
            break
    if not kept:
        reason = _why_nothing_is_cut(expanders[0], plain)
        raise UserError(f"{tokenization.text} cuts none of the {len(words.words):,} words in another way{reason}")
    return TokenizedWords(kept, tokenizations)


def _why_nothing_is_cut(expand: "StochasTok", words: list[list[int]]) -> str:
    """What goes after "… cuts none of the words in another way". `words` are their canonical ids."""
    import numpy as np

    from stochastok_cli.tokenization.unsplit import why_nothing_is_split

    method = expand.definition
    if method.keeps_token_boundaries:
        used, longest = np.unique(np.concatenate(words)), max(map(len, words))
        if reason := why_nothing_is_split(expand, used, longest):
            return reason
    return "; give a larger p" if method.takes_p and expand.p < method.max_p else "; take another method"


def evaluate_alignment(lm: "LM", words: TokenizedWords, benchmark: str) -> EvaluatorOutput:
    """Distances and relative distances by layer, as metrics of the parts "layer_1", "layer_2", ….

    distance: the mean Euclidean distance between two tokenizations of a word (over its pairs, then over the words);
    relative: `distance` divided by the mean distance between two words, since activations grow from layer to layer and
    differ from model to model. The curve "" has the relative distances by layer. The curve "pca" has the first two
    principal components of the last layer's activations of the first PCA_WORDS words.
    """
    import numpy as np

    from stochastok_cli.evaluation.activations import last_activations, require_residual_layers
    from stochastok_cli.evaluation.metrics import mean_distance, principal_components
    from stochastok_cli.evaluation.scoring import require_finite

    require_residual_layers(lm.model)
    activations = last_activations(lm, [ids for tokenizations in words.tokenizations for ids in tokenizations])
    require_finite(activations.sum(axis=(1, 2)), "alignment")
    by_word = np.split(activations, np.cumsum([len(tokenizations) for tokenizations in words.tokenizations])[:-1])
    metrics: list[Metric] = []
    points: list[dict[str, Any]] = []

    def add(layer: int, name: str, outcomes: np.ndarray) -> float:
        value = float(outcomes.mean())
        metrics.append(Metric("alignment", benchmark, f"layer_{layer}", name, value, len(outcomes), outcomes, None))
        return value

    for i in range(activations.shape[1]):
        within = np.array([mean_distance(word[:, i]) for word in by_word])
        add(i + 1, "distance", within)
        between = mean_distance(np.array([word[0, i] for word in by_word]))
        if between > 0:  # two words or more
            points.append({"x": i + 1, "y": add(i + 1, "relative", within / between), "n": len(by_word)})
    labels = [word for word, ways in zip(words.words[:PCA_WORDS], by_word, strict=False) for _ in ways]
    plane = principal_components(np.concatenate([word[:, -1] for word in by_word[:PCA_WORDS]]))
    pca = [{"x": x, "y": y, "word": word} for (x, y), word in zip(plane.tolist(), labels, strict=True)]
    curves = [Curve("alignment", benchmark, "", points)] if points else []
    return EvaluatorOutput(metrics, [*curves, Curve("alignment", benchmark, "pca", pca)])


def complete(lm: "LM", prompt: str, tokenization: "Tokenization") -> list[dict[str, Any]]:
    """Greedy continuations of a prompt in its canonical and in other tokenizations (Figure 11 of the paper).

    Returns:
        `{"tokens": [texts], "completion": text}` for each tokenization, the canonical one first.

    Raises:
        UserError: The prompt is empty.
    """
    vocabulary = lm.vocabulary
    prompts = prompt_tokenizations(prompt, vocabulary, tokenization)
    whole = [[*before, *ids] for before, ids in prompts]
    generated = lm.generate_greedy(whole, MAX_NEW_TOKENS, lambda ids: ids[-1] == vocabulary.end_of_text)
    return [
        {
            "tokens": [vocabulary.token_text(i) for i in ids],
            "completion": vocabulary.decode([i for i in answer if i != vocabulary.end_of_text]),
        }
        for (_, ids), answer in zip(prompts, generated, strict=True)
    ]


def prompt_tokenizations(
    prompt: str, vocabulary: "Vocabulary", tokenization: "Tokenization"
) -> "list[tuple[list[int], list[int]]]":
    """The distinct tokenizations of a prompt, the canonical one first, each with the ids before it.

    Raises UserError for an empty prompt.
    """
    from stochastok_cli.evaluation.prompts import PromptEncoder
    from stochastok_cli.tokenization.expansion import StochasTok

    encoded = PromptEncoder.of(vocabulary).encode(prompt)
    canonical = encoded.ids
    if not canonical:
        raise UserError("--prompt is empty")
    expanded = [
        StochasTok(vocabulary, tokenization.p, tokenization.method, seed=seed)(canonical).tolist()
        for seed in range(tokenization.samples)
    ]
    return [(encoded.before, list(ids)) for ids in dict.fromkeys(map(tuple, [canonical, *expanded]))]
