"""`stochastok train --show-config`: what it shows is what a run uses."""

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
import transformers
import yaml
from hub_server import Repo

from stochastok_cli.cli.config_output import config_table
from stochastok_cli.config import ModelConfig, Source, load_config, load_config_and_sources, values_by_key
from stochastok_cli.config.schema import config_reference
from stochastok_cli.errors import UserError
from stochastok_cli.models.llama_config import config_json
from stochastok_cli.training import run_dir
from stochastok_cli.training.effective_config import EffectiveConfig, effective_config
from stochastok_cli.training.locate import other_run_note
from stochastok_cli.training.train import train
from tests.models.huggingface_families import CONFIGS

SHORT = tuple(f"trainer.training.{key}" for key in ("max_iters=1", "eval_iters=1", "warmup_iters=0"))
MCQ = "trainer.eval=[{evaluator: mcq, benchmarks: [langgame-val], num_samples: 4}]"


def write_llama(folder: Path) -> None:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config_json(ModelConfig(), 0, "float32")))


def shown_by(config_file: Path, *overrides: str) -> EffectiveConfig:
    return effective_config(*load_config_and_sources(str(config_file), overrides))


@pytest.fixture(autouse=True)
def _no_width(monkeypatch):
    """A table for a file or a pipe: pytest-xdist sets the width of a terminal."""
    monkeypatch.delenv("COLUMNS", raising=False)


def test_a_run_writes_the_values_that_are_shown_and_they_have_sources(command, config_file, tmp_path, data_dir):
    run = ("--run-name", "a run")
    overrides = (*SHORT, MCQ, "trainer.optimizer={lr: 1e-3}", "trainer.optimizer.beta1=0.8")
    config_file.write_text(config_file.read_text().replace("vocab_size: 2048", "vocab_size: 999"))
    before = sorted(tmp_path.rglob("*"))
    shown = command(*overrides, *run, "--show-config", "--json")
    assert (shown.returncode, shown.stderr) == (0, "")
    assert sorted(tmp_path.rglob("*")) == before
    entries = json.loads(shown.stdout)

    folder = Path(command(*overrides, *run, "--quiet").stdout.strip())
    of_folder = {"value": str(folder), "source": "override", "from": "--run-name 'a run'"}
    assert entries.pop("run.folder") == of_folder
    would_begin = {"value": "begin", "source": "run", "from": str(folder), "iteration": 0, "reason": None}
    assert entries.pop("run.action") == would_begin
    written = yaml.safe_load((folder / "config.yaml").read_text())
    values = values_by_key(load_config(str(folder / "config.yaml")))
    assert {key: entry["value"] for key, entry in entries.items()} == values
    assert entries["model.vocab_size"]["value"] == written["model"]["vocab_size"] == 2048
    assert entries.keys() >= {key.path for key in config_reference() if not key.path.startswith("trainer.eval")}

    sources = {key: (entry["source"], entry["from"]) for key, entry in entries.items()}
    dataset = str(data_dir / "data_as_memmaps" / "sample-tokenized")
    expected = {
        "model.vocab_size": ("dataset", dataset),
        "model.hidden_dim": ("file", str(config_file)),
        "model.lm_head.bias": ("default", None),
        "trainer.training.max_iters": ("override", SHORT[0]),
        "trainer.optimizer.lr": ("override", "trainer.optimizer={lr: 1e-3}"),
        "trainer.optimizer.beta1": ("override", "trainer.optimizer.beta1=0.8"),
        "trainer.optimizer.min_lr": ("file", str(config_file)),  # the override of the section is merged into it
        "trainer.eval.0.num_samples": ("override", MCQ),
    }
    assert {key: sources[key] for key in expected} == expected


def test_what_a_command_would_do_with_the_run_that_is_there(configured, config_file, command):
    def shown(*overrides):
        state = shown_by(config_file, *overrides).state
        return state.action, state.progress.iteration, state.reason

    folder = train(configured(*SHORT)).folder
    assert shown(*SHORT) == ("complete", 1, "")
    assert shown(*SHORT, "trainer.training.max_iters=2") == ("continue", 1, "")
    table = command(*SHORT, "trainer.training.max_iters=2", "--show-config").stdout
    [line] = [line for line in table.splitlines() if line.startswith("  action ")]
    assert "  continue from iteration 1  " in line and line.endswith(f"  checkpoint {folder / 'step_1'}")
    other = (*SHORT, "trainer.optimizer.lr=1")
    action, _, reason = shown(*other)
    assert action == "refused" and "is a run of another configuration: trainer.optimizer.lr (there 0.01" in reason
    with pytest.raises(UserError, match=re.escape(reason)):
        train(configured(*other))
    printed = command(*other, "--show-config")
    assert printed.returncode == 0 and printed.stderr.endswith(f"the command would be refused: {reason}\n")
    with run_dir.run_lock(folder):
        assert shown(*SHORT, "trainer.training.max_iters=2")[2] == f"another process is training in {folder}"
    shutil.rmtree(folder / "step_1")
    assert shown(*SHORT) == ("begin", 0, "")


