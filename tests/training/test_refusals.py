"""Bad input: one clear error each, before anything is written."""

import importlib.util
import json
import os
import re
import shutil
import sys

import numpy as np
import pytest
import torch
from preloaded_python import run_python, run_stochastok

from stochastok_cli.config import load_config_and_sources
from stochastok_cli.data.memmap import memmap_dir
from stochastok_cli.data.recipes.langgame import make_langgame
from stochastok_cli.errors import FAILED, USAGE, Notice, UserError
from stochastok_cli.models.llama import LLAMA
from stochastok_cli.models.llama_config import read_model_config
from stochastok_cli.training import run_dir, setup
from stochastok_cli.training.distributed import DistributedContext
from stochastok_cli.training.effective_config import effective_config
from stochastok_cli.training.plan import plan
from stochastok_cli.training.train import train

ONE_RANK = DistributedContext(0, 1, torch.device("cpu"))
SHOWN = ("trainer.dataset.name=sample-tokenised", "general.device=", "trainer.training.fp8_logits=")
"""What `--show-config` does not refuse: data that can still be made, and what needs PyTorch."""
LANGGAME = ("trainer.dataset.name=langgame", "trainer.dataset.is_instruction=true")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["trainer.dataset.name=sample-tokenised"],
            "no dataset 'sample-tokenised' in .*did you mean 'sample-tokenized'",
        ),
        (["model.context_window=100000"], "tokens, and one window takes 100,001; lower model.context_window"),
        (["trainer.dataset.name=langgame"], "holds questions with answers; set trainer.dataset.is_instruction=true"),
        (["trainer.dataset.is_instruction=true"], "holds plain text.*set trainer.dataset.is_instruction=false"),
        (LANGGAME, "the longest row of the train split has .* ids, and the context window only 24; set model.context"),
        (
            ["model.vocab_size=50257"],
            "'sample2k' of 2,048 entries, .*model.vocab_size = 50,257; set model.vocab_size=2048",
        ),
        (["trainer.dataset.expand_prop=0.1", "trainer.dataset.expand_method=magic"], "unknown method 'magic'"),
        (["trainer.eval=[{evaluator:mcq,benchmarks:[nonsense]}]"], r"nonsense.*trainer\.eval=\[\]"),
        (["trainer.eval=[{evaluator:alignment,benchmarks:[a]}]"], "must be empty: what alignment scores is always"),
        (["trainer.eval=[{evaluator:mcq,benchmarks:[arc,arc]}]"], "must not name what is scored already"),
        (["trainer.eval=[{evaluator:mcq,benchmarks:[arc,arc=x.jsonl]}]"], "must not name what is scored already"),
        (["trainer.dataset.expand_method=unifrom"], "expand_method = 'unifrom': unknown method .*mean 'uniform'"),
        (
            ["trainer.dataset.expand_prop=1", "trainer.dataset.expand_method=maxmatch-dropout"],
            "needs a WordPiece vocab",
        ),
        (["trainer.dataset.expand_schedule=linear"], "no effect without trainer.dataset.expand_prop above 0"),
        (["trainer.dataset.expand_prop=2", "trainer.dataset.expand_method=uniform"], "expand_prop = 2.0.* is a proba"),
        (["general.paths.checkpoint_dir=/dev/null"], "/dev/null is a file, where a run's folder should be"),
        (["trainer.checkpoint_name=nobody"], "no checkpoint 'nobody': neither a folder nor a run in"),
        (["trainer.training.fp8_logits=true"], "only the fused kernels know, and they take heads of width"),
        pytest.param(
            ["general.logging.wandb_log=true"],
            "wandb is not installed; pip install",
            marks=pytest.mark.skipif(importlib.util.find_spec("wandb") is not None, reason="it is"),
        ),
        pytest.param(
            ["general.device=cuda"],
            "general.device is cuda, and torch finds no CUDA device",
            marks=pytest.mark.skipif(torch.cuda.is_available(), reason="there is one"),
        ),
    ],
)
def test_refused_before_anything_is_written(configured, config_file, tmp_path, overrides, message):
    with pytest.raises(UserError, match=message) as info:
        train(configured(*overrides))
    assert info.value.exit_code == USAGE
    if not overrides[0].startswith(SHOWN):
        with pytest.raises(UserError, match=re.escape(str(info.value))):
            effective_config(*load_config_and_sources(str(config_file), overrides))
    assert not (tmp_path / "runs").exists()


