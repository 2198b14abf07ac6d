"""What `stochastok doctor` finds out about this machine.

Each part is found out on its own, and one that fails is reported.
"""

import importlib
import importlib.metadata
import os
import platform
import re
import shutil
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import stochastok_cli
from stochastok_cli.errors import first_line

if TYPE_CHECKING:
    from packaging.requirements import Requirement

DEVELOPMENT = {"test", "integrations", "docs"}
"""Extras of those who change this package."""
IMPORTED = ("numpy", "torch", "numba", "tiktoken", "tokenizers", "gigatoken", "datasets", "safetensors", "regex")
"""Packages with compiled code, which may be installed and still not load."""
IMPORTED_EXTRAS = {"matplotlib": "report", "transformers": "hf"}
"""Packages that `eval` and `generate` import, each with its extra; importing those of all extras takes long."""
LEAST_FREE = 2**30  # bytes
_CACHE_VARIABLES = {
    "hub": "HF_HOME or HF_HUB_CACHE",
    "datasets": "HF_HOME or HF_DATASETS_CACHE",
    "tiktoken": "TIKTOKEN_CACHE_DIR",
    "numba": "NUMBA_CACHE_DIR",
}


class Diagnosis:
    """What is found out, and what is wrong.

    Attributes:
        sections: By name, entries by name; the object that `--json` prints.
        problems: What the core needs and is broken, with what to do.
        notes: What may surprise and breaks nothing.
        unimportable: The packages that can't be imported, each of which is one of the problems.
    """

    def __init__(self) -> None:
        self.sections: dict[str, dict[str, Any]] = {}
        self.problems: list[str] = []
        self.notes: list[str] = []
        self.unimportable: list[str] = []

    @contextmanager
    def attempt(self, problem: str, fix: str) -> Iterator[None]:
        """Adds an exception of what is done inside to the problems; not one of a package that is named there."""
        try:
            yield
        except Exception as error:
            if not (isinstance(error, ImportError) and self.unimportable):
                self.problems.append(f"{problem} ({type(error).__name__}: {first_line(error)}); {fix}")

    def to_json(self) -> dict[str, Any]:
        """The object that `stochastok doctor --json` prints."""
        return {"schema": 1, **self.sections, "notes": self.notes, "problems": self.problems}


def diagnose(data_dir: Path, checkpoint_dir: Path, timeout: float) -> Diagnosis:
    """Everything about this machine that decides whether and how this program runs.

    Args:
        data_dir: The folder of all data.
        checkpoint_dir: The folder of all runs.
        timeout: Of the request to the Hub, in seconds.
    """
    diagnosis = Diagnosis()
    folders = {"data": data_dir, "checkpoint": checkpoint_dir}
    for add, problem, fix in (
        (_add_system, "this system can't be described", "report it"),
        (_add_packages, "what this package requires can't be read", "install it again"),
        (_add_imports, "packages can't be imported", "install them again"),
        (
            _add_devices,
            "PyTorch can't use its devices",
            "check the driver, or hide the GPUs with CUDA_VISIBLE_DEVICES=",
        ),
        (_add_expansion, "a text can't be expanded", "install the package again"),
        (partial(_add_hub, timeout=timeout), "huggingface_hub does not work", "install it again"),
        (_add_caches, "the caches can't be looked for", "check the variables that name their folders"),
        (
            partial(_add_disk, folders=folders),
            "the folders can't be looked at",
            "check --data-dir and --checkpoint-dir",
        ),
    ):
        with diagnosis.attempt(problem, fix):
            add(diagnosis)
    return diagnosis


def _add_system(diagnosis: Diagnosis) -> None:
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    diagnosis.sections["system"] = {
        "stochastok": stochastok_cli.__version__,
        "installed_at": str(Path(stochastok_cli.__file__).parent),
        "python": platform.python_version(),
        "executable": sys.executable,
        "platform": platform.platform(),
        "processors": cpus,
        "omp_num_threads": os.environ.get("OMP_NUM_THREADS"),
    }