def test_data_that_is_not_there_is_noted(config_file):
    entries = [
        "{evaluator: mcq, benchmarks: [cute-val, arc, langgame-val, arc2=missing.jsonl, own=me/questions]}",
        "{evaluator: bits_per_byte, benchmarks: [sample-tokenised]}",
        "{evaluator: generation, benchmarks: [addition-val, cute-train, cute, mine=missing.jsonl]}",
        "{evaluator: math_generation}",
    ]
    notes = shown_by(config_file, "trainer.dataset.name=sampel-tokenized", f"trainer.eval=[{', '.join(entries)}]").notes
    assert [Path(note.split(" does not exist")[0]).name for note in notes] == [
        "sampel-tokenized",
        "cute",
        "missing.jsonl",
        "sample-tokenised",
        "multi_digit_addition",
        "cute",
        "missing.jsonl",
        "multi_digit_addition",
    ]
    assert all("; did you mean 'sample-tokenized'?; " in notes[i] for i in (0, 3))


def test_the_model_section_of_a_checkpoint(configured, config_file):
    parent = train(configured(*SHORT), run_name="parent")
    overrides = [*SHORT, "trainer.checkpoint_name=parent", "model.context_window=12", "model.hidden_dim=16"]
    config_file.write_text(config_file.read_text().replace("ffn_dim: 32", "ffn_dim: 77"))
    shown = shown_by(config_file, *overrides)
    folder = train(configured(*overrides)).folder
    assert shown.run_folder == folder
    written = load_config(str(folder / "config.yaml"))
    assert values_by_key(shown.config) == values_by_key(written)
    assert shown.config.model.core_model.ffn.ffn_dim == 32
    checkpoint = f"checkpoint {parent.checkpoint}"
    sources = {key: str(source) for key, source in shown.sources.items() if key.startswith("model.")}
    assert sources.pop("model.context_window") == "override model.context_window=12"
    assert sources.pop("model.checkpoint_name") == "default"
    assert set(sources.values()) == {checkpoint}
    assert shown.unused == set()
    weights = parent.checkpoint / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    assert shown_by(config_file, *overrides).state.action == "complete"  # a run that has checkpoints needs no parent
    with pytest.raises(UserError, match="no complete checkpoint"):
        effective_config(*load_config_and_sources(str(config_file), overrides), "new")


def test_a_model_on_the_hub_is_not_downloaded(hub_server, configured, config_file, tmp_path, vocabulary):
    torch.manual_seed(0)
    transformers.AutoModelForCausalLM.from_config(CONFIGS["gpt2"]).save_pretrained(tmp_path / "gpt2")
    vocabulary.save_tokenizer(tmp_path / "gpt2")
    files = {file.name: file.read_bytes() for file in (tmp_path / "gpt2").iterdir()}
    hub_server.repos["models/me/shown"] = repo = Repo()
    repo.commit(files)
    overrides = [*SHORT, "trainer.checkpoint_name=me/shown"]
    shown = shown_by(config_file, *overrides)
    assert not hub_server.requests_like("safetensors") and hub_server.requests_like("config.json")
    trained = train(configured(*overrides))
    assert shown.run_folder == trained.folder
    assert values_by_key(shown.config) == values_by_key(load_config(str(trained.folder / "config.yaml")))
    assert shown.sources["model.vocab_size"].kind == "checkpoint"
    assert shown.sources["model.context_window"].kind == "file"  # shorter than the model's
    assert "model.hidden_dim" in shown.unused and not shown.unused & {"model.vocab_size", "model.context_window"}