@pytest.fixture
def parent(configured):
    return train(configured("trainer.training.max_iters=1"), run_name="parent")


def test_an_override_that_the_checkpoint_contradicts_is_refused(configured, parent):
    with pytest.raises(UserError, match="has model.hidden_dim = 16, not 32; .*drop the override"):
        train(configured("trainer.checkpoint_name=parent", "model.hidden_dim=32"))
    (torn := parent.folder / "step_9").mkdir()
    with pytest.warns(Notice, match=f"{re.escape(str(torn))} is incomplete and ignored") as notices:
        train(configured("trainer.checkpoint_name=parent", "model.hidden_dim=16"))  # the same value is no contradiction
    places = {(notice.filename, notice.lineno) for notice in notices if "incomplete" in str(notice.message)}
    assert len(places) == 1  # Python then shows it once


def test_the_context_window_of_a_checkpoint_can_be_lowered_and_not_raised(configured, parent):
    with pytest.raises(UserError, match="has model.context_window = 24, not 32; it can be lowered, not raised"):
        train(configured("trainer.checkpoint_name=parent", "model.context_window=32"))
    options = ("trainer.checkpoint_name=parent", "model.context_window=8", "trainer.optimizer.lr=0")
    options += ("trainer.optimizer.min_lr=0", "trainer.training.max_iters=1")
    child = train(configured(*options), run_name="child")
    assert read_model_config(child.checkpoint).context_window == 8
    assert (child.checkpoint / "model.safetensors").read_bytes() == (
        parent.checkpoint / "model.safetensors"
    ).read_bytes()
    assert not train(configured(*options), run_name="child").created  # the same command goes on with the same run


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_hidden_layers": 10**9}, "has no tensor model.layers.999999999.input_layernorm.weight"),
        ({"intermediate_size": 10**9}, r"has the shape \[32, 16\], the model's has \[1000000000, 16\]"),
        ({"vocab_size": 2**31}, r"embed_tokens.weight has the shape \[2048, 16\]"),
    ],
)
def test_sizes_that_are_not_those_of_the_tensors_are_refused_before_a_network_is_built(
    configured, parent, change, message
):
    (parent.checkpoint / "training_state.json").unlink()  # as a model from elsewhere, whose checksums are unknown
    config = parent.checkpoint / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | change))
    with pytest.raises(UserError, match=message):
        setup._build_model(
            setup.resolve_run(configured(f"trainer.checkpoint_name={parent.checkpoint}"), ONE_RANK, "a", force=False)
        )
    with pytest.raises(UserError, match=message):
        LLAMA.load(parent.checkpoint)


def test_a_torn_checkpoint_to_start_from_is_refused(configured, parent):
    os.truncate(parent.checkpoint / "model.safetensors", 1000)
    with pytest.raises(UserError, match="model.safetensors is damaged") as info:
        train(configured(f"trainer.checkpoint_name={parent.checkpoint}"), run_name="child")
    assert info.value.exit_code == FAILED
    assert not parent.folder.with_name("child").exists()
    with pytest.raises(UserError, match="parent holds no complete checkpoint"):
        train(configured("trainer.checkpoint_name=parent"), run_name="child")


@pytest.mark.parametrize("plan_only", [True, False])
def test_a_damaged_checkpoint_to_resume_from_is_refused_before_anything_is_touched(configured, parent, plan_only):
    file = parent.checkpoint / "optimizer.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    before = {f: f.read_bytes() for f in parent.folder.iterdir() if f.is_file()}
    with pytest.raises(
        UserError, match=r"optimizer.safetensors is damaged: .*, or train anew: the same train command with"
    ) as info:
        (plan if plan_only else train)(configured("trainer.training.max_iters=2"), run_name="parent")
    assert info.value.exit_code == FAILED
    assert {f: f.read_bytes() for f in parent.folder.iterdir() if f.is_file()} == before


def test_data_of_another_vocabulary_of_the_same_size_is_refused(configured, parent):
    (parent.checkpoint / "training_state.json").unlink()  # as a model from elsewhere, whose checksums are unknown
    tokenizer = parent.checkpoint / "tokenizer.json"
    tree = json.loads(tokenizer.read_text())
    ids = tree["model"]["vocab"]
    ids["a"], ids["b"] = ids["b"], ids["a"]
    tokenizer.write_text(json.dumps(tree))
    other = parent.checkpoint.rename(parent.folder.with_name("an other"))
    with pytest.raises(UserError, match="tokenizer 'sample2k', which is not that of .*--tokenizer '.*/an other'$"):
        train(configured(f"trainer.checkpoint_name={other}"), run_name="child")


