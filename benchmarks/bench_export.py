"""Speed of `export` against a loop over the documents that calls the format's own writer, both sides interleaved.

Usage: python benchmarks/bench_export.py [MILLIONS_OF_TOKENS]     (20; documents of 1 to 1,000 tokens)
A format whose package is not installed is left out. The sizes of both sides' files are compared.
"""

import contextlib
import importlib.util
import logging
import sys
import tempfile
import time
import types
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from stochastok_cli import load_vocabulary
from stochastok_cli.artifacts import create_artifact
from stochastok_cli.data.export import export
from stochastok_cli.manifest import Manifest, SplitInfo, TokenizerInfo

END = 50_256
Documents = Iterable[np.ndarray]


def megatron(folder: Path, documents: Documents) -> None:
    import torch
    from megatron.core.datasets.indexed_dataset import IndexedDatasetBuilder

    builder = IndexedDatasetBuilder(str(folder / "train.bin"), dtype=np.uint16)
    for ids in documents:
        builder.add_document(torch.from_numpy(ids), [len(ids)])
    builder.finalize(str(folder / "train.idx"))


def mds(folder: Path, documents: Documents) -> None:
    from streaming.base import MDSWriter

    with MDSWriter(columns={"tokens": "ndarray:uint16"}, out=str(folder / "train")) as writer:
        for ids in documents:
            writer.write({"tokens": ids})


def datatrove(folder: Path, documents: Documents) -> None:
    from datatrove.pipeline.tokens.tokenizer import TokenizedFile

    file = TokenizedFile(
        str(folder / "train"), "00000_train.ds", tokenizer_name_or_path="gpt2", save_final_metadata=True
    )
    for ids in documents:
        file.write(ids.tolist(), None)
    file.close()


def litdata(folder: Path, documents: Documents) -> None:
    import torch
    from litdata.streaming.item_loader import TokensLoader
    from litdata.streaming.writer import BinaryWriter

    writer = BinaryWriter(str(folder / "train"), chunk_bytes=2**26, item_loader=TokensLoader())
    for i, ids in enumerate(documents):
        writer[i] = torch.from_numpy(ids)
    writer.done()
    writer.merge(1)


def arrow(folder: Path, documents: Documents) -> None:
    import datasets

    datasets.disable_progress_bars()
    features = datasets.Features({"input_ids": [datasets.Value("int32")]})
    rows = datasets.Dataset.from_generator(
        lambda: ({"input_ids": ids} for ids in documents), features=features, cache_dir=str(folder / "cache")
    )
    datasets.DatasetDict({"train": rows}).save_to_disk(folder)


LOOPS: dict[str, tuple[Callable[[Path, Documents], None], str]] = {
    "megatron": (megatron, "megatron.core"),
    "mds": (mds, "streaming"),
    "datatrove": (datatrove, "datatrove"),
    "litdata": (litdata, "litdata"),
    "arrow": (arrow, "datasets"),
}


def import_streaming_base() -> None:
    """Lets `streaming.base` be imported without the images of `streaming`, which need torchvision."""
    found = importlib.util.find_spec("streaming")
    if found is not None and found.submodule_search_locations is not None:
        module = types.ModuleType("streaming")
        module.__path__ = [*found.submodule_search_locations]
        sys.modules["streaming"] = module


def is_installed(module: str) -> bool:
    with contextlib.suppress(ModuleNotFoundError, ValueError):
        return module in sys.modules or importlib.util.find_spec(module) is not None
    return False


def main() -> None:
    if sys.argv[1:] in (["-h"], ["--help"]):
        sys.exit(__doc__)
    warnings.simplefilter("ignore")
    logging.disable()
    import_streaming_base()
    millions = int(sys.argv[1]) if len(sys.argv) > 1 else 20
    random = np.random.default_rng(0)
    lengths = random.integers(1, 1_001, millions * 2_000)
    ids = random.integers(0, END, lengths.sum(), dtype=np.uint16)
    ids[np.cumsum(lengths) - 1] = END
    documents = np.split(ids, np.cumsum(lengths)[:-1])
    gpt2 = TokenizerInfo.from_json(load_vocabulary("gpt2").describe())

    def build(folder: Path) -> Manifest:
        ids.tofile(folder / "train.bin")
        (folder / "val.bin").touch()
        splits = {"train": SplitInfo(len(lengths), len(ids)), "val": SplitInfo(0, 0)}
        return Manifest(kind="tokenized", tokenizer=gpt2, dtype="uint16", end_of_text=END, splits=splits)

    print(f"{len(lengths):,} documents, {len(ids) / 1e6:.0f} M tokens; the best of three, both sides interleaved")
    with tempfile.TemporaryDirectory() as work:
        create_artifact(Path(work, "data_as_memmaps", "corpus"), {}, build)
        for name, (loop, module) in LOOPS.items():
            if not is_installed(module):
                print(f"{name}: {module} is not installed")
                continue
            best = {"export": float("inf"), "loop": float("inf")}
            for _ in range(4):  # the first, with all imports, is the slowest
                start = time.perf_counter()
                made = export("corpus", format=name, data_dir=work, split="train", force=True)
                best["export"] = min(best["export"], time.perf_counter() - start)
                with tempfile.TemporaryDirectory(dir=work) as folder:
                    start = time.perf_counter()
                    loop(Path(folder), documents)
                    best["loop"] = min(best["loop"], time.perf_counter() - start)
                    total = sum(
                        path.stat().st_size
                        for path in Path(folder).rglob("*")
                        if path.is_file() and "cache" not in path.parts
                    )
            total_export = sum(info.bytes for info in made.manifest.files.values())
            speed = len(ids) / best["export"] / 1e6
            print(
                f"{name}: export {best['export']:.2f} s ({speed:.0f} M tokens/s), loop {best['loop']:.2f} s: "
                f"{best['loop'] / best['export']:.1f} x; {total_export:,} and {total:,} bytes"
            )


if __name__ == "__main__":
    main()
