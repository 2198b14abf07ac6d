"""Sampled text: what a model writes after a prompt in its canonical and in other tokenizations."""

import codecs
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from numpy.random import Generator
from torch import Tensor

from stochastok_cli.argument_checks import (
    optional,
    path_like,
    real_number,
    require_each,
    string,
    whole_number,
    yes_or_no,
)
from stochastok_cli.errors import FAILED, Notice, UserError, did_you_mean, short_name
from stochastok_cli.evaluation.base import BATCH_TOKENS, CANONICAL, MOST_SAMPLES
from stochastok_cli.evaluation.generation import decode
from stochastok_cli.evaluation.prompts import EncodedPrompt, PromptEncoder
from stochastok_cli.evaluation.robustness import Tokenization, parse_tokenization
from stochastok_cli.evaluation.run import choose_device, find_model
from stochastok_cli.evaluation.sampling import Sampling
from stochastok_cli.evaluation.scoring import SINGLE_PROCESS, evaluation_mode
from stochastok_cli.models.base import CausalLM
from stochastok_cli.models.model_sources import open_model
from stochastok_cli.random_streams import stream
from stochastok_cli.tokenization.expansion import StochasTok
from stochastok_cli.tokenization.loaders import load_vocabulary
from stochastok_cli.tokenization.methods import METHODS, require_method
from stochastok_cli.tokenization.vocabulary import Vocabulary

FinishReason = Literal["stop", "length", "window"]


