"""A set of questions in its two forms: to evaluate on (text and options), and to train on (rows of ids)."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stochastok_cli.artifacts import Artifact, Manifest, SourceInfo, create_artifact
from stochastok_cli.data.arrow_datasets import write_dataset
from stochastok_cli.data.memmap import corpus_manifest, dataset_dir, memmap_dir
from stochastok_cli.data.sft_dataset import Examples, write_rows
from stochastok_cli.progress import ProgressCallback
from stochastok_cli.tokenization.vocabulary import Vocabulary

if TYPE_CHECKING:
    import pyarrow


def make_question_folders(
    name: str,
    data_dir: Path,
    options: dict[str, Any],
    sizes: dict[str, int],
    columns: "Callable[[str, int], pyarrow.Table]",
    encode: Callable[[str, int], list[Examples]],
    vocabulary: Vocabulary,
    made_from: SourceInfo,
    *,
    force: bool,
    progress: ProgressCallback,
) -> Artifact:
    """Makes `data_as_datasets/<name>` and then `data_as_memmaps/<name>`, which it returns.

    `columns(split, count)` gives the first questions of a split as a table, `encode(split, count)` as ids; `sizes`
    are those of the training form. For evaluation as many training questions are kept as there are in val.
    """

    def build_dataset(folder: Path) -> Manifest:
        kept = {split: min(size, sizes["val"]) for split, size in sizes.items()}
        splits = write_dataset(folder, {split: columns(split, size) for split, size in kept.items()})
        return Manifest(kind="dataset", splits=splits, made_from=made_from)

    def build_rows(folder: Path) -> Manifest:
        splits = write_rows(folder, {split: encode(split, size) for split, size in sizes.items()}, vocabulary, progress)
        return corpus_manifest(name, vocabulary, splits, made_from)

    create_artifact(dataset_dir(data_dir) / name, options, build_dataset, force=force)
    options = {**options, "tokenizer": vocabulary.fingerprint}
    return create_artifact(memmap_dir(data_dir) / name, options, build_rows, force=force)
