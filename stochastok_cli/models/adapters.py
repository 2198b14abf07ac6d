"""Low-rank adapters (LoRA; Hu et al. 2021) of models of `transformers`, in the format of `peft` (extra `peft`).

The folder of an adapter holds `adapter_config.json`, which names the base model, and `adapter_model.safetensors`. Ours
have `base_model.json`, too, the checksum of the base model's weights. Where a checkpoint is the merged model, its
adapter is in the sub-folder `adapter`.
"""

import copy
import hashlib
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors.torch import save_file
from torch import Tensor, nn

from stochastok_cli import hub
from stochastok_cli.config import LoraConfig
from stochastok_cli.errors import FAILED, UserError, cannot_import, first_line, one_line
from stochastok_cli.json_files import write_json
from stochastok_cli.manifest import file_checksum
from stochastok_cli.models.checkpoint_reader import is_run
from stochastok_cli.models.weight_files import (
    ADAPTER_CONFIG,
    ADAPTER_WEIGHTS,
    COPY_AGAIN,
    find_tensors,
    open_safetensors,
    read_json,
)

if TYPE_CHECKING:
    from transformers import PreTrainedModel

SUBFOLDER = "adapter"
_BASE = "base_model.json"
_BASE_CHECKSUM = "weights_sha256"
_PREFIX = "base_model.model."  # what the names of a file have before those of the base model's layers
_NAME = "default"  # the adapter's name in the modules of peft


@dataclass(frozen=True)
class Adapter:
    """The adapter that a model is trained with.

    Attributes:
        base_checksum: Of the base model's weights; None where this process did not read them.
        merge: Whether a checkpoint is the merged model.
    """

    base_checksum: str | None
    merge: bool


def require_peft(what: str) -> None:
    """Raises UserError if `peft` is not installed, which `what` needs."""
    try:
        import peft  # noqa: F401
    except ImportError as error:
        raise cannot_import(what, "peft", "peft", error) from None


def is_adapter(folder: Path) -> bool:
    """Whether `transformers` takes a folder for an adapter."""
    return (folder / ADAPTER_CONFIG).is_file()


def find_adapter(folder: Path) -> Path:
    """Where the adapter of a checkpoint is, merged or not."""
    return folder if is_adapter(folder) else folder / SUBFOLDER


def find_base(folder: Path, *, with_weights: bool = True) -> Path:
    """The folder of the model that the adapter in a folder belongs to. One on the Hub is downloaded, or its
    configuration alone.

    Raises UserError if there is no such model.
    """
    file = folder / ADAPTER_CONFIG
    tree = read_json(file)
    name, revision = tree.get("base_model_name_or_path"), tree.get("revision")
    if not isinstance(name, str) or not name or not isinstance(revision, str | None):
        raise UserError(f"{file} names no base model", fix=COPY_AGAIN, exit_code=FAILED)
    local = Path(name)
    if is_adapter(local):
        raise UserError(f"{folder} is an adapter of {local}, which is an adapter itself", fix="merge that one first")
    if local.is_dir():
        return local
    if "/" not in name or not hub.is_repo_id(name) or is_run(local.parent):
        raise UserError(
            f"{local}, the base model of the adapter in {folder}, is not there", fix="put it back", exit_code=FAILED
        )
    with hub.no_path(name, f"folder for the base model of the adapter in {folder},"):
        return hub.model_folder(name, revision) if with_weights else hub.config_folder(name, revision)


def weights_checksum(folder: Path) -> str:
    """The SHA-256 of the checksums of all weight files of a model folder, in the order of their names."""
    files = sorted({tensor.file for tensor in find_tensors(folder).values()})
    return hashlib.sha256("".join(f"{file_checksum(file).sha256}" for file in files).encode()).hexdigest()


def add_lora(model: "PreTrainedModel", config: LoraConfig, base: Path) -> None:
    """Puts float32 adapters beside layers of a model, drawn from torch's global generator. They alone are trained.

    Args:
        model: The model, which is changed.
        config: Which adapters.
        base: The folder of the model.

    Raises:
        UserError: No layer has one of the names, or an adapter of it can't be trained here.
    """
    require_peft("trainer.lora")
    import peft

    name, revision = hub.repo_of_snapshot(base) or (str(base.resolve()), None)
    alpha: Any = int(config.alpha) if config.alpha.is_integer() else config.alpha
    lora = peft.LoraConfig(
        task_type="CAUSAL_LM",
        r=config.rank,
        lora_alpha=alpha,
        lora_dropout=config.dropout,
        target_modules="all-linear" if config.target_modules is None else list(config.target_modules),
        base_model_name_or_path=name,
        revision=revision,
    )
    layers = sorted(_layer_names(model))
    try:
        with warnings.catch_warnings(action="ignore"):
            peft.inject_adapter_in_model(lora, model, adapter_name=_NAME)
    except ValueError as error:
        reason = first_line(error)
        raise UserError(
            f"trainer.lora.target_modules does not fit {type(model).__name__}: {reason}",
            fix=f"its layers are {', '.join(layers)}",
        ) from None
    for parameter in model.parameters():
        if parameter.requires_grad:  # peft has made it of the layer's type
            parameter.data = parameter.data.float()
    for target in config.target_modules or ():
        if not any(name == target or name.endswith(f".{target}") for name in _adapted(model)):
            raise UserError(
                f"trainer.lora.target_modules: {type(model).__name__} has no layer {target!r}",
                fix=f"its layers are {', '.join(layers)}",
            )
    for shared in (model.get_output_embeddings(), model.get_input_embeddings()):
        if isinstance(shared, _tuner_layer()):
            raise UserError(
                "trainer.lora.target_modules: embeddings and the output head can't have an adapter",
                fix=f"take some of {', '.join(layers)}",
            )


