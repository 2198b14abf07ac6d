"""Sampled text: what a model writes after a prompt in its canonical and in other tokenizations."""

import codecs
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from stochastok_cli.errors import FAILED, UserError
from stochastok_cli.evaluation.generation import decode
from stochastok_cli.evaluation.robustness import Tokenization, parse_tokenization
from stochastok_cli.evaluation.run import choose_device, find_model
from stochastok_cli.evaluation.scoring import SINGLE_PROCESS, evaluation_mode
from stochastok_cli.json_files import read_json
from stochastok_cli.models.base import CausalLM
from stochastok_cli.models.companion_files import TOKENIZER
from stochastok_cli.models.huggingface import open_model
from stochastok_cli.random_streams import stream
from stochastok_cli.tokenization.expansion import StochasTok
from stochastok_cli.tokenization.loaders import load_vocabulary
from stochastok_cli.tokenization.methods import require_method
from stochastok_cli.tokenization.vocabulary import Vocabulary

CANONICAL = "canonical"
FinishReason = Literal["stop", "length", "window"]


@dataclass(frozen=True)
class Sampling:
    """How the next id is drawn.

    Attributes:
        temperature: Divides the logits; 0 takes the likeliest id.
        top_k: Draws from so many likeliest ids; from all where None.
        top_p: Draws from the fewest likeliest ids whose probabilities sum to this (Holtzman et al. 2020, "nucleus").
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None

    def check(self) -> None:
        """Raises UserError for values that are not possible."""
        if not (math.isfinite(self.temperature) and self.temperature >= 0):
            raise UserError(f"--temperature {self.temperature:g} is not possible", fix="give 0 or more")
        if self.top_k is not None and self.top_k < 1:
            raise UserError(f"--top-k {self.top_k} is not possible", fix="give 1 or more")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise UserError(f"--top-p {self.top_p:g} is not possible", fix="give more than 0 and at most 1")

    def draw(self, logits: np.ndarray, uniform: float) -> int:
        """An id, by the inverse of the cumulative distribution over ids in the order of their probability.

        Args:
            logits: float64 `[V]`.
            uniform: A number in [0, 1).

        >>> logits = np.log([0.5, 0.1, 0.3, 0.1])
        >>> [Sampling().draw(logits, u) for u in (0.0, 0.49, 0.51, 0.79, 0.81, 0.99)]
        [0, 0, 2, 2, 1, 3]
        >>> [sampling.draw(logits, 0.99) for sampling in (Sampling(top_k=2), Sampling(top_p=0.5), Sampling(0))]
        [2, 0, 0]
        """
        if self.temperature == 0:
            return int(logits.argmax())
        order = np.argsort(-logits, kind="stable")[: self.top_k]
        with np.errstate(over="ignore"):
            cumulative = np.exp((logits[order] - logits[order[0]]) / self.temperature).cumsum()
        if self.top_p is not None:
            cumulative = cumulative[: np.searchsorted(cumulative, self.top_p * cumulative[-1]) + 1]
        place = int(np.searchsorted(cumulative, uniform * cumulative[-1], side="right"))
        return int(order[min(place, len(cumulative) - 1)])


@dataclass(frozen=True)
class SamplePrompt:
    """A prompt in one tokenization.

    Attributes:
        tokenization: `canonical`, or method and p as in `stochastok0.1`.
        sample: The number of the sample, from 0.
        ids: The ids that the model reads.
        tokens: Their texts.
    """

    tokenization: str
    sample: int
    ids: list[int]
    tokens: list[str]


@dataclass(frozen=True)
class GeneratedText:
    """What a model wrote after a prompt.

    Attributes:
        prompt: The prompt.
        seed: The seed of all random numbers.
        ids: The new ids, with the one that ended the text.
        text: Their text, without the one that ended it.
        finish_reason: `stop` at an id that ends a text, `length` at the limit of new ids, `window` where the context
            window is full.
        checkpoint: The folder of the model, or its id on the Hub; empty where `sample_documents` was given the model.
    """

    prompt: SamplePrompt
    seed: int
    ids: list[int]
    text: str
    finish_reason: FinishReason
    checkpoint: str = field(default="", compare=False)

    def to_json(self) -> dict[str, Any]:
        """The object that `stochastok generate --json` prints, without the checkpoint and the text of the prompt."""
        return {
            "tokenization": self.prompt.tokenization,
            "sample": self.prompt.sample,
            "seed": self.seed,
            "prompt_ids": self.prompt.ids,
            "prompt_tokens": self.prompt.tokens,
            "ids": self.ids,
            "text": self.text,
            "finish_reason": self.finish_reason,
        }


def generate(
    checkpoint: str | Path,
    prompt: str = "",
    *,
    tokenizations: Sequence[str] = (CANONICAL,),
    samples: int = 1,
    seed: int = 0,
    max_new_tokens: int = 128,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    chat: bool = False,
    checkpoint_dir: str | Path = "checkpoints",
    device: str = "auto",
    on_prompt: Callable[[SamplePrompt], None] = lambda prompt: None,
    on_text: Callable[[str], None] = lambda text: None,
    on_result: Callable[[GeneratedText], None] = lambda result: None,
) -> list[GeneratedText]:
    """Samples what a model writes after a prompt.

    Sample i uses the same random numbers in every tokenization, so that texts differ only by what the model reads. On a
    CPU the result is a pure function of the arguments.

    Args:
        checkpoint: As in `evaluate`.
        prompt: The text that is continued. An empty one begins a document. Its tokens are preceded by those that the
            tokenizer itself puts before every text, such as Llama's beginning-of-text.
        tokenizations: Those of the prompt: `canonical`, or a method of expansion as `METHOD:P`.
        samples: How many texts in each tokenization.
        seed: Of all random numbers.
        max_new_tokens: The most new ids of a text. It also ends where the context window is full, at end-of-text, and
            at ids that the model's generation settings or its chat template name.
        temperature: See `Sampling`, like the next two.
        top_k: See `Sampling`.
        top_p: See `Sampling`.
        chat: The prompt is what a user says, rendered by the chat template of the checkpoint.
        checkpoint_dir: The folder of all runs.
        device: "auto" (CUDA where there is a GPU), "cpu" or "cuda".
        on_prompt: Called before each text.
        on_text: Called with each part of a text as soon as it is there.
        on_result: Called after each text.

    Returns:
        The texts: all samples of the first tokenization, then those of the next.

    Raises:
        UserError: An argument or the checkpoint is not usable, or the prompt does not fit the context window.
    """
    sampling = Sampling(temperature, top_k, top_p)
    sampling.check()
    methods = list({name: _parse(name) for name in tokenizations}.values())
    if samples < 1 or max_new_tokens < 1 or not methods:
        raise UserError("samples, max_new_tokens and the number of tokenizations must be at least 1")
    _require_different(methods, samples, temperature)
    torch_device = choose_device(device)
    source = find_model(str(checkpoint), Path(checkpoint_dir))
    vocabulary = load_vocabulary(source.folder)
    before, ids, end_of_turn = _encode(prompt, source.folder, vocabulary, chat=chat)
    prompts = [
        _retokenize(before, ids, vocabulary, method, seed, sample) for method in methods for sample in range(samples)
    ]
    for one in prompts:
        if len(one.ids) > source.context_window:
            raise UserError(
                f"the prompt has {len(one.ids):,} tokens ({one.tokenization}), and the context window of {source.name} "
                f"is {source.context_window:,}",
                fix="give a shorter prompt",
            )
    model = open_model(source, vocabulary, torch_device)
    stop_ids = _stop_ids(source.folder, vocabulary) | end_of_turn
    results = []
    for one in prompts:
        on_prompt(one)
        text = _continue(model, vocabulary, one, sampling, seed, max_new_tokens, stop_ids, on_text)
        result = replace(text, checkpoint=source.name)
        on_result(result)
        results.append(result)
    return results


def sample_documents(
    model: CausalLM, folder: Path, vocabulary: Vocabulary, samples: int, *, max_new_tokens: int = 64, seed: int = 0
) -> list[GeneratedText]:
    """Documents from their beginning, as `generate` samples them for an empty prompt.

    Args:
        model: The model.
        folder: Where its files are.
        vocabulary: Its vocabulary.
        samples: How many.
        max_new_tokens: The most ids of each.
        seed: Of all random numbers.
    """
    before, ids, _ = _encode("", folder, vocabulary, chat=False)
    stop_ids = _stop_ids(folder, vocabulary)
    prompts = [_retokenize(before, ids, vocabulary, _parse(CANONICAL), seed, sample) for sample in range(samples)]
    return [
        _continue(model, vocabulary, prompt, Sampling(), seed, max_new_tokens, stop_ids, lambda text: None)
        for prompt in prompts
    ]


def _continue(
    model: CausalLM,
    vocabulary: Vocabulary,
    prompt: SamplePrompt,
    sampling: Sampling,
    seed: int,
    max_new_tokens: int,
    stop_ids: set[int],
    on_text: Callable[[str], None],
) -> GeneratedText:
    """One text. Ids that the model has and its tokenizer lacks are never drawn."""
    random = stream(seed, "generate", prompt.sample)
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    parts: list[str] = []

    def emit(text: str) -> None:
        if text:
            parts.append(text)
            on_text(text)

    def choose(logits: torch.Tensor) -> list[int]:
        values = logits[0, : vocabulary.size].double().cpu().numpy()
        if not np.isfinite(values.max()):  # also for NaN, which every maximum propagates
            raise UserError(
                "the model gave no number for the next token",
                fix="its weights or its activations have overflowed; use an earlier checkpoint",
                exit_code=FAILED,
            )
        chosen = sampling.draw(values, random.random())
        if chosen not in stop_ids:
            emit(decoder.decode(vocabulary.token_bytes(chosen)))
        return [chosen]

    limit = min(max_new_tokens, model.context_window - len(prompt.ids) + 1)  # nothing follows the last new id
    with evaluation_mode(model):
        [ids] = decode(model, [prompt.ids], limit, lambda new: new[-1] in stop_ids, SINGLE_PROCESS, choose)
    emit(decoder.decode(b"", final=True))
    reason: FinishReason = "length" if len(ids) == max_new_tokens else "window"
    if ids[-1] in stop_ids:
        reason = "stop"
    return GeneratedText(prompt, seed, ids, "".join(parts), reason)


def _parse(name: str) -> Tokenization:
    return Tokenization(CANONICAL, None, 1) if name == CANONICAL else parse_tokenization(name, 1)


def _is_random(tokenization: Tokenization) -> bool:
    return tokenization.method != CANONICAL and require_method(tokenization.method).takes_p


def _require_different(tokenizations: Sequence[Tokenization], samples: int, temperature: float) -> None:
    """Raises UserError where several samples can only be equal."""
    if samples > 1 and temperature == 0 and not any(map(_is_random, tokenizations)):
        raise UserError("--temperature 0 makes every sample the same", fix="drop --samples, or raise the temperature")


def _encode(prompt: str, folder: Path, vocabulary: Vocabulary, *, chat: bool) -> tuple[list[int], list[int], set[int]]:
    """The ids before a prompt, its own canonical ids, and those that end an answer to it."""
    if chat:
        from stochastok_cli.data.chat_template import ChatTemplate, Unusable

        if not prompt.strip():
            raise UserError("the prompt is empty, and --chat needs what a user says")
        template = ChatTemplate(folder, vocabulary)
        messages = [{"role": "user", "content": prompt}]
        try:
            end = template.end_of_turn(messages)
            return [], template.encode_prompt(messages), set() if end is None else {end}
        except Unusable as reason:
            raise UserError(f"--chat: {reason}") from None
    before, ids = _ids_before_texts(folder), vocabulary.encode(prompt)
    return (before, ids, set()) if before or ids else ([vocabulary.end_of_text], [], set())


def _ids_before_texts(folder: Path) -> list[int]:
    """The special ids that a tokenizer.json puts before every text."""
    import tokenizers

    file = folder / TOKENIZER
    if not file.is_file():
        return []
    tokenizer = tokenizers.Tokenizer.from_file(str(file))
    tokenizer.no_padding()
    encoding = tokenizer.encode("a")
    mask = encoding.special_tokens_mask
    return encoding.ids[: mask.index(0)] if 0 in mask else []


def _stop_ids(folder: Path, vocabulary: Vocabulary) -> set[int]:
    """End-of-text, and the ids that a model's generation settings and configuration name as the ends of a text."""
    ids = {vocabulary.end_of_text}
    for name in ("generation_config.json", "config.json"):
        if (folder / name).is_file():
            value = read_json(folder / name, dict[str, Any]).get("eos_token_id")
            ids |= {i for i in (value if isinstance(value, list) else [value]) if isinstance(i, int)}
    return ids


def _retokenize(
    before: list[int], ids: list[int], vocabulary: Vocabulary, tokenization: Tokenization, seed: int, sample: int
) -> SamplePrompt:
    name = tokenization.method
    if name != CANONICAL:
        expand = StochasTok(vocabulary, tokenization.p, tokenization.method, seed=seed)
        name, ids = tokenization.name, expand(ids, sample).tolist()
    ids = [*before, *ids]
    return SamplePrompt(name, sample, ids, [vocabulary.token_text(i) for i in ids])
