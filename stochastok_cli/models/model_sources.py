"""Models that are found by name, and loaded later."""

from dataclasses import dataclass
from pathlib import Path

from stochastok_cli import hub
from stochastok_cli.errors import UserError
from stochastok_cli.models.base import CausalLM, ModelSpec, spec_for
from stochastok_cli.models.huggingface_spec import HUGGINGFACE, open_pretrained
from stochastok_cli.tokenization.vocabulary import Vocabulary


@dataclass(frozen=True)
class ModelSource:
    """A model that is not loaded yet.

    Attributes:
        name: As the user gave it.
        folder: Its files; for a model on the Hub, those of its tokenizer.
        is_on_hub: Whether its weights have to be downloaded.
        spec: The architecture that opens it.
        context_window: In tokens.
    """

    name: str
    folder: Path
    is_on_hub: bool
    spec: ModelSpec
    context_window: int


def locate_model(name: str, folder: Path | None) -> ModelSource:
    """Finds a model and reads its configuration, without loading the weights.

    Args:
        name: The id on the Hub of a model that is not on this machine.
        folder: The folder of a model that is, or None.

    Raises:
        UserError: Neither a registered architecture nor `transformers` (if installed) opens the model.
    """
    if folder is not None:
        spec = spec_for(folder)
        return ModelSource(str(folder), folder, False, spec, spec.read_config(folder).context_window)
    folder = hub.tokenizer_folder(*hub.parse_repo_id(name))
    return ModelSource(name, folder, True, HUGGINGFACE, HUGGINGFACE.read_config(folder).context_window)


def open_model(source: ModelSource, vocabulary: Vocabulary, device: str) -> CausalLM:
    """Loads a model in float32, in evaluation mode.

    Raises UserError for a model that can't be loaded, and for a vocabulary that is larger than the model's.
    """
    if source.is_on_hub:
        model: CausalLM = open_pretrained(hub.model_folder(*hub.parse_repo_id(source.name)), source.name, device)
    else:
        model = source.spec.load(source.folder, device)
    if vocabulary.size > model.vocab_size:
        raise UserError(
            f"{source.name}: the tokenizer has {vocabulary.size:,} entries and the model {model.vocab_size:,}",
            fix="they don't belong together",
        )
    return model
