"""The interface of models: `CausalLM`, its cache, and the registry of architectures.

Training, evaluation and checkpoints use these interfaces alone. To add an architecture, write a module or a package in
`stochastok_cli/models` that subclasses `CausalLM` and calls `register_model(ModelSpec(...))` when it is imported. All
modules of that folder are imported automatically. Code outside of the package registers its architectures in the same
way, and has to be imported before the program runs.

Shapes: B sequences, T tokens of a call, S tokens that can be attended to (T plus what the cache holds), D the width of
the hidden states, V the entries of the vocabulary, G key/value heads of width h.
"""

import abc
import functools
import importlib
import pkgutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import torch
from torch import Tensor, nn

from stochastok_cli.errors import FAILED, UserError
from stochastok_cli.models.linear_weights import LinearWeight
from stochastok_cli.models.weight_files import ADAPTER_CONFIG, CONFIG, read_json

if TYPE_CHECKING:
    from stochastok_cli.tokenization.vocabulary import Vocabulary

DEFAULT_MODEL_TYPE = "llama"
"""The architecture of a model that is trained from scratch."""
WRAPPER_MODEL_TYPE = "huggingface"
"""The architecture under which every other model is opened, by `transformers`."""


_SPARE_TOKENS = 32  # tokens more than a cache holds