def requirements() -> "dict[str, list[Requirement]]":
    """What this package requires, "" being the core and the others extras: those of the sources or of what is
    installed."""
    from packaging.requirements import Requirement

    source = Path(stochastok_cli.__file__).parents[1] / "pyproject.toml"
    project = tomllib.loads(source.read_text(encoding="utf-8"))["project"] if source.is_file() else {}
    if project.get("name") == "stochastok":
        lists = {"": project["dependencies"], **project["optional-dependencies"]}
        return {extra: [Requirement(text) for text in texts] for extra, texts in lists.items()}
    by_extra: dict[str, list[Requirement]] = {"": []}
    for text in importlib.metadata.requires("stochastok") or []:
        requirement = Requirement(text)
        match = re.search(r"""extra == ['"]([^'"]+)['"]""", str(requirement.marker or ""))
        by_extra.setdefault(match[1] if match else "", []).append(requirement)
    return by_extra


def _add_packages(diagnosis: Diagnosis) -> None:
    packages: dict[str, str | None] = {}
    extras: dict[str, dict[str, str | None]] = {}
    diagnosis.sections["packages"], diagnosis.sections["extras"] = packages, extras
    for extra, entries in requirements().items():
        for entry in entries:
            if extra in DEVELOPMENT or (entry.marker and not entry.marker.evaluate({"extra": extra})):
                continue
            version = _version(entry.name)
            fits = version is not None and entry.specifier.contains(version, prereleases=True)
            if extra:
                extras.setdefault(extra, {})[entry.name] = version
                if version is not None and not fits:
                    diagnosis.notes.append(
                        f"extra {extra}: {entry.name} {version} is installed, and {entry} is needed; "
                        f"pip install 'stochastok[{extra}]'"
                    )
                continue
            packages[entry.name] = version
            if not fits:
                state = "is not installed" if version is None else f"{version} is installed"
                diagnosis.problems.append(f"{entry.name} {state}, and {entry} is needed; pip install '{entry}'")


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _add_imports(diagnosis: Diagnosis) -> None:
    unimportable = []
    for name in IMPORTED:
        unimportable.append(name)
        with diagnosis.attempt(f"{name} can't be imported", f"pip install --force-reinstall {name}"):
            importlib.import_module(name)
            unimportable.pop()
    diagnosis.unimportable = unimportable
    for name, extra in IMPORTED_EXTRAS.items():
        if diagnosis.sections["extras"].get(extra, {}).get(name) is not None:
            try:
                importlib.import_module(name)
            except Exception as error:
                reason = f"{type(error).__name__}: {first_line(error)}"
                fix = f"pip install --force-reinstall {name}"
                diagnosis.problems.append(f"extra {extra}: {name} can't be imported ({reason}); {fix}")


def _add_devices(diagnosis: Diagnosis) -> None:
    section = diagnosis.sections["devices"] = {}
    if "torch" in diagnosis.unimportable:
        return
    import torch

    from stochastok_cli.models.llama.fused.support import unsupported_device

    section["torch_cuda"] = torch.version.cuda
    available = torch.cuda.is_available()
    section["gpus"] = [_gpu(i) for i in range(torch.cuda.device_count())] if available else []
    device = torch.device("cuda" if available else "cpu")
    reason = unsupported_device(device)
    section["device"] = device.type
    section["kernels"] = "fused" if reason is None else "reference"
    section["why"] = (
        f"not fused: {reason}" if reason else "this GPU runs the fused kernels, for models of the sizes that they take"
    )
    if not available and torch.version.cuda is None and shutil.which("nvidia-smi"):
        diagnosis.notes.append("there is a driver for NVIDIA GPUs, and the installed PyTorch is one for CPUs")


def _gpu(index: int) -> dict[str, Any]:
    import torch

    properties = torch.cuda.get_device_properties(index)
    try:
        free: int | None = torch.cuda.mem_get_info(index)[0]
    except RuntimeError:  # a card that another process holds for itself alone
        free = None
    capability = f"{properties.major}.{properties.minor}"
    return {
        "name": properties.name,
        "capability": capability,
        "memory_bytes": properties.total_memory,
        "free_bytes": free,
    }


