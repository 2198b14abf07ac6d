"""A model of lm-evaluation-harness that reads its requests in other tokenizations (needs the extra `lm-eval`).

It is the harness's own model `hf` up to one step: between the tokenizer and the model, ids become other ids of the same
text. Everything else, batches, windows, stop strings and metrics, is the harness's.
"""

import copy
import logging
import math
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM

from stochastok_cli.argument_checks import whole_number
from stochastok_cli.errors import UserError, short_repr
from stochastok_cli.evaluation.base import CANONICAL
from stochastok_cli.evaluation.evaluators.lm_eval import parse_parts
from stochastok_cli.evaluation.robustness import Tokenization, parse_tokenization
from stochastok_cli.random_streams import derive_key
from stochastok_cli.tokenization.expansion import StochasTok
from stochastok_cli.tokenization.loaders import vocabulary_for
from stochastok_cli.tokenization.vocabulary import Vocabulary

Answer = tuple[float, bool]

_log = logging.getLogger(__name__)


class RequestCounts(Counter[str]):
    """What became of the requests of a task, over all samples.

    `requests` that were tokenized, those `changed` by it, those `truncated` on the left to fit the window, those whose
    continuation stayed `canonical` since it would have been longer than the window, and the tokens of the parts that
    are tokenized in another way, `tokens_before` and `tokens_after`.
    """

    def summary(self, *, is_other: bool) -> str:
        """What was lost or left alone, for a warning; "" where nothing was."""
        parts = []
        if self["truncated"]:
            parts.append(f"{self['truncated']:,} lost their beginning, as they did not fit the context window")
        if self["canonical"]:
            parts.append(f"{self['canonical']:,} kept their canonical continuation, as the other one did not fit")
        if is_other and not self["changed"]:
            parts.append("none was changed by the tokenization (see retokenize)")
        return f"of {self['requests']:,} requests {'; '.join(parts)}" if parts else ""


