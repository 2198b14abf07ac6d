"""Any causal language model that `transformers` opens, with the face of our own network (the extra `hf`).

The evaluators ask of a model what `Llama` has: `config.context_window`, a forward pass from ids to hidden states
that takes left padding and a cache, `logits`, and `head_weight` for its device and the size of its vocabulary.
"""

import contextlib
import inspect
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from stochastok_cli import hub
from stochastok_cli.errors import FAILED, UserError
from stochastok_cli.models.llama.attention import KeyValueCache
from stochastok_cli.models.llama.model import Llama
from stochastok_cli.models.llama.state_dict import load_model, read_model_config
from stochastok_cli.tokenization.vocabulary import Vocabulary

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_WINDOW_FIELDS = ("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len", "seq_length")


@dataclass(frozen=True)
class WindowConfig:
    context_window: int


class HuggingFaceModel(nn.Module):
    """A model of `transformers`. Hidden states are those before its head, unless its head does more than multiply, as
    a cap on logits does: then they are the logits themselves."""

    def __init__(self, model: "PreTrainedModel", context_window: int) -> None:
        super().__init__()
        self.model = model
        self.config = WindowConfig(context_window)
        self.head = model.get_output_embeddings()
        self.body = model.base_model
        known = set(inspect.signature(self.body.forward).parameters)
        self.takes_positions = "position_ids" in known
        self.splits = self.head is not None and self.body is not model and self._head_only_multiplies()
        self.cache_argument = self._cache_argument()
        self._require_causal()

    @property
    def head_weight(self) -> Tensor:
        return self.head.weight if self.head is not None else next(self.model.parameters())

    def forward(self, ids: Tensor, segment_start: Tensor | None = None, cache: KeyValueCache | None = None) -> Tensor:
        """As `Llama.forward`; of `segment_start` only padding on the left is understood, the same for all tokens
        of a row after the padding."""
        from transformers import DynamicCache

        start = cache.length if cache is not None else 0
        columns = torch.arange(start + ids.shape[1], device=ids.device)
        padding = segment_start[:, -1:] if segment_start is not None else torch.zeros_like(ids[:, :1])
        arguments: dict[str, Any] = {"attention_mask": (columns >= padding).long()}
        if self.takes_positions:
            arguments["position_ids"] = (columns[start:] - padding).clamp(min=0)
        past: Any = DynamicCache()
        if cache is not None:
            arguments[self.cache_argument] = past
            for layer, (keys, values) in enumerate(zip(cache.keys, cache.values, strict=True)):
                past.update(keys, values, layer)
        out = (self.body if self.splits else self.model)(ids, use_cache=cache is not None, **arguments)
        if cache is not None:
            cache.keys = [layer.keys for layer in past.layers]
            cache.values = [layer.values for layer in past.layers]
        return out.last_hidden_state if self.splits else out.logits

    def logits(self, hidden: Tensor) -> Tensor:
        return self.head(hidden) if self.splits else hidden

    @torch.inference_mode()
    def _cache_argument(self) -> str:
        """What the model calls the cache, which it fills: the name differs between versions of `transformers`.

        Raises ValueError for a model that keeps no keys and values.
        """
        from transformers import DynamicCache

        ids = torch.arange(1, 3, device=self.head_weight.device)[None]
        for name in ("cache", "past_key_values"):
            past = DynamicCache()
            with contextlib.suppress(Exception):  # whatever a model does with an argument that it doesn't know
                self.body(ids, use_cache=True, **{name: past})
                if past.get_seq_length() == ids.shape[1]:
                    return name
        raise ValueError("it keeps no keys and values that the evaluators could go on from")

    @torch.inference_mode()
    def _require_causal(self) -> None:
        """Raises ValueError for a model that looks ahead."""
        ids = torch.arange(1, 5, device=self.head_weight.device)[None]
        whole, prefix = self.logits(self(ids)), self.logits(self(ids[:, :2]))
        if not torch.allclose(whole[:, :2], prefix, atol=1e-3, rtol=1e-3):
            raise ValueError("it is no causal language model: what it says of a token depends on those after it")

    @torch.inference_mode()
    def _head_only_multiplies(self) -> bool:
        """Whether the head, put on the body's last states, gives the model's own logits."""
        ids = torch.arange(1, 5, device=self.head_weight.device)[None]
        ours = self.head(self.body(ids).last_hidden_state)
        theirs = self.model(ids).logits
        return ours.shape == theirs.shape and torch.allclose(ours.float(), theirs.float(), atol=1e-3, rtol=1e-4)


class ModelSource(NamedTuple):
    """A model that is not loaded yet. folder: its files, or those of its tokenizer; ours: whether our network runs it;
    name: as the user gave it."""

    folder: Path
    ours: bool
    name: str
    context_window: int


def locate(name: str, folder: Path | None) -> ModelSource:
    """What is known of a model before it is loaded: in a folder, or with None the Hub id `name`.

    Raises UserError where it is neither ours nor one that `transformers` (which must be installed) opens.
    """
    if folder is not None:
        try:
            return ModelSource(folder, True, str(folder), read_model_config(folder).context_window)
        except UserError as error:
            if not (folder / "config.json").is_file():
                raise
            config = _configuration(str(folder), str(error))
            return ModelSource(folder, False, str(folder), _window(config))
    folder = hub.tokenizer_folder(*hub.parse_repo_id(name))
    return ModelSource(folder, False, name, _window(_configuration(str(folder), f"{name} is on the Hub")))


def open_model(where: ModelSource, vocabulary: Vocabulary, device: str) -> Llama:
    """Loads a model in float32, in evaluation mode: ours, or a `CausalModel`, which the evaluators take as well.

    Raises UserError for a model that can't be loaded, and for a vocabulary that is larger than the model's.
    """
    if where.ours:
        return load_model(where.folder, device)
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    folder = where.folder if Path(where.name).is_dir() else hub.model_folder(*hub.parse_repo_id(where.name))
    try:
        loaded: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, use_safetensors=True)
        model = HuggingFaceModel(loaded.eval().to(device), where.context_window)
    except Exception as error:  # transformers lets through whatever its parts raise
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise UserError(f"transformers can't open {where.name}: {reason}", exit_code=FAILED) from None
    if vocabulary.size > model.head_weight.shape[0]:
        raise UserError(
            f"{where.name}: the tokenizer has {vocabulary.size:,} entries and the model {model.head_weight.shape[0]:,}",
            fix="they don't belong together",
        )
    return cast(Llama, model)


def _configuration(folder: str, why: str) -> Any:
    try:
        from transformers import AutoConfig
    except ImportError:
        raise UserError(f"{why}; other models are run by transformers", fix="pip install 'stochastok[hf]'") from None
    try:
        return AutoConfig.from_pretrained(folder)
    except Exception as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise UserError(f"transformers can't open {folder}: {reason}", exit_code=FAILED) from None


def _window(config: Any) -> int:
    return next(
        (int(n) for field in _WINDOW_FIELDS if isinstance(n := getattr(config, field, None), int) and n > 0), 2048
    )
