"""Models that are found by name, and loaded later."""

from dataclasses import dataclass
from pathlib import Path

import torch

from stochastok_cli import hub
from stochastok_cli.errors import UserError
from stochastok_cli.models.base import CausalLM, ModelSpec, spec_for
from stochastok_cli.models.huggingface_spec import HUGGINGFACE, open_pretrained, stored_dtype
from stochastok_cli.tokenization.vocabulary import Vocabulary

AUTO = "auto"
DTYPES = (AUTO, "float32", "bfloat16", "float16")
"""In which weights are loaded. "auto" is the type in which they are stored on a GPU, and float32 on a CPU."""


@dataclass(frozen=True)
class ModelSource:
    """A model that is not loaded yet.

    Attributes:
        name: As the user gave it.
        folder: Its files; for a model on the Hub, those of its tokenizer.
        is_on_hub: Whether its weights have to be downloaded.
        spec: The architecture that opens it.
        context_window: In tokens.
        dtype: See `locate_model`.
    """

    name: str
    folder: Path
    is_on_hub: bool
    spec: ModelSpec
    context_window: int
    dtype: str = AUTO


def locate_model(name: str, folder: Path | None, dtype: str = AUTO) -> ModelSource:
    """Finds a model and reads its configuration, without loading the weights.

    Args:
        name: The id on the Hub of a model that is not on this machine.
        folder: The folder of a model that is, or None.
        dtype: The type in which its weights will be loaded, one of `DTYPES`.

    Raises:
        UserError: There is no such type, or neither a registered architecture nor `transformers` (if installed) opens
            the model.
    """
    if dtype not in DTYPES:
        raise UserError(f"dtype = {dtype} is not possible", fix=f"give one of {', '.join(DTYPES)}")
    if folder is not None:
        spec = spec_for(folder)
        return ModelSource(str(folder), folder, False, spec, spec.read_config(folder).context_window, dtype)
    with hub.no_path(name, "checkpoint"):
        folder = hub.tokenizer_folder(*hub.parse_repo_id(name))
    return ModelSource(name, folder, True, HUGGINGFACE, HUGGINGFACE.read_config(folder).context_window, dtype)


def open_model(source: ModelSource, vocabulary: Vocabulary, device: str) -> CausalLM:
    """Loads a model in evaluation mode, with weights of the type that its source names.

    Raises UserError for a model that can't be loaded, and for a vocabulary that is larger than the model's.
    """
    if source.is_on_hub:
        folder = hub.model_folder(*hub.parse_repo_id(source.name))
        model: CausalLM = open_pretrained(folder, source.name, device, dtype_of(source, device))
    else:
        model = source.spec.load(source.folder, device, dtype_of(source, device))
    if vocabulary.size > model.vocab_size:
        raise UserError(
            f"{source.name}: the tokenizer has {vocabulary.size:,} entries and the model {model.vocab_size:,}",
            fix="they don't belong together",
        )
    return model


def dtype_of(source: ModelSource, device: str) -> torch.dtype:
    """The type in which the weights of a model are loaded on a device; see `DTYPES`."""
    if source.dtype != AUTO:
        return getattr(torch, source.dtype)
    return torch.float32 if device == "cpu" else stored_dtype(source.folder)