class RetokenizingLM(HFLM):
    """The harness's `HFLM`, with requests in other tokenizations.

    A draw depends on the seed, the sample and the ids of the request alone, so that neither batches nor the order of
    the requests change it, and the options of a question share one tokenization of their context. Special tokens, and
    added tokens such as those of chat templates, are never split.

    Args:
        pretrained: As in `HFLM`.
        tokenization: `canonical`, or a method of `stochastok expand` as `METHOD:P`; a fixed rule needs no P.
        retokenize: `context` (also the prompt of a generation), `continuation` (also the text of a rolling
            log-likelihood, which has no context), or `both`.
        seed: Of all draws.
        sample: The number of the first sample, from 0.
        samples: In how many samples each request is asked. Its likelihood is the mean of theirs, and its generated text
            the most frequent one (the earliest of equals).
        show_progress: Whether the harness shows its progress bars.
        hf: Further arguments of `HFLM`.
    """

    def __init__(
        self,
        pretrained: Any,
        *,
        tokenization: str = CANONICAL,
        retokenize: str = "context",
        seed: int = 0,
        sample: int = 0,
        samples: int = 1,
        show_progress: bool = True,
        **hf: Any,
    ) -> None:
        self.parts = parse_parts(retokenize)
        seed = whole_number("seed", seed)
        sample, samples = whole_number("sample", sample, minimum=0), whole_number("samples", samples, minimum=1)
        if tokenization == CANONICAL and samples > 1:
            raise UserError("the canonical tokenization is one: every sample is the same", fix="drop samples")
        chosen = None if tokenization == CANONICAL else parse_tokenization(str(tokenization), samples)
        super().__init__(pretrained, **hf)
        self.show_progress = show_progress
        self.seed = seed
        self._vocabulary: Vocabulary | None = None
        self.counts: defaultdict[str, RequestCounts] = defaultdict(RequestCounts)
        self._tasks: defaultdict[Any, deque[str]] = defaultdict(deque)
        self._encodes_whole_texts = False
        self.set_tokenization(chosen, sample, samples)

    def set_tokenization(self, tokenization: Tokenization | None, sample: int = 0, samples: int = 1) -> None:
        """From now on, requests are read in samples of this tokenization, or in the canonical one where None.

        Raises UserError for a method that the vocabulary does not allow. The counts begin anew.
        """
        self.tokenization, self.sample, self.samples = tokenization, sample, samples
        self.expand: StochasTok | None = None
        if tokenization is not None:
            self.expand = StochasTok(self.known_vocabulary(), tokenization.p, tokenization.method, seed=self.seed)
        self.counts.clear()

    def known_vocabulary(self) -> Vocabulary:
        """The vocabulary of the tokenizer. Raises UserError for a tokenizer that has none that can be expanded."""
        if self._vocabulary is None:
            self._vocabulary = _protected(vocabulary_for(self.tokenizer))
        return self._vocabulary

    def tokenizations(self, context: str, sample: int) -> tuple[list[int], list[int]]:
        """The canonical ids of the context of a request, and those of a sample."""
        ids = self.tok_encode(context.rstrip() or context)
        self.sample, before = sample, self.sample
        other = self._retokenized("context", ids)
        self.sample = before
        return ids, other

    # -------------------------------------------------------------------------------------- the requests of the harness

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = False) -> list[Answer]:
        ask = super().loglikelihood
        with self._of_tasks(requests, lambda request: request.args):
            answers = self._in_each_sample(lambda: ask(requests, disable_tqdm=disable_tqdm or not self.show_progress))
        if len(answers) == 1:
            return answers[0]
        return [
            (_log_mean([one[0] for one in same]), all(one[1] for one in same)) for same in zip(*answers, strict=True)
        ]

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> list[float]:
        ask = super().loglikelihood_rolling
        with self._of_tasks(requests, lambda request: request.args[0]):
            self._encodes_whole_texts = True
            try:
                answers = self._in_each_sample(
                    lambda: ask(requests, disable_tqdm=disable_tqdm or not self.show_progress)
                )
            finally:
                self._encodes_whole_texts = False
        return answers[0] if len(answers) == 1 else [_log_mean(same) for same in zip(*answers, strict=True)]

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        ask = super().generate_until
        with self._of_tasks(requests, lambda request: request.args[0]):
            texts = self._in_each_sample(lambda: ask(requests, disable_tqdm=disable_tqdm or not self.show_progress))
        return (
            texts[0] if len(texts) == 1 else [Counter(same).most_common(1)[0][0] for same in zip(*texts, strict=True)]
        )

    def get_model_info(self) -> dict[str, Any]:
        """What the harness records about the model, with the tokenization."""
        chosen = {"tokenization": CANONICAL} if self.tokenization is None else asdict(self.tokenization)
        chosen |= {"retokenize": self.parts, "tokenization_seed": self.seed, "sample": self.sample}
        return {**super().get_model_info(), **chosen, "samples": self.samples}

    def set_cache_hook(self, cache_hook: Any) -> None:
        if self.expand is not None:
            raise UserError(
                "the harness's cache knows requests by their text, and would mix tokenizations", fix="drop --use_cache"
            )
        super().set_cache_hook(cache_hook)

    def _in_each_sample(self, ask: Callable[[], Any]) -> list[Any]:
        first, answers = self.sample, []
        try:
            for sample in range(first, first + self.samples):
                self.sample = sample
                answers.append(ask())
        finally:
            self.sample = first
        return answers

    @contextmanager
    def _of_tasks(self, requests: Sequence[Instance], key: Callable[[Instance], Any]) -> Iterator[None]:
        """Counts what happens to requests for their tasks, and warns at the end of what was lost or left alone."""
        for request in requests:
            self._tasks[key(request)].append(request.task_name or "")
        before = {task: Counter(counts) for task, counts in self.counts.items()}
        try:
            yield
            for task in sorted({request.task_name or "" for request in requests}):
                counts = RequestCounts(self.counts[task] - before.get(task, Counter()))
                if text := counts.summary(is_other=self.expand is not None):
                    _log.warning("%s: %s", task, text)
        finally:
            self._tasks.clear()

    # -------------------------------------------------------------------------------------- between tokenizer and model

    def tok_encode(self, string: str, *args: Any, **kwargs: Any) -> list[int]:
        ids = super().tok_encode(string, *args, **kwargs)
        if not self._encodes_whole_texts:
            return ids
        changed = self._retokenized("continuation", ids)
        self._count(string, ids, changed)
        return changed

    def tok_batch_encode(
        self,
        strings: list[str],
        padding_side: str = "left",
        left_truncate_len: int | None = None,
        truncation: bool = False,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Prompts of generations: encoded by the harness, tokenized in another way, padded and truncated as it does."""
        padded, mask = super().tok_batch_encode(strings, padding_side, None, truncation)
        rows = [ids[real.bool()].tolist() for ids, real in zip(padded, mask, strict=True)]
        changed = [self._retokenized("context", ids) for ids in rows]
        limit = left_truncate_len or math.inf
        for string, before, after in zip(strings, rows, changed, strict=True):
            self._count(string, before, after, truncated=len(after) > limit)
        if changed != rows:
            width = max(map(len, changed))
            pad = self.tokenizer.pad_token_id
            padded = torch.tensor([_padded(ids, width, pad, padding_side) for ids in changed])
            mask = torch.tensor([_padded([1] * len(ids), width, 0, padding_side) for ids in changed])
        if left_truncate_len:
            padded, mask = padded[:, -left_truncate_len:], mask[:, -left_truncate_len:]
        return padded, mask

    def _loglikelihood_tokens(
        self, requests: list[Any], disable_tqdm: bool = False, override_bs: int | None = None
    ) -> list[Answer]:
        if not self._encodes_whole_texts:  # the windows of whole texts are made of ids that have changed already
            requests = [(texts, *self._retokenized_pair(texts, *ids)) for texts, *ids in requests]
        return super()._loglikelihood_tokens(
            requests, disable_tqdm=disable_tqdm or not self.show_progress, override_bs=override_bs
        )

    def _retokenized_pair(
        self, texts: tuple[str, str], context: list[int], continuation: list[int]
    ) -> tuple[list[int], list[int]]:
        if not 0 < len(continuation) <= self.max_length:  # the harness stops here, too, and does not say why
            raise UserError(
                f"the continuation {short_repr(texts[1])} of a request{self._task_of(texts)} has "
                f"{len(continuation):,} tokens of its own, and the context window is {self.max_length:,}",
                fix="leave its question out",
            )
        new_context = self._retokenized("context", context)
        new_continuation = self._retokenized("continuation", continuation, context)
        stays = len(new_continuation) > self.max_length >= len(continuation)
        if stays:
            new_continuation = continuation
        truncated = len(new_context) + len(new_continuation) > self.max_length + 1
        parts = [("context", context, new_context), ("continuation", continuation, new_continuation)]
        compared = [(before, after) for part, before, after in parts if self.parts in (part, "both")]
        before, after = ([token for ids in some for token in ids] for some in zip(*compared, strict=True))
        self._count(texts, before, after, truncated=truncated, canonical=stays)
        return new_context, new_continuation

    def _task_of(self, texts: tuple[str, str]) -> str:
        """The task of a request, for errors; "" where it is not known."""
        tasks = self._tasks.get(texts)
        return f" of {tasks[0]}" if tasks and tasks[0] else ""

    def _retokenized(self, part: str, ids: list[int], after: Sequence[int] = ()) -> list[int]:
        """Ids in another tokenization, if that part is asked for; `after` also selects the random numbers."""
        if self.expand is None or self.parts not in (part, "both") or not ids:
            return ids
        content = np.array([*after, -1, *ids], "<i8").tobytes().hex()
        return self.expand(ids, derive_key(self.sample, f"lm_eval/{part}/{content}")).tolist()

    def _count(
        self, key: Any, before: Sequence[int], after: Sequence[int], *, truncated: bool = False, canonical: bool = False
    ) -> None:
        added = {
            "requests": 1,
            "changed": list(before) != list(after),
            "truncated": truncated,
            "canonical": canonical,
            "tokens_before": len(before),
            "tokens_after": len(after),
        }
        tasks = self._tasks.get(key)
        if tasks:  # equal requests have equal results, so that each may count for the next task that made one
            self.counts[tasks[0]].update(added)
            tasks.rotate(-1)


def _protected(vocabulary: Vocabulary) -> Vocabulary:
    """A vocabulary whose added tokens, too, are never split: those of a chat template must stay as they are."""
    protected = copy.copy(vocabulary)
    protected.never_split = vocabulary.never_split | vocabulary.added
    return protected


def _padded(ids: list[int], width: int, pad: int, side: str) -> list[int]:
    padding = [pad] * (width - len(ids))
    return padding + ids if side == "left" else ids + padding


def _log_mean(log_likelihoods: Sequence[float]) -> float:
    """The logarithm of the mean of likelihoods.

    >>> round(_log_mean([math.log(0.1), math.log(0.3)]), 6) == round(math.log(0.2), 6)
    True
    """
    return float(np.logaddexp.reduce(np.array(log_likelihoods, np.float64)) - math.log(len(log_likelihoods)))
