"""Reading the files of a model folder: `config.json` and safetensors, one file or several. Nothing is unpickled."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import SafetensorError, safe_open

from stochastok_cli import json_files
from stochastok_cli.errors import FAILED, UserError, first_line
from stochastok_cli.paths import path_inside

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
COPY_AGAIN = "copy or download it again"
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")


class StoredTensor(NamedTuple):
    """Where a tensor is stored.

    Attributes:
        file: The safetensors file.
        name: Its name in the file, which may have the prefix of a wrapper.
    """

    file: Path
    name: str


@dataclass(frozen=True)
class _Index:
    """The content of `model.safetensors.index.json`."""

    weight_map: dict[str, str]


def find_tensors(folder: Path) -> dict[str, StoredTensor]:
    """Where each tensor of a model folder is stored, by its name without the prefixes of wrappers.

    The tensors are in `model.safetensors`, or else in the files that `model.safetensors.index.json` lists.

    Raises:
        UserError: There are no such files, or only pickles, or a file is damaged.
    """
    single, index = folder / WEIGHTS, folder / INDEX
    if single.is_file():
        with open_safetensors(single) as stream:
            return {strip_wrappers(name): StoredTensor(single, name) for name in stream.keys()}  # noqa: SIM118
    if index.is_file():
        weight_map = json_files.read_json(index, _Index, fix=COPY_AGAIN).weight_map
        return {
            strip_wrappers(name): StoredTensor(path_inside(folder, file), name) for name, file in weight_map.items()
        }
    pickles = sorted(file.name for pattern in _PICKLES for file in folder.glob(pattern))
    if pickles:
        raise UserError(
            f"{folder} holds its weights in {pickles[0]}, a pickle, which can run any code when it is opened",
            fix=f"convert it to {WEIGHTS} (transformers' save_pretrained writes that)",
        )
    raise UserError(f"{single} is missing", fix=COPY_AGAIN, exit_code=FAILED)


def strip_wrappers(name: str) -> str:
    """A tensor's name without what `torch.compile` and DistributedDataParallel add to it."""
    return name.removeprefix("module.").replace("_orig_mod.", "").removeprefix("module.")


def read_json(file: Path) -> dict[str, Any]:
    """The JSON object in a file. Raises UserError if the file is missing, can't be read, or holds no such thing."""
    try:
        return json_files.read_json(file, dict[str, Any], fix=COPY_AGAIN)
    except FileNotFoundError:
        raise UserError(f"{file} is missing", fix="name the folder of a model, as transformers writes it") from None
    except OSError as error:
        raise UserError(f"{file} can't be read: {error.strerror}", exit_code=FAILED) from None


@contextmanager
def open_safetensors(file: Path) -> Iterator[Any]:
    """Opens a safetensors file. Errors in it, also those found while tensors are read, are raised as UserError."""
    try:
        try:
            opened = safe_open(file, framework="pt")
        except FileNotFoundError:
            raise UserError(f"{file} is missing", fix=COPY_AGAIN, exit_code=FAILED) from None
        except OSError as error:
            raise UserError(f"{file} can't be read: {error.strerror or error}", exit_code=FAILED) from None
        with opened as stream:
            yield stream
    except SafetensorError as error:
        reason = first_line(error)
        raise UserError(f"{file} is damaged or cut short ({reason})", fix=COPY_AGAIN, exit_code=FAILED) from None
