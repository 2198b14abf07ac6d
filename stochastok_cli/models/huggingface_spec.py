"""How models of `transformers` are read from files, made, and saved (needs the extra `hf`)."""

import copy
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from stochastok_cli.errors import FAILED, UserError, cannot_import, one_line
from stochastok_cli.models import adapters
from stochastok_cli.models.base import WRAPPER_MODEL_TYPE, ModelSpec, register_model, unwrap
from stochastok_cli.models.huggingface import HuggingFaceConfig, HuggingFaceModel, NoNumbersError
from stochastok_cli.models.weight_files import CONFIG, find_tensors, read_json, strip_wrappers
from stochastok_cli.quiet_libraries import quiet
from stochastok_cli.tokenization.vocabulary import Vocabulary

_CONTEXT_WINDOW_FIELDS = ("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len", "seq_length")
_DEFAULT_CONTEXT_WINDOW = 2048
_PARAMETERS_PER_BYTE = 4  # 2 for weights of 4 bits
_DROPOUT_FIELD = re.compile(r"(^|_)(dropout|pdrop|dropout_prob|dropout_rate)$")


def _read_config(folder: Path) -> HuggingFaceConfig:
    """For an adapter, that of its base model. Raises UserError if `transformers` is not installed, or doesn't know the
    model."""
    folder = _weights_folder(folder)
    try:
        from transformers import AutoConfig
    except ImportError as error:
        what = f"{folder} holds no model that this program runs itself; another one"
        raise cannot_import(what, "transformers", "hf", error) from None
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)  # or it asks whether to run its code
    except Exception as error:
        raise _cannot_open(str(folder), error) from None
    text_config = config.get_text_config()  # of a model for texts and images, the part for texts
    windows = (getattr(text_config, field, None) for field in _CONTEXT_WINDOW_FIELDS)
    window = next((n for n in windows if isinstance(n, int) and n > 0), _DEFAULT_CONTEXT_WINDOW)
    vocab_size = getattr(text_config, "vocab_size", None)
    if not isinstance(vocab_size, int):
        raise UserError(f"{folder} holds no language model: its configuration has no vocab_size", exit_code=FAILED)
    return HuggingFaceConfig(window, vocab_size, config)


def _build(config: HuggingFaceConfig, dropout: float) -> HuggingFaceModel:
    """A float32 model of fresh weights. All of its dropout probabilities are `dropout`."""
    from transformers import AutoModelForCausalLM

    trained = copy.deepcopy(config.pretrained)
    for part in {id(part): part for part in (trained, trained.get_text_config())}.values():
        for field, value in vars(part).items():
            if _DROPOUT_FIELD.search(field) and isinstance(value, int | float):
                setattr(part, field, dropout)
    try:
        model: Any = AutoModelForCausalLM.from_config(trained, dtype=torch.float32)
        wrapper = HuggingFaceModel(model.eval(), config.context_window, config.pretrained)  # its checks need eval mode
        return wrapper.train()
    except Exception as error:
        raise _cannot_open(config.pretrained.model_type, error) from None


def _from_folder(folder: Path, device: str | torch.device, dtype: torch.dtype) -> HuggingFaceModel:
    return open_pretrained(folder, str(folder), device, dtype)


def open_pretrained(
    folder: Path, name: str, device: str | torch.device, dtype: torch.dtype = torch.float32
) -> HuggingFaceModel:
    """The model in a folder, in evaluation mode. Raises UserError if `transformers` can't open it, or it gives NaN."""
    config = _read_config(folder)
    try:
        _check_weights(config, folder)
        return HuggingFaceModel(_from_pretrained(folder, dtype).eval().to(device), config.context_window)
    except UserError:
        raise
    except NoNumbersError as error:
        fix = (
            "give --dtype float32" if dtype == torch.float16 else "take an earlier checkpoint, or copy the model again"
        )
        raise UserError(f"{name} gives no numbers: {error}", fix=fix, exit_code=FAILED) from None
    except Exception as error:  # transformers lets through whatever its parts raise
        raise _cannot_open(name, error) from None


def _check_weights(config: HuggingFaceConfig, folder: Path) -> None:
    """Raises UserError if a configuration describes far more weights than the files of the folder, or of an adapter's
    base model, can hold."""
    from transformers import AutoModelForCausalLM

    folder = _weights_folder(folder)
    try:
        stored = find_tensors(folder)
    except UserError:
        return  # transformers says what it misses
    layers = getattr(config.pretrained.get_text_config(), "num_hidden_layers", 0)
    if layers > len(stored):
        raise UserError(f"{folder / CONFIG} has {layers:,} layers, and its weights are {len(stored):,} tensors")
    with torch.device("meta"):
        parameters = AutoModelForCausalLM.from_config(config.pretrained, trust_remote_code=False).num_parameters()
    size = sum(file.stat().st_size for file in {tensor.file for tensor in stored.values()})
    if parameters > _PARAMETERS_PER_BYTE * size:
        raise UserError(
            f"{folder / CONFIG} describes {parameters:,} parameters, and the files of its weights have {size:,} bytes",
            fix="they don't belong together: copy or download the model again",
        )