class KeyValueCache:
    """The rotated keys and the values of all positions so far, `[B, G, S, h]` for each layer."""

    def __init__(self) -> None:
        self.keys: list[Tensor] = []
        self.values: list[Tensor] = []
        self._buffers: dict[tuple[str, int], Tensor] = {}
        self.native: Any = None
        """An object of the model's library that holds the same tensors, so that it need not be made for each call."""

    @property
    def length(self) -> int:
        """Positions held, the same number for every sequence of the batch."""
        return self.keys[0].shape[2] if self.keys else 0

    def extend(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Appends `[B, G, T, h]` to a layer and returns all that it holds then. Layers come in order, from 0.

        Single tokens are written into tensors with space for more, so that not all are copied for each.
        """
        if layer == len(self.keys):
            self.keys.append(keys)
            self.values.append(values)
        else:
            self.keys[layer] = self._append(("keys", layer), self.keys[layer], keys)
            self.values[layer] = self._append(("values", layer), self.values[layer], values)
        return self.keys[layer], self.values[layer]

    def _append(self, place: tuple[str, int], held: Tensor, new: Tensor) -> Tensor:
        length = held.shape[2]
        if new.shape[2] > 1:
            return torch.cat((held, new), dim=2)
        buffer = self._buffers.get(place)
        if (
            buffer is None
            or held.data_ptr() != buffer.data_ptr()
            or len(held) != len(buffer)
            or buffer.shape[2] == length
        ):
            buffer = held.new_empty((*held.shape[:2], length + _SPARE_TOKENS, held.shape[3]))
            buffer[:, :, :length] = held
            self._buffers[place] = buffer
        buffer[:, :, length : length + 1] = new
        return buffer[:, :, : length + 1]

    def keep(self, index: Tensor) -> None:
        """Keeps the sequences at these int64 indices of the batch, in this order."""
        self.keys = [keys[index] for keys in self.keys]
        self.values = [values[index] for values in self.values]


class CausalLM(nn.Module, abc.ABC):
    """A causal language model: hidden states from token ids, and logits from hidden states."""

    model_type: ClassVar[str]
    """The name of the architecture's `ModelSpec`."""
    activation_checkpointing: bool = False
    """Whether the backward pass computes the activations of each layer again."""
    compiles_whole: bool = True
    """Whether `torch.compile` is given the whole model; otherwise each of its blocks."""
    companion_files: Mapping[str, bytes] = {}
    """Files that a checkpoint keeps as they were in the folder that training began from (see `companion_files`)."""
    context_window: int
    """The most tokens of a sequence, those in the cache included."""
    vocab_size: int

    @abc.abstractmethod
    def forward(self, ids: Tensor, segment_start: Tensor | None = None, cache: KeyValueCache | None = None) -> Tensor:
        """Computes the hidden states that the output head reads.

        Args:
            ids: int64 `[B, T]`.
            segment_start: int `[B, T]`, the first position that each token may attend to. It confines attention to
                one of several examples packed into a row, and hides padding on the left. None: causal attention to
                the whole row.
            cache: Positions that precede `ids`. The call appends its own to it.

        Returns:
            Hidden states after the last norm, `[B, T, D]`.
        """

    @property
    @abc.abstractmethod
    def head_weight(self) -> Tensor:
        """The weight of the output head, `[V, D]`, as `head_loss` takes it."""

    @property
    def head_bias(self) -> Tensor | None:
        """The bias of the output head, `[V]`, or None."""
        return None

    @property
    def logit_softcap(self) -> float | None:
        """c, where the logits are `c * tanh(logits / c)`; None where they are not capped."""
        return None

    @abc.abstractmethod
    def logits(self, hidden: Tensor) -> Tensor:
        """Logits `[..., V]` of hidden states `[..., D]`. Training uses `head_loss`, which never holds all of them."""

    @property
    @abc.abstractmethod
    def blocks(self) -> Sequence[nn.Module]:
        """The layers, from the first to the last."""

    def set_activation_checkpointing(self, enabled: bool) -> None:
        """Chooses whether the backward pass computes activations again. Raises UserError for a model that can't."""
        self.activation_checkpointing = enabled

    def training_unsupported(self) -> str | None:
        """Why the model can't be trained, in words that complete "because"; None if it can."""
        return None

    def packing_unsupported(self) -> str | None:
        """Why examples can't be packed into one row, in words that complete "because"; None if they can."""
        return None

    def attention_of(self, block: nn.Module) -> nn.Module | None:
        """The self-attention in one of `blocks`, whose output the block adds to its input; None where it has none."""
        return None

    def linear_weights(self, block: nn.Module) -> dict[Tensor, LinearWeight]:
        """The weights of the linear layers in one of `blocks`, each with the matrices in it.

        An architecture overrides it whose weights hold several projections, or are in modules other than `nn.Linear`.
        """
        linear = (module for module in block.modules() if isinstance(module, nn.Linear))
        return {module.weight: LinearWeight((module.out_features,)) for module in linear}

    @abc.abstractmethod
    def flops_per_token(self, context_window: int) -> int:
        """Floating-point operations of training on one token (forward and backward) in windows of this many tokens."""

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    def trained_parameters(self) -> list[nn.Parameter]:
        """Those that have a gradient, in the order of `parameters()`."""
        return [parameter for parameter in self.parameters() if parameter.requires_grad]

    def num_parameters(self) -> int:
        """The number of trained parameters; a shared tensor counts once."""
        return sum(parameter.numel() for parameter in self.trained_parameters())

    def num_matrix_parameters(self) -> int:
        """The number of parameters in matrix products: without the gains of norms, biases, and embeddings that are
        only looked up."""
        return sum(parameter.numel() for parameter in self._matrix_parameters())

    def matrix_flops_per_token(self) -> int:
        """Operations of training on one token in products with parameters: two for each in the forward pass, two for
        the gradient of the input, and two for the parameter's own gradient where it is trained."""
        return sum((6 if p.requires_grad else 4) * p.numel() for p in self._matrix_parameters())

    def _matrix_parameters(self) -> list[nn.Parameter]:
        looked_up = {module.weight for module in self.modules() if isinstance(module, nn.Embedding)}
        looked_up -= {self.head_weight}
        return [p for p in self.parameters() if p.dim() >= 2 and p not in looked_up]


class ArchitectureConfig(Protocol):
    """The hyperparameters that every architecture has. An architecture may define further ones."""

    @property
    def context_window(self) -> int: ...
    @property
    def vocab_size(self) -> int: ...


class FusedStep(Protocol):
    """The loss of a model and its gradients, computed by kernels made for the architecture.

    The arguments of both methods:
        ids: int64 `[B, T + 1]`.
        token_weights: float32 `[B, T]`.
        segment_start: int `[B, T]`, as in `CausalLM.forward`, or None.
        dropout_keys: int64 `[B]`, one for each window.
        num_loss_tokens: The number of token weights that are not 0, if it is known.
        on_gradients_ready: Called with the number of each block when nothing more will be added to its gradients.

    Both return `sum(token_weights * nll)`, a float32 scalar on the device. `loss` computes it without dropout and
    gradients; `loss_and_gradients` adds the gradients to the parameters' `.grad`.

    Attributes:
        windows_at_once: How many windows the last call of `loss_and_gradients` has computed at once; 0 before any.
        recomputes_activations: Whether its backward pass has computed activations again.
    """

    windows_at_once: int
    recomputes_activations: bool

    def loss(
        self,
        ids: Tensor,
        token_weights: Tensor,
        segment_start: Tensor | None,
        *,
        num_loss_tokens: int | None = None,
    ) -> Tensor: ...

    def loss_and_gradients(
        self,
        ids: Tensor,
        token_weights: Tensor,
        segment_start: Tensor | None,
        dropout_keys: Tensor,
        *,
        num_loss_tokens: int | None = None,
        on_gradients_ready: Callable[[int], None],
    ) -> Tensor: ...


class SaveModel(Protocol):
    """Writes a model, which may be compiled or wrapped, and its tokenizer into an existing folder.

    `state_dict` is given where the model's own holds only a part of each tensor, because it is sharded, and where the
    weights are saved in another type.
    """

    def __call__(
        self, model: nn.Module, folder: Path, vocabulary: "Vocabulary", state_dict: Mapping[str, Tensor] | None = None
    ) -> None: ...


def _anything_fits(config: Any, folder: Path) -> None:
    pass


def _no_fused_kernels(config: Any, device: torch.device) -> str | None:
    return "there are none for this architecture"


@dataclass(frozen=True)
class ModelSpec:
    """One architecture: how its models are made, read and written.

    Attributes:
        name: `model_type` in the `config.json` of its folders.
        read_config: The hyperparameters in a folder. Raises UserError if the folder doesn't fit the architecture.
        build: A model with fresh weights from torch's global generator, given its hyperparameters and dropout.
        load_weights: Copies the weights in a folder into a model of the same shapes.
        save: See `SaveModel`.
        from_folder: Makes a model on a device from a folder, in evaluation mode, with weights of a type; absent where
            `build` and `load_weights` are as cheap.
        fused_unsupported: Why the fused kernels can't train a model of these hyperparameters on a device, in words
            that complete "because"; None if they can.
        fused_step: The fused kernels for a model: `fused_step(model, dropout, fp8_logits=False,
            activation_checkpointing=False)`.
        check_weights: Raises UserError where the files of a folder hold tensors of other shapes than a model of these
            hyperparameters has. It reads no tensors, and is called before such a model is built.
        shorten: The hyperparameters with a smaller context window; absent where weights depend on positions.
    """

    name: str
    read_config: Callable[[Path], ArchitectureConfig]
    build: Callable[[Any, float], CausalLM]
    load_weights: Callable[[nn.Module, Path], None]
    save: SaveModel
    from_folder: Callable[[Path, str | torch.device, torch.dtype], CausalLM] | None = None
    fused_unsupported: Callable[[Any, torch.device], str | None] = _no_fused_kernels
    fused_step: Callable[..., FusedStep] | None = None
    check_weights: Callable[[Any, Path], None] = _anything_fits
    shorten: Callable[[Any, int], ArchitectureConfig] | None = None

    def load(self, folder: Path, device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32) -> CausalLM:
        """The model in a folder, in evaluation mode and without dropout, with weights of this type.

        Raises UserError where the folder holds another kind of model, or files are missing, damaged or cut short.
        """
        if self.from_folder is not None:
            return self.from_folder(folder, device, dtype)
        config = self.read_config(folder)
        self.check_weights(config, folder)
        model = self.build(config, 0.0)
        self.load_weights(model, folder)
        convert_parameters(model, dtype)
        return model.to(device).eval()


_specs: dict[str, ModelSpec] = {}


def register_model(spec: ModelSpec) -> ModelSpec:
    """Adds an architecture to the registry and returns it. Raises ValueError for a name that is taken."""
    if spec.name in _specs:
        raise ValueError(f"there is a model of the name {spec.name!r} already")
    _specs[spec.name] = spec
    return spec


def model_specs() -> Mapping[str, ModelSpec]:
    """All registered architectures by name."""
    _import_architectures()
    return _specs


@functools.cache
def _import_architectures() -> None:
    package = importlib.import_module("stochastok_cli.models")
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"{package.__name__}.{module.name}")