@pytest.mark.parametrize(
    "overrides",
    [
        ["trainer.optimizer.lr=0.5"],
        ["general.seed=7", "trainer.dataset.expand_prop=0.1"],
        ["trainer.training.max_iters=1"],
    ],
)
def test_another_configuration_in_the_same_folder_is_refused_by_key(configured, overrides):
    train(configured("trainer.training.max_iters=2"), run_name="a")
    with pytest.raises(UserError, match="run of another configuration") as info:
        train(configured("trainer.training.max_iters=2", *overrides), run_name="a")
    for override in overrides:
        assert override.partition("=")[0] in str(info.value)
    assert info.value.exit_code == USAGE


def test_what_may_change_may_change(configured):
    train(configured("trainer.training.max_iters=2"), run_name="a")
    free = [
        "trainer.training.max_iters=3",
        "trainer.training.eval_interval=7",
        "trainer.training.log_interval=2",
        "trainer.training.checkpoint_interval=9",
        "trainer.training.eval_iters=1",
        "trainer.training.run_profiler=true",
        "trainer.eval=[{evaluator:mcq,num_samples:2,benchmarks:[langgame-val]}]",
        "general.logging.run_name_prefix=other",
        "general.device=auto",
    ]
    assert train(configured(*free), run_name="a").iteration == 3


def test_a_folder_that_is_no_run_is_not_touched(configured, tmp_path):
    folder = tmp_path / "runs" / "a"
    folder.mkdir(parents=True)
    (folder / "thesis.txt").write_text("precious")
    with pytest.raises(UserError, match="exists and is no run; give another --run-name, or --force"):
        train(configured(), run_name="a")
    assert [f.name for f in folder.iterdir()] == ["thesis.txt"]


def test_force_renames_the_old_run_and_reports_the_name(configured):
    old = train(configured("trainer.training.max_iters=1"), run_name="a")
    before = (old.checkpoint / "model.safetensors").read_bytes()
    seen = []
    for k in (1, 2):
        new = train(
            configured("trainer.training.max_iters=1", f"general.seed={k}"),
            run_name="a",
            force=True,
            listeners=[seen.append],
        )
        assert any(str(new.folder.with_name(f"a-old-{k}")) in getattr(event, "text", "") for event in seen)
    assert new.folder == old.folder
    assert (old.folder.with_name("a-old-1") / "step_1" / "model.safetensors").read_bytes() == before
    assert (new.checkpoint / "model.safetensors").read_bytes() != before


def test_one_process_per_run(configured, tmp_path):
    with run_dir.run_lock(tmp_path / "runs" / "a"):
        with pytest.raises(UserError, match="another process is training in .*a; ") as info:
            train(configured(), run_name="a")
        assert info.value.exit_code == FAILED
        assert not (tmp_path / "runs" / "a").exists()
        train(configured("trainer.training.max_iters=1"), run_name="b")


def test_a_run_does_not_resume_with_other_data(configured, data_dir, vocabulary, tmp_path):
    own = tmp_path / "data"
    shutil.copytree(data_dir, own)
    options = (*LANGGAME, "model.context_window=128", f"general.paths.data_dir={own}")
    train(configured(*options, "trainer.training.max_iters=2"), run_name="a")
    make_langgame(vocabulary, own, train_size=300, val_size=20, seed=1, force=True)
    for named in ("langgame", own / "data_as_memmaps" / "langgame"):
        with pytest.raises(UserError, match="was trained on other data: langgame had the fingerprint"):
            train(configured(*options, f"trainer.dataset.name={named}"), run_name="a")


def test_a_folder_written_by_the_reference_trains_as_gpt2(configured, tmp_path):
    folder = memmap_dir(tmp_path) / "old-tokenized"
    folder.mkdir(parents=True)
    for split in ("train", "val"):
        np.arange(500, dtype="<u2").tofile(folder / f"{split}.bin")
    trained = train(
        configured(
            "trainer.dataset.name=old-tokenized",
            "model.vocab_size=50257",
            f"general.paths.data_dir={tmp_path}",
            "trainer.training.max_iters=1",
        )
    )
    assert trained.iteration == 1


