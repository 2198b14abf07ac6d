"""Pins what the command line gives today, so that a change of the inside can prove that nothing changed outside.

    python tests/pinned_outputs.py                    runs everything and compares with pinned_outputs.json beside it
    python tests/pinned_outputs.py --record FILE      runs everything and writes what it found
    python tests/pinned_outputs.py --only train,eval  only what begins so (and what it needs)

Everything is asked of the command line in a subprocess, so that no name inside the package matters. Files are pinned
by their SHA-256; manifests, configurations, options and exit codes as they are, so that a difference can be read. Left
out is what differs from call to call: times, speeds, memory, the command in a manifest, paths, and the random
fingerprints that `datasets` writes.

`train/` and `eval/` hold floats of one machine: another CPU or another release of PyTorch may round otherwise. There,
record the old code first (PYTHONPATH=<its checkout>) and compare the new one with that (--pins FILE).
"""

import argparse
import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PINS = Path(__file__).with_suffix(".json")
METHODS = ("stochastok", "stochastok-uni", "uniform-k", "uniform", "bpe-dropout")
TOKENIZERS = ("gpt2", "sample2k")
SUBCOMMANDS = ("tokenize", "expand", "make-langgame", "make-addition", "make-cute", "train", "eval")
TEXT = "It is a truth universally acknowledged, that 1234 naïve tokenizations differ. 語 🙂"
VOLATILE = re.compile(r"seconds|per_second|memory|utilization|^time|^made_by$|^listing$|^checkpoint$|^disk")
ENVIRONMENT = {
    "COLUMNS": "120",
    "CUDA_VISIBLE_DEVICES": "",
    "HF_HUB_OFFLINE": "1",
    "MKL_NUM_THREADS": "1",
    "NO_COLOR": "1",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "PYTHONUTF8": "1",
    "TERM": "dumb",
    "TOKENIZERS_PARALLELISM": "false",
}

Pins = dict[str, Any]


class Failed(Exception):
    """A command that must succeed did not."""


@dataclass(frozen=True)
class Step:
    """Something to run once the steps that it needs are done. `run(here)` returns what is pinned; every name begins
    with the step's own."""

    name: str
    run: Callable[["Here"], Pins]
    needs: tuple[str, ...] = ()


# ------------------------------------------------------------------------------------------------ running commands


@dataclass(frozen=True)
class Here:
    """The folder in which all commands run, with relative paths, and the program."""

    folder: Path
    program: tuple[str, ...]

    def call(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        environment = os.environ | ENVIRONMENT | {"HF_HOME": str(self.folder / "hf-home")}
        for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "FORCE_COLOR"):
            environment.pop(name, None)
        return subprocess.run(
            [*self.program, *arguments],
            cwd=self.folder,
            env=environment,
            capture_output=True,
            text=True,
            encoding="utf-8",
            stdin=subprocess.DEVNULL,
        )

    def output(self, *arguments: str) -> str:
        """What a command that succeeds prints on stdout."""
        done = self.call(*arguments)
        if done.returncode != 0:
            raise Failed(f"exit code {done.returncode} of: {' '.join(arguments)}\n{done.stderr[-2000:]}")
        return done.stdout

    def json(self, *arguments: str) -> Any:
        """What it prints as JSON, without what differs from call to call; several lines as a list."""
        lines = [self.steady(json.loads(line)) for line in self.output(*arguments).splitlines()]
        return lines[0] if len(lines) == 1 else lines

    def steady(self, tree: Any) -> Any:
        """A tree of JSON without its volatile entries, and with this folder called <here>."""
        if isinstance(tree, dict):
            return {self.steady(key): self.steady(value) for key, value in tree.items() if not VOLATILE.search(key)}
        if isinstance(tree, list):
            return [self.steady(value) for value in tree]
        return tree.replace(str(self.folder), "<here>") if isinstance(tree, str) else tree


# ------------------------------------------------------------------------------------------------ what is pinned


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def digest_json(tree: Any) -> str:
    return digest(json.dumps(tree, sort_keys=True, ensure_ascii=False).encode())


def files_of(name: str, here: Here, folder: str) -> Pins:
    """Every file of a folder that a maker made, the manifest readable."""
    found: Pins = {}
    below = here.folder / folder
    for file in sorted(below.rglob("*")):
        if file.is_file():
            relative = file.relative_to(below).as_posix()
            if file.name == "manifest.json":
                found[f"{name}/{relative}"] = here.steady(json.loads(file.read_text(encoding="utf-8")))
            else:
                found[f"{name}/{relative}"] = digest(file.read_bytes())
    return found or {name: "nothing there"}


