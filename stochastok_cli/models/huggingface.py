"""Any causal language model that `transformers` opens, as a `CausalLM` (needs the extra `hf`)."""

import contextlib
import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from stochastok_cli.config import LoraConfig
from stochastok_cli.errors import UserError
from stochastok_cli.models import adapters
from stochastok_cli.models.base import WRAPPER_MODEL_TYPE, CausalLM, KeyValueCache
from stochastok_cli.models.linear_weights import LinearWeight

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel


@dataclass(frozen=True)
class HuggingFaceConfig:
    """The hyperparameters of a model of `transformers`."""

    context_window: int
    vocab_size: int
    pretrained: "PreTrainedConfig"


class NoNumbersError(ValueError):
    """A model gives NaN, so that none of its outputs means anything."""


class HuggingFaceModel(CausalLM):
    """A model of `transformers`.

    Its hidden states are those that its output head reads, times the factor by which some architectures scale their
    logits. The head may have a bias and cap the logits. A head that does anything else is run with the body, and the
    hidden states are then the logits themselves; such a model can be evaluated and not trained.

    Args:
        model: The model.
        context_window: The most tokens of a sequence.
        saved_config: The configuration that is saved with the model, where dropout was changed for training.

    The checks of the constructor need a model in evaluation mode.

    Raises ValueError for a model that attends to later tokens, and for one that keeps no keys and values, and
    NoNumbersError for one that gives NaN.
    """

    model_type: ClassVar[str] = WRAPPER_MODEL_TYPE
    compiles_whole = False
    adapter: adapters.Adapter | None = None

    def __init__(
        self, model: "PreTrainedModel", context_window: int, saved_config: "PreTrainedConfig | None" = None
    ) -> None:
        super().__init__()
        self.model = model
        self.training = model.training
        self.head = model.get_output_embeddings()
        self.body = model.base_model
        self.context_window = context_window
        self.saved_config = saved_config or model.config
        self.vocab_size = _vocab_size(model)
        self.accepts_position_ids = "position_ids" in inspect.signature(self.body.forward).parameters
        text_config = model.config.get_text_config()
        self.softcap = getattr(text_config, "final_logit_softcapping", None)
        self.logit_scale = _logit_scale(text_config)
        self._require_numbers()
        self.head_is_supported = self.head is not None and self.body is not model and self._head_is_supported()
        self.packs = self._keeps_packed_examples_apart()
        self.cache_argument = self._cache_argument()
        self._require_causal()

    def forward(self, ids: Tensor, segment_start: Tensor | None = None, cache: KeyValueCache | None = None) -> Tensor:
        """See `CausalLM.forward`. Where `packing_unsupported`, and with a cache, `segment_start` can only mark padding
        on the left: it has to be the same for all tokens of a row that follow the padding."""
        from transformers import DynamicCache

        if cache is None and segment_start is None:
            return self._hidden(ids, use_cache=False)
        if cache is None and segment_start is not None and self.packs:
            return self._packed(ids, segment_start)
        start = cache.length if cache is not None else 0
        positions = torch.arange(start + ids.shape[1], device=ids.device)
        padding = segment_start[:, -1:] if segment_start is not None else torch.zeros_like(ids[:, :1])
        arguments: dict[str, Any] = {"attention_mask": (positions >= padding).long()}
        if self.accepts_position_ids:
            arguments["position_ids"] = (positions[start:] - padding).clamp(min=0)
        if cache is None:
            return self._hidden(ids, use_cache=False, **arguments)
        past = cache.native
        if past is None:
            past = cache.native = DynamicCache()
            for layer, (keys, values) in enumerate(zip(cache.keys, cache.values, strict=True)):
                past.update(keys, values, layer)
        for held, keys, values in zip(past.layers, cache.keys, cache.values, strict=True):
            held.keys, held.values = keys, values
        hidden = self._hidden(ids, use_cache=True, **{**arguments, self.cache_argument: past})
        cache.keys = [held.keys for held in past.layers]
        cache.values = [held.values for held in past.layers]
        return hidden

    def add_lora(self, config: LoraConfig, base: Path, base_checksum: str | None) -> None:
        """Adds adapters, which alone are trained from now on.

        Args:
            config: Which ones.
            base: The folder that the model's weights come from.
            base_checksum: Of these weights; None where this process did not read them.

        Raises:
            UserError: `peft` is not installed, or the adapters do not fit the model.
        """
        adapters.add_lora(self.model, config, base)
        self.adapter = adapters.Adapter(base_checksum, config.merge)

    def set_activation_checkpointing(self, enabled: bool) -> None:
        if enabled and not self.model.supports_gradient_checkpointing:
            raise UserError(
                f"{type(self.model).__name__} does not support trainer.training.activation_checkpointing",
                fix="set it to false",
            )
        if enabled:
            self.model.gradient_checkpointing_enable({"use_reentrant": False})
        elif self.activation_checkpointing:
            self.model.gradient_checkpointing_disable()
        super().set_activation_checkpointing(enabled)

    def _packed(self, ids: Tensor, segment_start: Tensor) -> Tensor:
        """The hidden states of examples packed into rows. `transformers` takes tokens whose positions do not follow one
        another for those of different examples, and makes each architecture's masks accordingly."""
        positions = torch.arange(ids.shape[1], device=ids.device)
        return self._hidden(ids, use_cache=False, position_ids=(positions - segment_start).clamp(min=0))

    def _hidden(self, ids: Tensor, **arguments: Any) -> Tensor:
        if not self.head_is_supported:
            return self.model(ids, **arguments).logits
        hidden = self.body(ids, **arguments).last_hidden_state
        return hidden if self.logit_scale == 1 else hidden * self.logit_scale

    @property
    def head_weight(self) -> Tensor:
        if self.head is None:
            raise ValueError("the model has no output head")
        return self.head.weight

    @property
    def head_bias(self) -> Tensor | None:
        return getattr(self.head, "bias", None)

    @property
    def logit_softcap(self) -> float | None:
        return self.softcap if self.head_is_supported else None

    def logits(self, hidden: Tensor) -> Tensor:
        if not self.head_is_supported:
            return hidden
        logits = self.head(hidden)
        return logits if self.softcap is None else self.softcap * torch.tanh(logits / self.softcap)

    def training_unsupported(self) -> str | None:
        if self.head_is_supported:
            return None
        return f"the output head of {type(self.model).__name__} is more than a matrix, a bias, a factor and a cap"

    def packing_unsupported(self) -> str | None:
        return None if self.packs else f"{type(self.model).__name__} does not keep packed examples apart"

    @torch.inference_mode()
    def _keeps_packed_examples_apart(self) -> bool:
        """Whether packed examples, of one token, too, have the hidden states that they have alone."""
        if not self.accepts_position_ids:
            return False
        lengths = [1, 3, 1, 4]
        ids = torch.arange(1, 1 + sum(lengths), device=self.device)[None]
        starts = [sum(lengths[:example]) for example, length in enumerate(lengths) for _ in range(length)]
        packed = self._packed(ids, torch.tensor([starts], device=self.device))
        apart = torch.cat([self._hidden(part, use_cache=False) for part in ids.split(lengths, dim=1)], dim=1)
        return torch.allclose(packed, apart, rtol=1e-4, atol=1e-4 * apart.abs().max().item())

    @property
    def blocks(self) -> Sequence[nn.Module]:
        """The layers: the first list of modules that all have attention, or else the first list of modules."""
        lists = [list(module) for module in self.modules() if isinstance(module, nn.ModuleList) and len(module)]
        with_attention = (blocks for blocks in lists if all(self.attention_of(block) is not None for block in blocks))
        return next(with_attention, lists[0] if lists else [])

    def attention_of(self, block: nn.Module) -> nn.Module | None:
        """The attention module, which `transformers` names so in every architecture: `GPT2Attention`."""
        return next((part for part in block.children() if type(part).__name__.endswith("Attention")), None)

    def linear_weights(self, block: nn.Module) -> dict[Tensor, LinearWeight]:
        """See `CausalLM.linear_weights`. The projections of GPT-2 (`c_attn`) and of Phi-3 and GLM (`qkv_proj`,
        `gate_up_proj`) are told apart; where they alternate head by head, as in GPT-NeoX, they count as one matrix."""
        weights = super().linear_weights(block)
        for name, module in block.named_modules():
            place = name.rpartition(".")[2]
            if type(module).__name__ == "Conv1D":  # the linear layer of GPT-2
                rows = module.weight.shape[1]
                weights[module.weight] = LinearWeight((rows // 3,) * 3 if place == "c_attn" else (rows,), True)
            elif isinstance(module, nn.Linear) and place == "gate_up_proj":
                weights[module.weight] = LinearWeight((module.out_features // 2,) * 2)
            elif isinstance(module, nn.Linear) and place == "qkv_proj" and (sizes := self._projection_sizes()):
                weights[module.weight] = (
                    LinearWeight(sizes) if sum(sizes) == module.out_features else weights[module.weight]
                )
        return weights

    def _projection_sizes(self) -> tuple[int, int, int] | None:
        """The widths of queries, keys and values; None for an architecture without grouped heads, such as CodeGen."""
        config = self.model.config.get_text_config()
        queries, keys = config.num_attention_heads, getattr(config, "num_key_value_heads", None)
        head_dim = getattr(config, "head_dim", None) or config.hidden_size // queries
        return None if keys is None else (queries * head_dim, keys * head_dim, keys * head_dim)

    def flops_per_token(self, context_window: int) -> int:
        """As in `Llama.flops_per_token`. In a mixture of experts, the experts that a token skips are counted, too."""
        config = self.model.config.get_text_config()
        head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        width = config.num_attention_heads * head_dim
        return self.matrix_flops_per_token() + 6 * len(self.blocks) * width * context_window

    @torch.inference_mode()
    def _cache_argument(self) -> str:
        """The argument that takes the cache, whose name differs between versions of `transformers`.

        Raises ValueError for a model that keeps no keys and values.
        """
        from transformers import DynamicCache

        ids = torch.arange(1, 3, device=self.device)[None]
        for name in ("cache", "past_key_values"):
            past = DynamicCache()
            with contextlib.suppress(Exception):  # whatever a model does with an argument that it doesn't know
                self.body(ids, use_cache=True, **{name: past})
                if past.get_seq_length() == ids.shape[1]:
                    return name
        raise ValueError("it keeps no keys and values that evaluators could reuse")

    @torch.inference_mode()
    def _require_numbers(self) -> None:
        """Raises NoNumbersError for a model that gives NaN, for which the other checks would find wrong reasons."""
        if not self.model(torch.arange(1, 10, device=self.device).view(3, 3)).logits.isnan().any():
            return
        bad = [name for name, tensor in self.model.state_dict().items() if not tensor.isfinite().all()]
        if not bad:
            dtype = str(self.model.dtype).removeprefix("torch.")
            raise NoNumbersError(f"its activations overflow in {dtype}, though its weights are finite")
        more = f" and {len(bad) - 1:,} more" if len(bad) > 1 else ""
        raise NoNumbersError(f"its weights hold NaN or infinity, in {bad[0]}{more}")

    @torch.inference_mode()
    def _require_causal(self) -> None:
        """Raises ValueError for a model that attends to later tokens."""
        # Of one length, so that what does not depend on later tokens is rounded in the same way, also in float16.
        ids = torch.tensor([[1, 2, 3, 3], [1, 2, 4, 4]], device=self.device)
        first, second = (self.logits(self(row[None])) for row in ids)
        if not torch.allclose(first[:, :2], second[:, :2], atol=1e-3, rtol=1e-3):
            raise ValueError("it is no causal language model: its output at a token depends on those after it")

    @torch.inference_mode()
    def _head_is_supported(self) -> bool:
        """Whether head, scale and cap, applied to the last hidden states of the body, give the whole model's logits."""
        self.head_is_supported = True
        ids = torch.arange(1, 5, device=self.device)[None]
        ours = self.logits(self._hidden(ids))
        theirs = self.model(ids).logits
        return ours.shape == theirs.shape and torch.allclose(ours.float(), theirs.float(), atol=1e-3, rtol=1e-4)


def _logit_scale(config: "PreTrainedConfig") -> float:
    """The factor by which Cohere and Granite models scale their logits."""
    factor, divisor = getattr(config, "logit_scale", None), getattr(config, "logits_scaling", None)
    return float(factor) if isinstance(factor, int | float) else 1 / divisor if divisor else 1.0


def _vocab_size(model: "PreTrainedModel") -> int:
    head = model.get_output_embeddings()
    return head.weight.shape[0] if head is not None else model.config.get_text_config().vocab_size