@pytest.mark.skipif(sys.platform == "win32", reason="limits of POSIX")
def test_a_full_disk_leaves_the_checkpoint_before(configured, config_file, tmp_path):
    before = train(configured("trainer.training.max_iters=4"), run_name="a")
    size = (before.checkpoint / "optimizer.safetensors").stat().st_size
    limited = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({size - 1}, {size - 1}))\n"
    main = "import sys; sys.argv[0] = 'stochastok'; from stochastok_cli.cli.app import main; main()"
    done = run_python("-c", limited + main, "train", "--config", config_file, "--run-name", "a")
    assert done.returncode == FAILED, done.stderr
    assert "step_8 can't be written: " in done.stderr
    assert [f.name for f in before.folder.iterdir() if "step" in f.name] == ["step_4"]
    assert train(configured(), run_name="a").checkpoint.name == "step_8"


def test_the_command_prints_one_line_before_it_imports_torch(config_file, tmp_path):
    main = "import sys; sys.argv[0] = 'stochastok'; from stochastok_cli.cli.app import main; main()"
    without_torch = "import sys; sys.modules['torch'] = None; " + main
    done = run_python("-c", without_torch, "train", "--config", config_file, "--data-dir", tmp_path / "nowhere")
    assert (done.returncode, done.stdout) == (USAGE, "")
    assert done.stderr.startswith("error: there is no dataset 'sample-tokenized' in ")
    assert len(done.stderr.splitlines()) == 1


def test_one_of_several_ranks_says_what_all_of_them_find(config_file, tmp_path):
    ranks = [{"RANK": str(rank), "WORLD_SIZE": "2"} for rank in range(2)]
    ended = [run_stochastok("train", "--config", config_file, "--data-dir", tmp_path, **rank) for rank in ranks]
    assert [done.returncode for done in ended] == [USAGE, USAGE]
    assert [done.stderr.count("error: there is no dataset") for done in ended] == [1, 0]


def test_the_size_of_the_vocabulary_is_that_of_the_data(configured, config_file, data_dir):
    config_file.write_text(config_file.read_text().replace("vocab_size: 2048", "vocab_size: 50257"))
    run = setup.resolve_run(configured(), ONE_RANK, "a", force=False)
    assert run.config.model.vocab_size == run.hyperparameters.vocab_size == 2048
    folder = data_dir / "data_as_memmaps" / "sample-tokenized"
    assert run.notes == [f"model.vocab_size = 2048 as in {folder}, not 50257 as in the configuration"]
    assert setup.resolve_run(configured("model.vocab_size=2048"), ONE_RANK, "a", force=False).notes == []


def test_a_method_that_nothing_is_expanded_by_is_noted(configured):
    overrides = ["trainer.dataset.expand_method=grampa:temperature=2"]
    (note,) = setup.resolve_run(configured(*overrides), ONE_RANK, "a", force=False).notes
    assert note.endswith("trainer.dataset.expand_prop is 0, so nothing is expanded")
    for more in (["trainer.dataset.expand_prop=0.1"], ["trainer.dataset.expand_method=character"]):
        assert setup.resolve_run(configured(*overrides, *more), ONE_RANK, "a", force=False).notes == []


def test_another_spelling_of_the_same_method_is_the_same_configuration(configured):
    spellings = ["grampa:temperature=2,min_length=2", "grampa:min_length=2,temperature=2.0"]
    overrides = ["trainer.training.max_iters=2", "trainer.dataset.expand_prop=0.1"]
    first, again = (
        train(configured(*overrides, f"trainer.dataset.expand_method={method}"), run_name="a") for method in spellings
    )
    assert (first.checkpoint, again.created) == (again.checkpoint, False)
    with pytest.raises(UserError, match="run of another configuration: trainer.dataset.expand_method"):
        train(configured(*overrides, "trainer.dataset.expand_method=grampa"), run_name="a")


def test_a_warm_up_that_the_run_does_not_finish_is_noted(configured):
    override = "trainer.training.warmup_iters=16"  # of a run of 8 iterations
    (note,) = setup.resolve_run(configured(override), ONE_RANK, "a", force=False).notes
    assert "warmup_iters = 16 is as long as the run or longer" in note
    assert "rises to 0.00438 and never reaches 0.01" in note
    assert setup.resolve_run(configured(override, "trainer.optimizer.lr=0"), ONE_RANK, "a", force=False).notes == []
