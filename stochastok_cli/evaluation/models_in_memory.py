"""Models of `transformers` that a Python program has loaded itself, as `evaluate` takes them."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from stochastok_cli.errors import UserError
from stochastok_cli.models.huggingface import HuggingFaceModel
from stochastok_cli.models.huggingface_spec import HUGGINGFACE
from stochastok_cli.models.model_sources import ModelSource

if TYPE_CHECKING:
    from stochastok_cli.models.base import CausalLM


@contextmanager
def in_memory(model: Any, tokenizer: Any) -> Iterator[tuple[ModelSource, "CausalLM"]]:
    """A model with a folder of its configuration and its tokenizer's files, which is there as long as the context.

    The model stays on its device and in its dtype. Dropout is off in the context, and afterwards the model is in the
    mode in which it was.

    Args:
        model: A causal language model of `transformers`.
        tokenizer: Its tokenizer, an object of `transformers`.

    Raises:
        UserError: There is no tokenizer, or the model can't be evaluated.
    """
    if not (hasattr(model, "get_output_embeddings") and hasattr(model, "config")):
        raise UserError(
            f"an object of type {type(model).__name__} can't be evaluated",
            fix="give a path, a name, or a causal language model of transformers",
        )
    if not hasattr(tokenizer, "save_pretrained"):
        raise UserError("a loaded model needs its tokenizer: evaluate(model, tasks, tokenizer=tokenizer)")
    was_training = model.training
    with TemporaryDirectory() as name:
        folder = Path(name)
        tokenizer.save_pretrained(folder)
        model.config.save_pretrained(folder)
        if getattr(model, "generation_config", None) is not None:
            model.generation_config.save_pretrained(folder)
        window = HUGGINGFACE.read_config(folder).context_window
        source = ModelSource(model.config.name_or_path or type(model).__name__, folder, False, HUGGINGFACE, window)
        try:
            yield source, _wrapped(model.eval(), source)
        finally:
            model.train(was_training)


def _wrapped(model: Any, source: ModelSource) -> HuggingFaceModel:
    try:
        return HuggingFaceModel(model, source.context_window)
    except ValueError as error:
        raise UserError(f"{source.name} can't be evaluated: {error}") from None