def _layer_names(model: "PreTrainedModel") -> Iterable[str]:
    """The last parts of the names of a model's linear layers, without the output head."""
    head, linear = model.get_output_embeddings(), (nn.Linear, _conv1d())
    return {
        name.rpartition(".")[2] for name, part in model.named_modules() if isinstance(part, linear) and part is not head
    }


def _adapted(model: nn.Module) -> list[str]:
    layer = _tuner_layer()
    return [name for name, module in model.named_modules() if isinstance(module, layer)]


def _tuner_layer() -> Any:
    from peft.tuners.tuners_utils import BaseTunerLayer

    return BaseTunerLayer


def _conv1d() -> type[nn.Module]:
    from transformers.pytorch_utils import Conv1D

    return Conv1D


def save_adapter(
    model: "PreTrainedModel", adapter: Adapter, folder: Path, state_dict: Mapping[str, Tensor] | None
) -> None:
    """Writes the adapter of a model into an existing folder. `state_dict` has the names of the model's own."""
    import peft

    tensors = peft.get_peft_model_state_dict(
        model, state_dict=state_dict, adapter_name=_NAME, save_embedding_layers=False
    )
    named = {_PREFIX + name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    save_file(named, folder / ADAPTER_WEIGHTS, metadata={"format": "pt"})
    write_json(folder / _BASE, {_BASE_CHECKSUM: adapter.base_checksum})
    config: Any = copy.copy(model.peft_config[_NAME])
    config.inference_mode = True
    config.target_modules = sorted(config.target_modules)
    config.save_pretrained(folder)


def load_adapter(model: "PreTrainedModel", adapter: Adapter, folder: Path) -> None:
    """Copies the adapter in a folder into a model that has adapters of the same shapes.

    Raises UserError if it was trained on other weights than those of the model, or does not fit.
    """
    import peft

    tensors = _read_adapter(folder, adapter.base_checksum)
    try:
        _require_all_loaded(peft.set_peft_model_state_dict(model, tensors, adapter_name=_NAME), folder)
    except RuntimeError as error:  # other shapes
        raise UserError(
            f"{folder} does not fit the model: {one_line(str(error))}", fix=COPY_AGAIN, exit_code=FAILED
        ) from None


def _require_all_loaded(result: Any, folder: Path) -> None:
    """Raises UserError if a tensor of the file or one of the model's adapters was left out."""
    left_out = [*(name for name in result.missing_keys if "lora_" in name), *result.unexpected_keys]
    if left_out:
        raise UserError(
            f"{folder} does not fit its base model: {left_out[0]} is only in one of them",
            fix=f"see what {ADAPTER_CONFIG} names",
            exit_code=FAILED,
        )


def merge_adapter(model: "PreTrainedModel", folder: Path, base: Path) -> "PreTrainedModel":
    """A base model, read from `base`, with the adapter in a folder merged into its weights.

    Raises UserError if the adapter was trained on other weights, or is a pickle.
    """
    require_peft(f"{folder} is an adapter and")
    import peft

    _read_adapter(folder, weights_checksum(base))
    with warnings.catch_warnings(action="ignore"):  # what they say is checked below
        adapted: Any = peft.get_peft_model(model, peft.PeftConfig.from_pretrained(str(folder)), adapter_name=_NAME)
        result = adapted.load_adapter(folder, _NAME, torch_device="cpu")
        _require_all_loaded(result, folder)
        return adapted.merge_and_unload()


def _read_adapter(folder: Path, base_checksum: str | None) -> dict[str, Tensor]:
    """The tensors of an adapter, by the names of `peft`. Raises UserError if it belongs to another base model."""
    recorded = read_json(folder / _BASE).get(_BASE_CHECKSUM) if (folder / _BASE).is_file() else None
    if recorded is not None and recorded != base_checksum:
        raise UserError(
            f"{folder} is an adapter of other weights than its base model has now",
            fix=f"put back the weights of the model that its {ADAPTER_CONFIG} names",
            exit_code=FAILED,
        )
    with open_safetensors(folder / ADAPTER_WEIGHTS) as stream:
        return {name.removeprefix(_PREFIX): stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118