def stored_dtype(folder: Path) -> torch.dtype:
    """The type in which a folder's `config.json` says that its weights are stored, float32 where it does not say.

    Of an adapter it is that of its base model.
    """
    config = read_json(_weights_folder(folder) / CONFIG)
    dtype = getattr(torch, str(config.get("dtype") or config.get("torch_dtype")), torch.float32)
    return dtype if isinstance(dtype, torch.dtype) else torch.float32


def _weights_folder(folder: Path) -> Path:
    """The folder of the base model for an adapter, otherwise the folder itself."""
    return adapters.find_base(folder) if adapters.is_adapter(folder) else folder


def _from_pretrained(folder: Path, dtype: torch.dtype = torch.float32) -> Any:
    """The model in a folder; an adapter is merged into its base model.

    Raises UserError, or whatever `transformers` raises, if it can't be opened.
    """
    from transformers import AutoModelForCausalLM

    base = _weights_folder(folder)
    with quiet("transformers"):
        model = AutoModelForCausalLM.from_pretrained(base, dtype=dtype, use_safetensors=True, trust_remote_code=False)
    return model if base == folder else adapters.merge_adapter(model, folder, base)


def _load_weights(model: nn.Module, folder: Path) -> None:
    wrapper = unwrap(model)
    assert isinstance(wrapper, HuggingFaceModel)
    if wrapper.adapter is not None:
        adapters.load_adapter(wrapper.model, wrapper.adapter, adapters.find_adapter(folder))
        return
    try:
        wrapper.model.load_state_dict(_from_pretrained(folder).state_dict())
    except UserError:
        raise
    except Exception as error:
        raise _cannot_open(str(folder), error) from None


@quiet("transformers")
def _save(
    model: nn.Module, folder: Path, vocabulary: Vocabulary, state_dict: Mapping[str, Tensor] | None = None
) -> None:
    wrapper = unwrap(model)
    assert isinstance(wrapper, HuggingFaceModel)
    if state_dict is not None:
        names = {strip_wrappers(name): tensor for name, tensor in state_dict.items()}
        state_dict = {
            name.removeprefix("model."): tensor for name, tensor in names.items() if name.startswith("model.")
        }
    vocabulary.save_tokenizer(folder, wrapper.context_window)
    saved_model: Any = wrapper.model
    if wrapper.adapter is not None:
        own = folder / adapters.SUBFOLDER if wrapper.adapter.merge else folder
        own.mkdir(exist_ok=True)
        adapters.save_adapter(wrapper.model, wrapper.adapter, own, state_dict)
        if not wrapper.adapter.merge:
            return
        trained = next(part.dtype for part in state_dict.values()) if state_dict else torch.float32
        dtype = torch.bfloat16 if torch.bfloat16 in (trained, wrapper.head_weight.dtype) else torch.float32
        saved_model, state_dict = _from_pretrained(own).to(dtype), None
    weights = dict(saved_model.state_dict() if state_dict is None else state_dict)
    saved_model.save_pretrained(folder, state_dict=dict(weights))  # which takes tensors out of it
    saved = copy.deepcopy(wrapper.saved_config)
    saved.architectures = [type(saved_model).__name__]
    dtype = next(tensor.dtype for tensor in weights.values() if tensor.is_floating_point())
    saved.dtype = str(dtype).removeprefix("torch.")
    saved.save_pretrained(folder)


def _cannot_open(name: str, error: Exception) -> UserError:
    if "trust_remote_code" in str(error):  # transformers asks for an argument that is never given
        return UserError(
            f"{name} brings code of its own, which is never run",
            fix="give a model whose architecture transformers itself has",
            exit_code=FAILED,
        )
    reason = one_line(str(error)) or type(error).__name__
    return UserError(f"transformers can't open {name}: {reason}", exit_code=FAILED)


HUGGINGFACE = register_model(
    ModelSpec(
        name=WRAPPER_MODEL_TYPE,
        read_config=_read_config,
        build=_build,
        load_weights=_load_weights,
        save=_save,
        from_folder=_from_folder,
        check_weights=_check_weights,
    )
)