def rows_of(name: str, here: Here, folder: str) -> Pins:
    """A saved `datasets.DatasetDict`: columns and rows of each split, whatever the bytes that hold them."""
    import pyarrow

    found: Pins = {}
    below = here.folder / folder
    for split in json.loads((below / "dataset_dict.json").read_text(encoding="utf-8"))["splits"]:
        rows: list[dict[str, Any]] = []
        columns: dict[str, str] = {}
        state = json.loads((below / split / "state.json").read_text(encoding="utf-8"))
        for entry in state["_data_files"]:
            table = pyarrow.ipc.open_stream(below / split / entry["filename"]).read_all()
            columns = {field.name: str(field.type) for field in table.schema}
            rows += table.to_pylist()
        found[f"{name}/{split}/columns"] = columns
        found[f"{name}/{split}/rows"] = {"count": len(rows), "sha256": digest_json(rows)}
        info = json.loads((below / split / "dataset_info.json").read_text(encoding="utf-8"))
        found[f"{name}/{split}/features"] = info["features"]
    if (below / "manifest.json").is_file():
        manifest = here.steady(json.loads((below / "manifest.json").read_text(encoding="utf-8")))
        manifest["files"] = {  # two files of `datasets` hold a random fingerprint
            file: entry for file, entry in manifest["files"].items() if not file.endswith("state.json")
        }
        found[f"{name}/manifest.json"] = manifest
    return found