def test_the_table_is_aligned_and_notes_go_to_stderr(command, config_file):
    shown = command("--show-config", "--data-dir", "else where", 'general.paths.output_dir="a\nb"')
    assert shown.returncode == 0
    lines = shown.stdout.splitlines()
    [section] = [i for i, line in enumerate(lines) if line == "trainer.optimizer"]
    assert lines[section - 1] == ""
    rows = [line for line in lines if line.startswith("  ")]
    assert len(rows) == len(lines) - 2 * lines.count("") - 1
    assert lines[0] == "run" and lines[1].split()[0] == "folder" and lines[1].endswith("  default")
    rows = [
        line for line in rows if str(config_file.parent) not in line.split("  file ")[0]
    ]  # a value that is wider than the column
    sources = [max(line.find(f"  {kind}") for kind in ("default", "file /", "override ", "'override")) for line in rows]
    assert len(set(sources)) == 1 and sources[0] > 0
    assert any(line.endswith("  override --data-dir 'else where'") for line in rows)
    assert "else where/data_as_memmaps/sample-tokenized does not exist; once it does, model.vocab_size " in shown.stderr
    assert "general.paths.output_dir" in shown.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--plan", "--force", "--run-name", "x"], "--plan would have no effect beside --show-config"),
        (["--run-name", "a/b"], "'a/b' can't be the name of a folder"),
        (["trainer.optimizer.learning_rate=1"], "unknown key 'trainer.optimizer.learning_rate'"),
        (
            ["trainer.checkpoint_name={llama}", "model.hidden_dim=8"],
            "has model.hidden_dim = 512, not 8; its weights fit",
        ),
        (["--run-name", "a" * 241], "can't be the name of a folder: it has 241 bytes; give one of at most 240"),
        (["trainer.eval=[{{evaluator: mcq, benchmarks: [nope]}}]"], "unknown benchmark 'nope'; there are: "),
        (["trainer.eval=[{{evaluator: generation, benchmarks: [arc]}}]"], "'arc' is scored by its options only"),
        ([f"--data-dir={'a' * 300}"], "File name too long"),
        (["trainer.checkpoint_name=missing"], "no checkpoint 'missing': neither a folder nor a run in "),
    ],
)
def test_what_can_not_be_shown_is_one_line(command, tmp_path, arguments, message):
    write_llama(tmp_path / "llama")
    refused = command("--show-config", *(argument.format(llama=tmp_path / "llama") for argument in arguments))
    assert (refused.returncode, refused.stdout) == (2, "")
    assert message in refused.stderr and refused.stderr.count("\n") == 1


def test_force_shows_the_run_that_would_take_the_place_of_the_one_that_is_there(configured, config_file):
    folder = train(configured(*SHORT)).folder
    other = load_config_and_sources(str(config_file), [*SHORT, "trainer.optimizer.lr=1"])
    refused, forced = effective_config(*other), effective_config(*other, force=True)
    assert (refused.state.action, forced.state.action, forced.state.progress.iteration) == ("refused", "begin", 0)
    assert forced.notes[-1:] == [f"the command would rename {folder} and begin anew"]
    with run_dir.run_lock(folder):
        assert effective_config(*other, force=True).state.reason == f"another process is training in {folder}"


def test_a_table_fits_a_terminal(config_file, monkeypatch):
    overrides = ["trainer.eval=[{evaluator: bits_per_byte, num_samples: 1000000, benchmarks: [sample-tokenized]}]"]
    shown = shown_by(config_file, *overrides)
    wide = config_table(shown, Source("default"))
    assert f"  override {overrides[0]}" in wide
    monkeypatch.setenv("COLUMNS", "60")
    narrow = config_table(shown, Source("default")).splitlines()
    assert all(len(line) <= 60 for line in narrow if "  /" not in line)  # a path stays whole where it is the value
    assert any(line.startswith("    override trainer.eval=[{evaluator: ") and line.endswith("…") for line in narrow)
    assert any(line.split() == ["hidden_dim", "16"] for line in narrow)


def test_a_later_override_is_the_one_that_counts(config_file):
    overrides = ["trainer.optimizer.lr=1", "trainer.optimizer={lr: 2}", "trainer.optimizer.lr=3"]
    config, sources = load_config_and_sources(str(config_file), overrides)
    assert config.trainer.optimizer.lr == 3
    assert sources["trainer.optimizer.lr"].name == "trainer.optimizer.lr=3"
    assert sources["trainer.lora.rank"].kind == "default"


def test_a_configuration_in_the_folder_of_another_run_is_noted(configured, command, config_file, tmp_path):
    run = train(configured(*SHORT), run_name="a b")
    file = run.folder / "config.yaml"
    note = other_run_note(file, run.folder.with_name("pretraining-sample-tokenized"))
    expected = f"{file} is that of another run than {tmp_path}/runs/pretraining-sample-tokenized, which this trains"
    assert note == f"{expected}; to go on with it: --run-name 'a b'"
    assert other_run_note(file, tmp_path / "c").endswith(
        f" --run-name 'a b' general.paths.checkpoint_dir={run.folder.parent}"
    )
    assert other_run_note(file, run.folder) == other_run_note(config_file, run.folder) == ""
    shown = command(f"--config={file}", "--show-config")
    assert (shown.returncode, shown.stderr) == (0, f"note: {note}\n")
    assert command(f"--config={file}", "--show-config", "--run-name", "c").stderr == ""