@dataclass(frozen=True)
class SamplePrompt:
    """A prompt in one tokenization.

    Attributes:
        tokenization: As `--tokenization` takes it: `canonical`, or `stochastok:0.1`.
        sample: The number of the sample, from 0.
        ids: The ids that the model reads.
        tokens: Their texts.
        samples: How many samples there are in this tokenization.
    """

    tokenization: str
    sample: int
    ids: list[int]
    tokens: list[str]
    samples: int = 1


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
        """The object that `stochastok generate --json` prints, without the checkpoint and the text of the prompt;
        `sample` counts from 1 there."""
        return {
            "tokenization": self.prompt.tokenization,
            "sample": self.prompt.sample + 1,
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
    dtype: str = "auto",
    batch_tokens: int | None = None,
    on_prompt: Callable[[SamplePrompt], None] = lambda prompt: None,
    on_text: Callable[[str], None] = lambda text: None,
    on_result: Callable[[GeneratedText], None] = lambda result: None,
) -> list[GeneratedText]:
    """Samples what a model writes after a prompt.

    Texts are decoded together, in batches. Each draws its own random numbers, so that it is the one that it is alone.
    Sample i uses the same ones in every tokenization, so that texts differ only by what the model reads. On a CPU the
    result is a pure function of the arguments.

    Args:
        checkpoint: As in `evaluate`.
        prompt: The text that is continued. An empty one begins a document. Its tokens are preceded by those that the
            tokenizer itself puts before every text, such as Llama's beginning-of-text.
        tokenizations: Those of the prompt: `canonical`, or a method of expansion as `METHOD:P`.
        samples: How many texts in each tokenization, at most `MOST_SAMPLES`; one where all would be equal, of a fixed
            tokenization at temperature 0.
        seed: Of all random numbers.
        max_new_tokens: The most new ids of a text. It also ends where the context window is full, at end-of-text, and
            at ids that the model's generation settings or its chat template name.
        temperature: See `Sampling`, like the next two.
        top_k: See `Sampling`.
        top_p: See `Sampling`.
        chat: The prompt is what a user says, rendered by the chat template of the checkpoint.
        checkpoint_dir: The folder of all runs.
        device: "auto" (CUDA where there is a GPU), "cpu" or "cuda".
        dtype: As in `evaluate`.
        batch_tokens: Tokens that are decoded together, prompts and new ones; fewer need less memory.
        on_prompt: Called before each text, like the next two in the order of the result.
        on_text: Called with each part of a text; with parts as soon as they are there where it is the only text.
        on_result: Called after each text.

    Returns:
        The texts: all samples of the first tokenization, then those of the next.

    Raises:
        UserError: An argument or the checkpoint is not usable, or the prompt does not fit the context window.
    """
    checkpoint, checkpoint_dir = path_like("checkpoint", checkpoint), path_like("checkpoint_dir", checkpoint_dir)
    require_each(string, prompt=prompt, device=device, dtype=dtype)
    seed, chat = whole_number("seed", seed), yes_or_no("chat", chat)
    samples = whole_number("samples", samples, minimum=1)
    max_new_tokens = whole_number("max_new_tokens", max_new_tokens, minimum=1)
    batch_tokens = optional(whole_number)("batch_tokens", batch_tokens, minimum=1)
    temperature = real_number("temperature", temperature)
    sampling = Sampling(temperature, optional(whole_number)("top_k", top_k), optional(real_number)("top_p", top_p))
    sampling.check()
    methods = _without_repetitions(tokenizations)
    if not methods:
        raise UserError("there are no tokenizations", fix="give one or more")
    if samples > MOST_SAMPLES:
        raise UserError(f"--samples {samples:,} is too many", fix=f"give at most {MOST_SAMPLES:,}, and another --seed")
    _require_different(methods, samples, temperature)
    if temperature == 0:
        of_draws = {"--top-k": top_k is not None, "--top-p": top_p is not None}
        of_draws["--seed"] = seed != 0 and not any(map(_is_random, methods))
        if unused := [option for option, is_given in of_draws.items() if is_given]:
            text = f"--temperature 0 takes the likeliest token, so {' and '.join(unused)} changes nothing"
            warnings.warn(text if len(unused) == 1 else text.replace("changes", "change"), Notice, stacklevel=2)
    torch_device = choose_device(device)
    source = find_model(str(checkpoint), Path(checkpoint_dir), dtype)
    vocabulary = load_vocabulary(source.folder)
    encoder = PromptEncoder(source.folder, vocabulary, chat=chat)
    encoded = encoder.encode(prompt)
    prompts = [
        one
        for method in methods
        for one in _sample_prompts(
            encoded, vocabulary, method, seed, samples if temperature > 0 or _is_random(method) else 1
        )
    ]
    for one in prompts:
        if len(one.ids) > source.context_window:
            raise UserError(
                f"the prompt has {len(one.ids):,} tokens ({one.tokenization}), and the context window of {source.name} "
                f"is {source.context_window:,}",
                fix="give a shorter prompt",
            )
    model = open_model(source, vocabulary, torch_device)
    sampler = _Sampler(vocabulary, sampling, seed, max_new_tokens, encoder.stop_ids(prompt), source.name)

    def on_complete(result: GeneratedText) -> None:
        if len(prompts) > 1:
            on_prompt(result.prompt)
            on_text(result.text)
        on_result(result)

    if len(prompts) == 1:
        on_prompt(prompts[0])
    streamed = on_text if len(prompts) == 1 else None
    return sampler.run(model, prompts, batch_tokens or BATCH_TOKENS, on_complete, streamed)


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
    encoder = PromptEncoder(folder, vocabulary)
    empty = encoder.encode("")
    prompts = _sample_prompts(empty, vocabulary, _parse(CANONICAL), seed, samples)
    sampler = _Sampler(vocabulary, Sampling(), seed, max_new_tokens, encoder.stop_ids(""))
    return sampler.run(model, prompts)