def run_of(name: str, here: Here, folder: str) -> Pins:
    """A run: the files of each checkpoint, its training state, the metrics and the configuration."""
    import yaml

    found: Pins = {}
    below = here.folder / folder
    found[f"{name}/files"] = sorted(file.name for file in below.iterdir() if not file.name.startswith("."))
    records = [json.loads(line) for line in (below / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    found[f"{name}/metrics.jsonl"] = digest_json([here.steady(record) for record in records])
    found[f"{name}/metrics.jsonl/names"] = sorted({key for record in records for key in record})
    config = yaml.safe_load((below / "config.yaml").read_text(encoding="utf-8"))
    found[f"{name}/config.yaml"] = config
    for step in sorted(below.glob("step_*")):
        for file in sorted(step.iterdir()):
            what = f"{name}/{step.name}/{file.name}"
            if file.name == "training_state.json":
                state = json.loads(file.read_text(encoding="utf-8"))
                found[f"{what}/files"] = sorted(state.pop("files"))
                found[f"{what}/config"] = state.pop("config") == config
                found[what] = here.steady(state)
            else:
                found[what] = digest(file.read_bytes())
    return found


# ------------------------------------------------------------------------------------------------ inputs


def write_inputs(folder: Path) -> None:
    """Small local files for the commands to read."""
    texts = [
        "The quick brown fox jumps over the lazy dog.",
        "  Two spaces, a tab\tand a new line\nin one text;   three spaces.  ",
        "",
        "naïve café, Straße, Ελληνικά, русский, 日本語のテキスト, 🙂🙃 and e\u0301.",
        "Numbers: 7, 42, 123456789 and 3.14159; dates: 2024-02-29.",
        "def f(x):\n    return {'a': [1, 2, 3], \"b\": x ** 2}\n",
        "<|endoftext|> is text here, and so is <s>.",
        "don't can't we'll I'M IT'S they've",
        "supercalifragilisticexpialidocious antidisestablishmentarianism",
        "\u00a0no-break\u2003em space\u200bzero width\r\nline",
        *(f"Document {i} says {'again and ' * (i % 5)}that {i * 7919 % 1000} is a number." for i in range(110)),
    ]
    lines = [json.dumps({"id": i, "body": text}, ensure_ascii=i % 2 == 0) for i, text in enumerate(texts)]
    (folder / "docs.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    paragraphs = [f"Paragraph {i}:\nof two lines, {'word ' * (i % 7)}end." for i in range(40)]
    (folder / "notes.txt").write_text("\n\n".join(paragraphs) + "\n", encoding="utf-8")
    words = ["a", "be", "cat", "dogs", "elder", "banana", "letters", "absolute", "wonderful", "in", "so", "mississippi"]
    words += [
        "tree",
        "moon",
        "river",
        "window",
        "stone",
        "ox",
        "no",
        "up",
        "green",
        "assessment",
        "committee",
        "effort",
    ]
    (folder / "words.txt").write_text("\n".join(words) + "\n", encoding="utf-8")

    def jsonl(name: str, rows: Iterable[dict[str, Any]]) -> None:
        (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")

    things = ["stone", "river", "window", "green tree", "moon", "letter"]
    others = [[things[(i + k) % 6] for k in range(4)] for i in range(6)]
    jsonl(
        "arc.jsonl",
        (
            {
                "question": f"Which of these is called number {i}?",
                "choices": {"text": four, "label": ["A", "B", "C", "D"] if i % 2 else ["1", "2", "3", "4"]},
                "answerKey": "ABCD"[i % 4] if i % 2 else "1234"[i % 4],
            }
            for i, four in enumerate(others)
        ),
    )
    jsonl(
        "hellaswag.jsonl",
        (
            {"ctx": f"She went to the {four[0]} and ", "endings": [f"saw the {x}." for x in four], "label": str(i % 4)}
            for i, four in enumerate(others)
        ),
    )
    jsonl(
        "mmlu.jsonl",
        ({"question": f"What is {i} plus one?", "choices": four, "answer": i % 4} for i, four in enumerate(others)),
    )
    jsonl(
        "winograd.jsonl",
        (
            {
                "sentence": f"The {a} did not fit into the {b}, because _ was too large.",
                "option1": f"the {a}",
                "option2": f"the {b}",
                "answer": str(1 + i % 2),
            }
            for i, (a, b, *_) in enumerate(others)
        ),
    )
    jsonl(
        "blimp.jsonl",
        ({"sentence_good": f"The {four[0]} falls.", "sentence_bad": f"The {four[0]} fall."} for four in others),
    )
    cute = {
        "spell": [("there", "t h e r e"), ("page", "p a g e"), ("letters", "l e t t e r s")],
        "spell_inverse": [("t h e r e", "there"), ("p a g e", "page"), ("m o o n", "moon")],
        "contains_char": [("c", "there", "No"), ("e", "there", "Yes"), ("q", "moon", "No")],
        "orth": [("happy", "glad", "apply", "apply"), ("site", "sit", "web", "sit"), ("have", "been", "ave", "ave")],
        "ins_char": [("b", "e", "there", "thebreb"), ("m", "h", "the", "thme"), ("z", "l", "all", "alzlz")],
        "del_char": [("e", "there", "thr"), ("a", "have", "hve"), ("o", "moon", "mn")],
        "sub_char": [("e", "a", "there", "thara"), ("n", "d", "and", "add"), ("l", "p", "all", "app")],
        "swap_char": [("t", "r", "there", "rhete"), ("o", "n", "one", "noe"), ("a", "w", "what", "ahwt")],
    }
    (folder / "cute").mkdir()
    for task, rows in cute.items():
        head = [*(f"input{i + 1}" for i in range(len(rows[0]) - 1)), "label"]
        lines = ["\t".join(row) for row in (head, *rows)]
        (folder / "cute" / f"{task}.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    jsonl("spell.jsonl", ({"input1": word, "label": spelled} for word, spelled in cute["spell"]))


# ------------------------------------------------------------------------------------------------ data


def maker(name: str, arguments: Iterable[str], folders: dict[str, str], needs: Iterable[str] = ()) -> Step:
    """A command that makes folders; its stdout is pinned, too. `folders` has the names under which they are pinned.
    One made of rows is told by its place, data_as_datasets."""

    def run(here: Here) -> Pins:
        found: Pins = {f"{name}/stdout": here.output(*arguments)}
        for what, folder in folders.items():
            look = rows_of if "data_as_datasets" in folder else files_of
            found |= look(f"{name}/{what}" if what else name, here, folder)
        return found

    return Step(name, run, tuple(needs))


def printed(name: str, arguments: Iterable[str], needs: Iterable[str] = (), *, whole: bool = False) -> Step:
    """A command of which the JSON is pinned, as its hash or `whole`."""

    def run(here: Here) -> Pins:
        tree = here.json(*arguments)
        return {name: tree if whole else digest_json(tree)}

    return Step(name, run, tuple(needs))


def data_steps() -> list[Step]:
    steps: list[Step] = []
    for tokenizer in TOKENIZERS:
        data, at = f"data-{tokenizer}", ("--data-dir", f"data-{tokenizer}")
        memmaps, datasets = f"{data}/data_as_memmaps", f"{data}/data_as_datasets"
        cut = ("--tokenizer", tokenizer, *at)
        sources = {
            "sample": ("sample", "--val-fraction", "0.05"),
            "docs": ("docs.jsonl", "--text-column", "body", "--val-fraction", "0.1"),
            "notes": ("notes.txt", "--name", "jotted", "--seed", "1", "--num-proc", "2"),
        }
        folders = {"sample": "sample-tokenized", "docs": "docs-tokenized", "notes": "jotted-tokenized"}
        for source, arguments in sources.items():
            name = f"tokenize/{tokenizer}/{source}"
            steps.append(maker(name, ("tokenize", *arguments, *cut), {"": f"{memmaps}/{folders[source]}"}))

        ways = [("sample", method, "0.1", ()) for method in METHODS]
        much = ("stochastok", "uniform-k", "uniform") if tokenizer == "gpt2" else ("stochastok",)
        ways += [("sample", method, "1.0", ()) for method in much]
        ways += [("docs", method, "0.5", ("--num-proc", "2")) for method in METHODS]
        for source, method, p, more in ways:
            name = f"expand/{tokenizer}/{source}/{method}{p}"
            made = f"{memmaps}/{source}-tokenized-{method}{p}"
            arguments = ("expand", f"{source}-tokenized", "-p", p, "--method", method, *more, *at)
            steps.append(maker(name, arguments, {"": made}, [f"tokenize/{tokenizer}/{source}"]))
        arguments = ("expand", "docs-tokenized", "-p", "1.5", "--seed", "7", "--max-splits", "5", "--keep", "[0-9]")
        arguments += ("--out-name", "kept", *at)
        needs = [f"tokenize/{tokenizer}/docs"]
        steps.append(maker(f"expand/{tokenizer}/docs/kept", arguments, {"": f"{memmaps}/kept"}, needs))
        arguments = ("expand", "--text", TEXT, "--samples", "6", "-p", "0.5", "--method", "all", "--json")
        steps.append(printed(f"expand/{tokenizer}/text", (*arguments, "--tokenizer", tokenizer)))
        needs = [f"tokenize/{tokenizer}/sample"]
        report = ("expand", "sample-tokenized", "--report", "--method", "all", "--json", *at)
        steps.append(printed(f"expand/{tokenizer}/report", report, needs))
        needs = [f"tokenize/{tokenizer}/docs"]
        report = ("expand", "docs-tokenized", "--report", "--match-growth", "1.2", "--json", *at)
        steps.append(printed(f"expand/{tokenizer}/report-growth", report, needs))

        langgame = ("make-langgame", "--train-size", "2000", "--val-size", "100", *cut)
        both = {"memmap": f"{memmaps}/langgame", "dataset": f"{datasets}/langgame"}
        steps.append(maker(f"langgame/{tokenizer}/plain", langgame, both))
        forms = ("base", "stochastok", "character", "bpe_dropout")
        made = {form: f"{memmaps}/multi_digit_addition_{form}" for form in forms}
        made["dataset"] = f"{datasets}/multi_digit_addition"
        steps.append(maker(f"addition/{tokenizer}", ("make-addition", "--num-digits", "2", *cut), made))
        cute = ("make-cute", "--train-size", "1000", "--val-size", "80", *cut)
        made = {"memmap": f"{memmaps}/cute", "dataset": f"{datasets}/cute"}
        steps.append(maker(f"cute/{tokenizer}/plain", cute, made))

    langgames = {
        "gpt2/short": ("--holdout", "short", "--max-substring", "9"),
        "sample2k/long": ("--holdout", "long", "--max-substring", "9", "--seed", "3"),
        "sample2k/disjoint": ("--disjoint",),
        "gpt2/words": ("--words", "words.txt", "--num-options", "2", "--min-substring", "2"),
    }
    for name, arguments in langgames.items():
        tokenizer, _, kind = name.partition("/")
        data = f"data-langgame-{kind}"
        both = {"memmap": f"{data}/data_as_memmaps/langgame", "dataset": f"{data}/data_as_datasets/langgame"}
        sizes = ("--train-size", "500", "--val-size", "50", "--tokenizer", tokenizer, "--data-dir", data)
        steps.append(maker(f"langgame/{name}", ("make-langgame", *arguments, *sizes), both))
    data = "data-cute-disjoint"
    arguments = (
        "make-cute",
        "--train-size",
        "300",
        "--val-size",
        "40",
        "--disjoint",
        "--seed",
        "5",
        "--data-dir",
        data,
    )
    both = {"memmap": f"{data}/data_as_memmaps/cute", "dataset": f"{data}/data_as_datasets/cute"}
    steps.append(maker("cute/gpt2/disjoint", arguments, both))

    again = ("expand", "sample-tokenized", "-p", "0.1", "--data-dir", "data-gpt2", "--json")
    steps.append(printed("again/expand", again, ["expand/gpt2/sample/stochastok0.1"], whole=True))
    again = ("make-addition", "--num-digits", "2", "--data-dir", "data-gpt2", "--json")
    steps.append(printed("again/addition", again, ["addition/gpt2"], whole=True))
    return steps


# ------------------------------------------------------------------------------------------------ runs

TOY = (
    *("model.core_model.num_layers=2", "model.core_model.ffn.ffn_dim=64", "model.core_model.attn.num_heads=4"),
    *("model.core_model.attn.group_size=2", "model.hidden_dim=32", "model.context_window=96"),
    *("trainer.training.batch_size=4", "trainer.training.lr_decay_iters=20", "trainer.training.warmup_iters=4"),
    *("trainer.training.eval_interval=10", "trainer.training.checkpoint_interval=10"),
    *("trainer.training.log_interval=5", "trainer.training.eval_iters=2", "trainer.optimizer.lr=3e-3"),
    *("trainer.dropout_scheduler.dropout=0.1", "general.device=cpu", "general.paths.checkpoint_dir=checkpoints"),
)
INSTRUCTION = ("trainer.dataset.name=langgame", "trainer.dataset.is_instruction=true")


def evaluators(*entries: str) -> str:
    return f"trainer.eval=[{','.join(entries)}]"


def training(
    run: str, config: str, *overrides: str, tokenizer: str = "sample2k", iterations: int = 20, steps: int = 2
) -> tuple[str, ...]:
    """The command that makes a run of a toy model, of `steps` micro-batches an iteration."""
    size = {"sample2k": "model.vocab_size=2048", "gpt2": "model.vocab_size=50257"}[tokenizer]
    counts = (f"trainer.training.max_iters={iterations}", f"trainer.training.gradient_accumulation_steps={steps}")
    where = ("--run-name", run, "--data-dir", f"data-{tokenizer}")
    return ("train", "--config", config, *where, *TOY, size, *counts, *overrides)


def trained(run: str, needs: Iterable[str], *commands: tuple[str, ...]) -> Step:
    """A run, made by one command or by several in turn, of which each goes on where the one before it stopped."""
    name = f"train/{run}"

    def make(here: Here) -> Pins:
        said = [here.output(*command) for command in commands]
        return {f"{name}/stdout": said, **run_of(name, here, f"checkpoints/{run}")}

    return Step(name, make, tuple(needs))


def planned(name: str, command: tuple[str, ...], needs: Iterable[str]) -> Step:
    """`train --plan`: its counts, and the names of all that it says."""

    def run(here: Here) -> Pins:
        plan = json.loads(here.output(*command, "--plan", "--json"))
        counts = {key: value for key, value in here.steady(plan).items() if key not in ("device", "kernels")}
        return {f"{name}/names": sorted(plan), f"{name}/counts": counts}

    return Step(name, run, tuple(needs))


def training_steps() -> list[Step]:
    sample, langgame = "tokenize/sample2k/sample", "langgame/sample2k/plain"
    mcq = "{evaluator:mcq,num_samples:20,benchmarks:[langgame-val]}"
    both = "{evaluator:mcq,num_samples:20,benchmarks:[langgame-train,langgame-val]}"
    bits = "{evaluator:bits_per_byte,num_samples:20,benchmarks:[sample-tokenized]}"
    math = '{evaluator:"math_generation",num_samples:6}'
    corpus = "trainer.dataset.name=sample-tokenized"
    none = evaluators()

    plain = training("plain", "pretraining", corpus, evaluators(mcq, bits))
    halves = [
        training("resumed", "pretraining", corpus, evaluators(mcq, bits), iterations=n, steps=2) for n in (10, 20)
    ]
    instruction = training("instruction", "instruction_tuning", evaluators(both))
    start = "trainer.checkpoint_name=plain"
    from_plain = training("from-plain", "instruction_tuning", evaluators(both), start)
    start = "model.checkpoint_name=checkpoints/plain/step_10"
    from_step = training("from-step", "quickstart", start, *INSTRUCTION, evaluators(mcq), steps=1)
    name = "trainer.dataset.name=multi_digit_addition_stochastok"
    addition = training("addition", "pretraining", name, evaluators(math), tokenizer="gpt2", steps=1)
    steps = [
        trained("plain", [sample, langgame], plain),
        trained("resumed", [sample, langgame], *halves),
        trained("instruction", [langgame], instruction),
        trained("from-plain", ["train/plain"], from_plain),
        trained("from-step", ["train/plain"], from_step),
        trained("addition", ["addition/gpt2"], addition),
    ]
    # bpe-dropout is refused while training on questions
    for method, p in (("stochastok", "0.1"), ("uniform", "0.3"), ("bpe-dropout", "0.1")):
        fly = ("trainer.dataset.expand_prop=" + p, "trainer.dataset.expand_method=" + method)
        run = f"fly-{method}"
        command = training(run, "quickstart", corpus, none, "general.seed=3", *fly, steps=1)
        steps.append(trained(run, [sample], command))
    for method, p in (("stochastok", "0.5"), ("stochastok-uni", "0.5")):
        fly = ("trainer.dataset.expand_prop=" + p, "trainer.dataset.expand_method=" + method)
        run = f"fly-questions-{method}"
        command = training(run, "quickstart", *INSTRUCTION, evaluators(mcq), *fly, steps=1)
        steps.append(trained(run, [langgame], command))

    steps.append(planned("plan/new", training("planned", "pretraining", corpus, evaluators(mcq)), [sample, langgame]))
    again = (*plain, "--json")
    steps.append(printed("again/train", again, ["train/plain"]))
    return steps


# ------------------------------------------------------------------------------------------------ evaluation


def evaluation_steps() -> list[Step]:
    def asked(name: str, checkpoints: Iterable[str], *arguments: str, tokenizer: str = "sample2k", **more: Any) -> Step:
        runs = tuple(checkpoints)
        where = ("--data-dir", f"data-{tokenizer}", "--checkpoint-dir", "checkpoints", "--device", "cpu", "--json")
        needs = [f"train/{run.split('/')[0]}" for run in runs]
        paths = [f"checkpoints/{run}" if "/" in run else run for run in runs]
        return printed(f"eval/{name}", ("eval", *paths, *arguments, *where), [*needs, *more.get("needs", ())])

    def mcq(*benchmarks: str) -> tuple[str, ...]:
        return ("--evaluator", "mcq", "--benchmarks", ",".join(benchmarks))

    one = ["instruction"]
    files = [f"{name}={name}.jsonl" for name in ("arc", "hellaswag", "mmlu", "winograd", "blimp")]
    bits = ("--evaluator", "bits_per_byte", "--num-samples", "12", "--benchmarks")
    small = ("--num-samples", "30", "--batch-tokens", "512")
    hardest = ("--adversarial", "6", "--tokenization")
    cute = ("cute=cute", "cute-spell=spell.jsonl", "cute-val", "cute-train")
    recut = {method: (f"{method}:0.5", "--samples", "2", "--num-samples", "15") for method in ("stochastok", "uniform")}
    return [
        asked("mcq", one, *mcq("langgame-val", "langgame-train"), "--by-kind", "--contamination"),
        asked("mcq-paired", ["instruction/step_10", "instruction"], *mcq("langgame-val"), "--paired", *small),
        asked("mcq-aggregate", ["instruction", "from-plain"], *mcq("langgame-val"), "--aggregate"),
        asked("mcq-stochastok", one, *mcq("langgame-val"), "--tokenization", *recut["stochastok"], "--by-kind"),
        asked("mcq-uniform", one, *mcq("langgame-val", "winograd=winograd.jsonl"), *hardest, *recut["uniform"]),
        asked("files", one, *mcq(*files)),
        asked("files-gpt2", ["addition"], *mcq(*files), tokenizer="gpt2"),
        asked("cute", one, *mcq(*cute), "--by-kind", needs=["cute/sample2k/plain"]),
        asked("math", ["addition"], "--evaluator", "math_generation", "--num-samples", "10", tokenizer="gpt2"),
        asked(
            *("bits", ["plain", "fly-stochastok"], *bits, "sample-tokenized,sample-tokenized-stochastok1.0"),
            needs=["expand/sample2k/sample/stochastok1.0"],
        ),
        asked("bits-marginal", ["plain"], *bits, "sample-tokenized", "--tokenization", "uniform:0.2", "--samples", "3"),
        asked("alignment", ["plain"], "--evaluator", "alignment", "--num-samples", "10", "--samples", "4"),
        asked(
            "alignment-words", ["plain"], "--evaluator", "alignment", "--words", "words.txt", "--prompt", "The river"
        ),
    ]


# ------------------------------------------------------------------------------------------------ options and codes


def help_step(subcommand: str) -> Step:
    """The names of the options, as the help lists them at the beginning of its lines."""

    def run(here: Here) -> Pins:
        names: set[str] = set()
        for line in here.output(*([subcommand] if subcommand else []), "--help").splitlines():
            if begin := re.match(r"[│|\s]*\*?\s*((?:--?[A-Za-z][\w-]*[,\s]+)+)", line):
                names |= set(re.findall(r"--?[A-Za-z][\w-]*", begin[1]))
        return {f"help/{subcommand or 'stochastok'}": sorted(names)}

    return Step(f"help/{subcommand or 'stochastok'}", run)


def code_steps() -> list[Step]:
    def code(name: str, *arguments: str, needs: Iterable[str] = ()) -> Step:
        return Step(f"code/{name}", lambda here: {f"code/{name}": here.call(*arguments).returncode}, tuple(needs))

    quick, gpt2 = ("train", "--config", "quickstart"), ("--data-dir", "data-gpt2")
    where = ("--data-dir", "data-sample2k", "--checkpoint-dir", "checkpoints")
    plain = training("plain", "pretraining", "trainer.dataset.name=sample-tokenized", "general.seed=9")
    return [
        code("version", "--version"),
        code("nothing"),
        code("no-such-command", "tokenise"),
        code("no-such-option", "expand", "--proportion", "0.1"),
        code("unknown-key", *quick, "trainer.training.max_iter=3"),
        code("wrong-type", *quick, "trainer.training.max_iters=many"),
        code("no-such-dataset-to-train-on", *quick, "trainer.dataset.name=nothing", "--data-dir", "nowhere"),
        code("no-such-source", "tokenize", "nothing.jsonl", "--data-dir", "nowhere"),
        code("no-such-tokenizer", "tokenize", "docs.jsonl", "--tokenizer", "nothing", "--data-dir", "nowhere"),
        code("no-such-column", "tokenize", "docs.jsonl", "--data-dir", "nowhere"),
        code("no-such-dataset", "expand", "nothing-tokenized", "--data-dir", "nowhere"),
        code("nothing-to-expand", "expand"),
        code("unknown-method", "expand", "--text", "some text", "--method", "stochastic"),
        code("negative-p", "expand", "--text", "some text", "-p", "-1"),
        code("unknown-holdout", "make-langgame", "--holdout", "middle", "--data-dir", "nowhere"),
        code("made-otherwise", "make-langgame", "--train-size", "9", *gpt2, needs=["langgame/gpt2/plain"]),
        code("made-the-same", "tokenize", "sample", "--val-fraction", "0.05", *gpt2, needs=["tokenize/gpt2/sample"]),
        code("another-run", *plain, needs=["train/plain"]),
        code("no-such-checkpoint", "eval", "nothing", "--evaluator", "mcq", "--benchmarks", "langgame-val", *where),
        code("no-such-evaluator", "eval", "nothing", "--evaluator", "quiz", *where),
        code(
            "no-such-benchmark",
            "eval",
            "plain",
            "--evaluator",
            "mcq",
            "--benchmarks",
            "quiz",
            *where,
            needs=["train/plain"],
        ),
    ]


# ------------------------------------------------------------------------------------------------ all of it


def all_steps() -> list[Step]:
    helps = [help_step(name) for name in ("", *SUBCOMMANDS)]
    return [*data_steps(), *training_steps(), *evaluation_steps(), *helps, *code_steps()]


def chosen(steps: list[Step], prefixes: list[str]) -> list[Step]:
    """The steps that some prefix asks for, and those that they need."""
    by_name = {step.name: step for step in steps}
    wanted: set[str] = set()

    def want(name: str) -> None:
        if name not in wanted:
            wanted.add(name)
            for other in by_name[name].needs:
                want(other)

    for step in steps:
        if any(step.name.startswith(prefix) or prefix.startswith(f"{step.name}/") for prefix in prefixes):
            want(step.name)
    return [step for step in steps if step.name in wanted]


def run_steps(steps: list[Step], here: Here, jobs: int) -> tuple[Pins, list[str]]:
    """Everything that the steps pin, and what went wrong. Those that others wait for longest come first."""
    behind: dict[str, int] = {}
    for step in reversed(steps):  # a step stands after those that it needs
        behind[step.name] = 1 + max((behind.get(s.name, 1) for s in steps if step.name in s.needs), default=0)
    waiting = sorted(steps, key=lambda step: -behind[step.name])
    done: set[str] = set()
    lost: set[str] = set()
    pins: Pins = {}
    wrong: list[str] = []
    running: dict[Future[Pins], Step] = {}
    shown = threading.Lock()

    def timed(step: Step) -> Pins:
        start = time.monotonic()
        found = step.run(here)
        with shown:
            print(f"{time.monotonic() - start:6.1f} s  {step.name}", file=sys.stderr, flush=True)
        return found

    with ThreadPoolExecutor(jobs) as pool:
        while waiting or running:
            for step in [s for s in waiting if lost & {*s.needs}]:
                waiting.remove(step)
                lost.add(step.name)
                wrong.append(f"{step.name}: not run, since what it needs failed")
            for step in [s for s in waiting if done >= {*s.needs}][: jobs - len(running)]:
                waiting.remove(step)
                running[pool.submit(timed, step)] = step
            for future in wait(running, return_when=FIRST_COMPLETED).done if running else ():
                step = running.pop(future)
                try:
                    pins |= future.result()
                    done.add(step.name)
                except Exception as error:
                    lost.add(step.name)
                    wrong.append(f"{step.name}: {error}")
    return pins, wrong


def flat(tree: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(tree, dict):
        return {prefix or ".": tree}
    return {key: value for name, sub in tree.items() for key, value in flat(sub, f"{prefix}.{name}").items()}


def difference(before: Any, now: Any) -> str:
    """What differs between two pinned values, in one line."""
    if isinstance(before, list) and isinstance(now, list) and all(isinstance(x, str) for x in before + now):
        gone, new = [x for x in before if x not in now], [x for x in now if x not in before]
        return f"gone: {gone}, new: {new}" if gone or new else "another order"
    old, new = flat(before), flat(now)
    keys = [key for key in dict.fromkeys([*old, *new]) if key not in old or key not in new or old[key] != new[key]]
    return "; ".join(f"{key} was {old.get(key, 'absent')!r}, is {new.get(key, 'absent')!r}" for key in keys)[:600]


def compare(pinned: Pins, found: Pins) -> list[str]:
    lines = [f"{name}: no longer there" for name in pinned if name not in found]
    lines += [f"{name}: new, not pinned" for name in found if name not in pinned]
    both = [name for name in pinned if name in found and pinned[name] != found[name]]
    return sorted([*lines, *(f"{name}: {difference(pinned[name], found[name])}" for name in both)])


def write_pins(file: Path, pins: Pins) -> None:
    """One line a name."""
    lines = [
        f"{json.dumps(name)}: {json.dumps(pins[name], ensure_ascii=False, sort_keys=True)}" for name in sorted(pins)
    ]
    file.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--record", metavar="FILE", type=Path, help="write what is found instead of comparing it")
    parser.add_argument("--pins", metavar="FILE", type=Path, default=PINS, help="what to compare with")
    parser.add_argument("--only", metavar="PREFIX[,PREFIX]", default="", help="only names that begin so")
    parser.add_argument("--work", metavar="DIR", type=Path, help="an empty or new folder to work in, and to keep")
    parser.add_argument("--jobs", type=int, default=2, help="commands that run at the same time")
    parser.add_argument("--program", default=f"{sys.executable} -m stochastok_cli", help="how to call the program")
    options = parser.parse_args()
    if options.work is not None and options.work.is_dir() and any(options.work.iterdir()):
        parser.error(f"{options.work} is not empty: what lies there would be left alone by the makers")

    steps, prefixes = all_steps(), [prefix for prefix in options.only.split(",") if prefix]
    steps = chosen(steps, prefixes) if prefixes else steps
    start = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="pinned-") as temporary:
        work = (options.work or Path(temporary)).resolve()
        work.mkdir(parents=True, exist_ok=True)
        write_inputs(work)
        found, wrong = run_steps(steps, Here(work, tuple(options.program.split())), options.jobs)

    def asked(pins: Pins) -> Pins:
        return {name: pins[name] for name in pins if not prefixes or name.startswith(tuple(prefixes))}

    found = asked(found)
    print(f"{len(found)} values in {time.monotonic() - start:.0f} s", file=sys.stderr)
    if options.record is not None:
        if not wrong:
            write_pins(options.record, found)
    else:
        wrong += compare(asked(json.loads(options.pins.read_text(encoding="utf-8"))), found)
    print("\n".join(wrong) if wrong else "recorded" if options.record else "nothing differs")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