def spec_for(folder: Path) -> ModelSpec:
    """The architecture that opens the model in a folder: the one of its `model_type`, or else `transformers`.

    An adapter is opened by `transformers`. Raises UserError if there is no such folder, or no `config.json` in it.
    """
    if (folder / ADAPTER_CONFIG).is_file():
        return model_specs()[WRAPPER_MODEL_TYPE]
    spec = _spec_of_type(folder)
    try:
        spec.read_config(folder)
    except UserError:
        return model_specs()[WRAPPER_MODEL_TYPE]
    return spec


def spec_of(model: nn.Module) -> ModelSpec:
    """The architecture of a model, which may be compiled or wrapped."""
    return model_specs()[unwrap(model).model_type]


@contextmanager
def explain_out_of_memory(what: str, fix: str) -> Iterator[None]:
    """Raises an out-of-memory error of a GPU in the block as a UserError.

    Args:
        what: What the memory did not suffice for: "batches of 16,384 tokens".
        fix: What needs less.
    """
    try:
        yield
    except torch.OutOfMemoryError:
        raise UserError(f"the GPU's memory does not suffice for {what}", fix=fix, exit_code=FAILED) from None


def convert_parameters(model: nn.Module, dtype: torch.dtype) -> None:
    """Converts the weights of a model. Its buffers, such as the tables of rotary embeddings, stay float32."""
    for parameter in model.parameters():
        parameter.data = parameter.data.to(dtype)


def load_model(folder: Path, device: str | torch.device = "cpu") -> CausalLM:
    """The model in a folder, whatever its architecture, in evaluation mode and without dropout.

    Raises UserError where files are missing, damaged or cut short.
    """
    return spec_for(folder).load(folder, device)


def unwrap(model: Any) -> CausalLM:
    """The model inside `torch.compile` and DistributedDataParallel, in whatever order they were put around it."""
    while not isinstance(model, CausalLM):
        model = model._orig_mod if hasattr(model, "_orig_mod") else model.module
    return model


def _spec_of_type(folder: Path) -> ModelSpec:
    """The architecture of the `model_type` in a folder; the default one where that is not registered, or not there.

    Raises UserError for a `config.json` that is missing or damaged.
    """
    name = read_json(folder / CONFIG).get("model_type")
    specs = model_specs()
    return specs[name] if isinstance(name, str) and name in specs else specs[DEFAULT_MODEL_TYPE]