def _add_expansion(diagnosis: Diagnosis) -> None:
    """Tokenizes and expands a text, for which kernels are compiled or taken from a cache."""
    section = diagnosis.sections["expansion"] = {"works": False}
    from stochastok_cli.tokenization.expansion import StochasTok
    from stochastok_cli.tokenization.loaders import load_vocabulary

    vocabulary = load_vocabulary("sample2k")
    ids = vocabulary.encode("An example sentence")
    start = time.perf_counter()
    expanded = StochasTok(vocabulary, p=1.0)(ids)
    section["seconds"] = round(time.perf_counter() - start, 2)
    section["works"] = vocabulary.decode(expanded) == "An example sentence"
    if not section["works"]:
        diagnosis.problems.append("an expanded text is another text; report it")


def _add_hub(diagnosis: Diagnosis, timeout: float) -> None:
    from stochastok_cli.hub.status import hub_status

    status = hub_status(timeout)
    diagnosis.sections["hub"] = {
        "endpoint": status.endpoint,
        "offline": status.offline,
        "reachable": status.reachable,
        "token": status.token,
        "user": status.user,
    }
    if status.problem:
        diagnosis.notes.append(f"{status.problem}; what is on this disk can be used without it")


def _add_caches(diagnosis: Diagnosis) -> None:
    """Where libraries keep what they download and compile."""
    home = Path(os.environ.get("HF_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "huggingface")
    tiktoken = os.environ.get("TIKTOKEN_CACHE_DIR") or os.environ.get("DATA_GYM_CACHE_DIR")
    package = Path(stochastok_cli.__file__).parent
    compiled = package if os.access(package, os.W_OK) else Path("~/.cache/numba")
    folders = {
        "hub": os.environ.get("HF_HUB_CACHE") or home / "hub",
        "datasets": os.environ.get("HF_DATASETS_CACHE") or home / "datasets",
        "tiktoken": tiktoken or Path(tempfile.gettempdir(), "data-gym-cache"),
        "numba": os.environ.get("NUMBA_CACHE_DIR") or compiled,  # numba's own rule
    }
    diagnosis.sections["caches"] = {name: _folder(Path(path).expanduser()) for name, path in folders.items()}
    for name, entry in diagnosis.sections["caches"].items():
        if problem := _problem_of(entry):
            diagnosis.notes.append(f"the cache of {name}: {problem}; set {_CACHE_VARIABLES[name]}")


def _add_disk(diagnosis: Diagnosis, folders: dict[str, Path]) -> None:
    section = diagnosis.sections["folders"] = {}
    for name, path in folders.items():
        entry = section[name] = _folder(path)
        if problem := _problem_of(entry):
            diagnosis.notes.append(f"{problem}; give another --{name}-dir")
        elif entry["free_bytes"] is not None and entry["free_bytes"] < LEAST_FREE:
            diagnosis.notes.append(f"{entry['path']} has {entry['free_bytes'] / 2**20:,.0f} MiB of free space")


def _problem_of(folder: dict[str, Any]) -> str:
    """What is wrong with an entry of `_folder`, or ""."""
    if folder["writable"]:
        return ""
    if not folder["exists"]:
        return f"{folder['path']} can't be made"
    return f"{folder['path']} can't be written" if folder["is_folder"] else f"{folder['path']} is no folder"


def _folder(path: Path) -> dict[str, Any]:
    """A folder that may not exist yet: the nearest one above it decides whether and how much can be written."""
    path = path.absolute()
    nearest = path
    while not os.path.lexists(nearest) and nearest != nearest.parent:
        nearest = nearest.parent
    try:
        free: int | None = shutil.disk_usage(nearest).free
    except OSError:
        free = None
    return {
        "path": str(path),
        "exists": os.path.lexists(path),
        "is_folder": os.path.isdir(path),
        "writable": os.path.isdir(nearest) and _takes_a_folder(nearest),
        "free_bytes": free,
    }


def _takes_a_folder(folder: Path) -> bool:
    """Whether a folder can be made in one that exists. It is tried, since some file systems, such as /proc, refuse
    what their permissions allow; nothing is left there."""
    if not os.access(folder, os.W_OK | os.X_OK):
        return False
    try:
        os.rmdir(tempfile.mkdtemp(prefix=".stochastok-doctor-", dir=folder))
    except OSError:
        return False
    return True