@dataclass(frozen=True)
class _Sampler:
    """Samples the texts after prompts. Ids that the model has and its tokenizer lacks are never drawn."""

    vocabulary: Vocabulary
    sampling: Sampling
    seed: int
    max_new_tokens: int
    stop_ids: set[int]
    checkpoint: str = ""

    def run(
        self,
        model: CausalLM,
        prompts: Sequence[SamplePrompt],
        batch_tokens: int = BATCH_TOKENS,
        on_result: Callable[[GeneratedText], None] = lambda result: None,
        on_text: Callable[[str], None] | None = None,
    ) -> list[GeneratedText]:
        """The text of each prompt.

        Args:
            model: The model.
            prompts: They fit the context window.
            batch_tokens: As in `generate`.
            on_result: Called with each text, in the order of the prompts, when it and all before it are complete.
            on_text: Called with the parts of the only text; there must be one prompt.
        """
        randoms: dict[int, Generator] = {}  # of the texts that are being written
        complete: dict[int, GeneratedText] = {}
        results: list[GeneratedText] = []
        decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

        def choose(logits: Tensor, places: list[int]) -> list[int]:
            values = logits[:, : self.vocabulary.size].double()
            if not bool(values.amax(dim=-1).isfinite().all()):  # also for NaN, which every maximum propagates
                raise UserError(
                    "the model gave no number for the next token",
                    fix="its weights or its activations have overflowed; use an earlier checkpoint",
                    exit_code=FAILED,
                )
            for place in places:
                if place not in randoms:
                    randoms[place] = stream(self.seed, "generate", prompts[place].sample)
            chosen = self.sampling.draw(values, [randoms[place].random() for place in places])
            if on_text is not None and chosen[0] not in self.stop_ids:
                part = decoder.decode(self.vocabulary.token_bytes(chosen[0]))
                if part:
                    on_text(part)
            return chosen

        def on_end(place: int, ids: list[int]) -> None:
            randoms.pop(place, None)
            complete[place] = self._result(prompts[place], ids)
            if on_text is not None and (rest := decoder.decode(b"", final=True)):
                on_text(rest)
            while len(results) in complete:
                results.append(complete.pop(len(results)))
                on_result(results[-1])

        with evaluation_mode(model):
            decode(
                model,
                [prompt.ids for prompt in prompts],
                self.max_new_tokens,
                lambda new: new[-1] in self.stop_ids,
                batch_tokens,
                SINGLE_PROCESS,
                choose,
                on_end,
            )
        return results

    def _result(self, prompt: SamplePrompt, ids: list[int]) -> GeneratedText:
        is_stopped = ids[-1] in self.stop_ids
        written = ids[:-1] if is_stopped else ids
        reason: FinishReason = "stop" if is_stopped else "length" if len(ids) == self.max_new_tokens else "window"
        return GeneratedText(prompt, self.seed, ids, self.vocabulary.decode(written), reason, self.checkpoint)


def _parse(name: str) -> Tokenization:
    if name == CANONICAL:
        return Tokenization(CANONICAL, None, 1)
    if name.startswith(f"{CANONICAL}:"):
        raise UserError(
            f"--tokenization {short_name(name)}: the canonical tokenization has no P",
            fix=f"give {CANONICAL} alone, or the METHOD:P of another one",
        )
    method, known = name.partition(":")[0], [CANONICAL, *METHODS]
    if method not in known:
        raise UserError(
            f"unknown method {short_name(method)!r}{did_you_mean(method, known)}", fix=f"give {', '.join(known)}"
        )
    return parse_tokenization(name, 1)


def _without_repetitions(names: Sequence[str]) -> list[Tokenization]:
    """The tokenizations by these names, each once, with a `Notice` for those that are named again."""
    chosen: dict[Tokenization, str] = {}
    for name in names:
        tokenization = _parse(name)
        if tokenization in chosen:
            again = "is given twice" if name == chosen[tokenization] else f"is the same as {chosen[tokenization]}"
            warnings.warn(f"--tokenization {name} {again}, and is used once", Notice, stacklevel=3)
        chosen.setdefault(tokenization, name)
    return list(chosen)


def _is_random(tokenization: Tokenization) -> bool:
    return tokenization.method != CANONICAL and require_method(tokenization.method).takes_p


def _require_different(tokenizations: Sequence[Tokenization], samples: int, temperature: float) -> None:
    """Raises UserError where several samples can only be equal."""
    if samples > 1 and temperature == 0 and not any(map(_is_random, tokenizations)):
        raise UserError("--temperature 0 makes every sample the same", fix="drop --samples, or raise the temperature")


def _sample_prompts(
    prompt: EncodedPrompt, vocabulary: Vocabulary, tokenization: Tokenization, seed: int, samples: int
) -> list[SamplePrompt]:
    """The prompt of each sample in one tokenization. Equal ones share their ids."""
    name, expand, is_random = tokenization.method, None, _is_random(tokenization)
    if name != CANONICAL:
        expand = StochasTok(vocabulary, tokenization.p, tokenization.method, seed=seed)
        name = tokenization.text
    prompts: list[SamplePrompt] = []
    for sample in range(samples):
        if prompts and not is_random:
            prompts.append(replace(prompts[0], sample=sample))
            continue
        ids = (prompt if expand is None else prompt._replace(ids=expand(prompt.ids, sample).tolist())).all_ids
        prompts.append(SamplePrompt(name, sample, ids, [vocabulary.token_text(i) for i in ids], samples))
    return prompts
