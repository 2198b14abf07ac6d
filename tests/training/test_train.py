"""Training runs: the files that they write and the events that they emit."""

import calendar
import dataclasses
import json
import math
import os
import re
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel

import stochastok_cli
from stochastok_cli.config import load_config
from stochastok_cli.data.memmap import Corpus, memmap_dir
from stochastok_cli.data.recipes.addition import make_addition
from stochastok_cli.data.samplers import Batch
from stochastok_cli.data.tokenize import tokenize
from stochastok_cli.errors import FAILED, UserError
from stochastok_cli.evaluation.evaluators.bits_per_byte import count_bytes
from stochastok_cli.models.base import load_model
from stochastok_cli.models.llama.model import Llama
from stochastok_cli.tokenization.loaders import load_vocabulary
from stochastok_cli.training import events, trainer
from stochastok_cli.training.backends import EagerBackend, sum_of_window_losses
from stochastok_cli.training.data import open_data
from stochastok_cli.training.distributed import DistributedContext
from stochastok_cli.training.loggers.jsonl import read_starts
from stochastok_cli.training.loggers.wandb import _run_id
from stochastok_cli.training.prefetch import prefetch
from stochastok_cli.training.train import train
from stochastok_cli.training.trainer import TrainingStep
from stochastok_cli.training.validation import Validation
from tests.training.runs import metrics, steps, tensors

ALONE = DistributedContext(0, 1, torch.device("cpu"))
MCQ = "trainer.eval=[{evaluator:mcq,num_samples:10,benchmarks:[langgame-val]}]"


def test_the_files_of_a_run(configured, tmp_path):
    seen = []
    trained = train(configured("trainer.training.log_interval=3", MCQ), listeners=[seen.append])
    assert trained.folder == tmp_path / "runs" / "pretraining-sample-tokenized"
    assert {f.name for f in trained.folder.iterdir()} == {
        "config.yaml",
        "metrics.jsonl",
        "starts.jsonl",
        "train.log",
        "step_4",
        "step_8",
    }
    assert load_config(str(trained.folder / "config.yaml")) == dataclasses.replace(
        configured("trainer.training.log_interval=3", MCQ), overridden=frozenset()
    )
    lines = metrics(trained.folder)
    assert [(line["iteration"], "train/loss" in line) for line in lines] == [
        (0, False),
        (3, True),
        (4, False),
        (6, True),
        (8, True),
        (8, False),
    ]
    last = lines[-1]
    assert last["validation/perplexity"] == pytest.approx(math.exp(last["validation/loss"]))
    assert 0 <= last["mcq/langgame-val/accuracy"] <= 1
    assert trained.metrics == {k: v for k, v in last.items() if k != "iteration"}
    assert {type(event) for event in seen} == {
        events.Started,
        events.Logged,
        events.Evaluating,
        events.Evaluated,
        events.Saved,
    }
    log = (trained.folder / "train.log").read_text()
    assert "iteration 6  loss" in log
    assert "mcq/langgame-val/accuracy" in log
    model = load_model(trained.checkpoint)
    assert model.config == configured().model
    ([start], _) = read_starts(trained.folder / "starts.jsonl")
    assert (start.iteration, start.trained_parameters) == (0, model.num_parameters())
    assert (start.device, start.ranks, start.kernels) == ("CPU", 1, "reference")
    assert (start.version, start.torch) == (stochastok_cli.__version__, torch.__version__)
    assert abs(calendar.timegm(time.strptime(start.time, "%Y-%m-%dT%H:%M:%SZ")) - time.time()) < 600


def test_a_run_in_a_folder_whose_name_is_not_utf8(configured, tmp_path):
    config = configured("trainer.training.max_iters=1", "trainer.training.eval_iters=1")
    paths = dataclasses.replace(config.general.paths, checkpoint_dir=str(tmp_path / os.fsdecode(b"runs\xff")))
    config = dataclasses.replace(config, general=dataclasses.replace(config.general, paths=paths))
    trained = train(config)
    assert f"runs\\udcff/{trained.folder.name}/step_1" in (trained.folder / "train.log").read_text()
    assert not train(config).created
    with pytest.raises(UserError, match="can't be the name of a folder"):
        train(config, run_name="a\nb")


def test_the_seed_is_used(configured):
    one, same, other = (
        train(configured(f"general.seed={seed}", "trainer.training.max_iters=2"), run_name=name)
        for name, seed in [("a", 1), ("b", 1), ("c", 2)]
    )
    assert tensors(one.checkpoint) == tensors(same.checkpoint)
    assert metrics(one.folder) == metrics(same.folder)
    assert metrics(other.folder)[1]["train/loss"] != metrics(one.folder)[1]["train/loss"]


def test_dropout_is_on_in_training_and_only_there(configured):
    with_dropout, without = (
        train(configured(f"trainer.dropout_scheduler.dropout={p}", "trainer.training.max_iters=1"), run_name=str(p))
        for p in (0.5, 0.0)
    )
    before, after = metrics(with_dropout.folder), metrics(without.folder)
    assert before[0] == after[0]  # validation of the same weights
    assert before[1]["train/loss"] != after[1]["train/loss"]


def test_it_learns(configured):
    trained = train(
        configured("trainer.training.max_iters=60", "trainer.training.eval_interval=60", "trainer.optimizer.lr=3e-2")
    )
    first, last = metrics(trained.folder)[0], metrics(trained.folder)[-1]
    assert last["validation/loss"] < first["validation/loss"] - 1


def test_one_step_is_what_a_plain_loop_does(configured):
    """The whole step compared with a plain loop: dense logits, torch's own losses, clipping and (unfused) AdamW."""
    config = configured("trainer.dropout_scheduler.dropout=0", "trainer.training.warmup_iters=1")
    data, optimizer = open_data(config), config.trainer.optimizer
    torch.manual_seed(0)
    model, plain_model = Llama(config.model), Llama(config.model)
    plain_model.load_state_dict(model.state_dict())
    step = TrainingStep(model, config, ALONE, vocabulary=data.vocabulary)
    groups = [
        {"params": [p for p in plain_model.parameters() if p.dim() > 1], "weight_decay": optimizer.weight_decay},
        {"params": [p for p in plain_model.parameters() if p.dim() < 2], "weight_decay": 0},
    ]
    plain = torch.optim.AdamW(groups, lr=0, betas=(0.9, 0.95), eps=1e-8, fused=False, foreach=False)
    for iteration, rate in [(0, 0.0), (1, optimizer.lr)]:
        keys = [(iteration, index) for index in step.micro_batches]
        step(iteration, prefetch(data.train, keys, ALONE.device))
        ids = torch.from_numpy(data.train.batch(iteration, np.concatenate(step.micro_batches)).ids)
        logits = plain_model.logits(plain_model(ids[:, :-1]))
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())
        plain.zero_grad()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(plain_model.parameters(), optimizer.grad_clip)
        for group in plain.param_groups:
            group["lr"] = rate
        plain.step()
        bits = loss.item() * ids[:, 1:].numel() / math.log(2) / count_bytes(ids[:, 1:].numpy().ravel(), data.vocabulary)
        assert step.metrics()[:3] == pytest.approx((loss.item(), norm.item(), bits), rel=1e-5)
    for ours, expected in zip(model.parameters(), plain_model.parameters(), strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-5)


def test_a_window_without_answers_gives_zero_and_no_nan(configured):
    model = Llama(configured().model)
    batch = Batch(torch.zeros(2, 25, dtype=torch.int64), None, torch.zeros(2, 24), 0)
    loss = sum_of_window_losses(model, model, batch)
    loss.backward()
    assert loss.item() == 0
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in model.parameters())


def test_from_the_first_bad_number_on_nothing_is_applied(configured):
    config = configured()
    data = open_data(config)
    step = TrainingStep(Llama(config.model), config, ALONE)

    def batches(iteration, poisoned):
        keys = [(iteration, index) for index in step.micro_batches]
        for m, batch in enumerate(prefetch(data.train, keys, ALONE.device)):
            weights = batch.token_weights * math.nan if poisoned and m == 2 else batch.token_weights
            yield dataclasses.replace(batch, token_weights=weights)

    step(0, batches(0, False))
    step(1, batches(1, False))
    before = [p.clone() for p in step.model.parameters()]
    assert step.metrics().first_bad is None
    step(2, batches(2, True))
    step(3, batches(3, False))
    assert step.metrics().first_bad == 2
    assert all(torch.equal(a, b) for a, b in zip(before, step.model.parameters(), strict=True))


def test_a_run_that_diverges_stops_at_the_next_log_and_keeps_the_last_good_checkpoint(configured, tmp_path):
    config = configured(
        "trainer.optimizer.lr=1e30",
        "trainer.training.warmup_iters=0",
        "trainer.training.checkpoint_interval=1",
        "trainer.training.log_interval=5",
        "trainer.training.eval_interval=100",
    )
    with pytest.raises(
        UserError,
        match=r"iteration 2 is not finite; .*last good checkpoint is .*step_1; lower .*in a new run: with",
    ) as info:
        train(config, run_name="a")
    assert info.value.exit_code == FAILED
    assert steps(tmp_path / "runs" / "a") == ["step_1"]
    weights = load_file(tmp_path / "runs" / "a" / "step_1" / "model.safetensors")
    assert all(torch.isfinite(tensor).all() for tensor in weights.values())


def _log_later(monkeypatch):
    """Runs that start from now on log as they do on a GPU."""
    make = trainer.Trainer.__init__

    def make_one_that_logs_later(self, *arguments):
        make(self, *arguments)
        self.logs_later = True

    monkeypatch.setattr(trainer.Trainer, "__init__", make_one_that_logs_later)


def test_metrics_may_be_logged_after_the_next_iteration_was_launched(configured, monkeypatch):
    """As on a GPU, and with the same lines in the same order."""
    overrides = "trainer.training.log_interval=1", "trainer.training.eval_interval=3"
    expected = metrics(train(configured(*overrides), run_name="at once").folder)
    seen, step = [], trainer.TrainingStep.__call__

    def seen_step(self, iteration, batches):
        seen.append(("step", iteration + 1))
        step(self, iteration, batches)

    def listen(event):
        if isinstance(event, events.Logged | events.Evaluated | events.Saved):
            seen.append((type(event).__name__, event.iteration))

    _log_later(monkeypatch)
    monkeypatch.setattr(trainer.TrainingStep, "__call__", seen_step)
    assert metrics(train(configured(*overrides), run_name="later", listeners=[listen]).folder) == expected
    assert seen[1:14] == [  # the first is the evaluation before training
        ("step", 1), ("step", 2), ("Logged", 1), ("step", 3), ("Logged", 2), ("Logged", 3), ("Evaluated", 3),
        ("step", 4), ("Logged", 4), ("Saved", 4), ("step", 5), ("step", 6), ("Logged", 5),
    ]  # fmt: skip
    assert seen[-4:] == [("Logged", 7), ("Logged", 8), ("Evaluated", 8), ("Saved", 8)]


def test_the_last_iteration_before_a_failure_is_logged(configured, monkeypatch, tmp_path):
    step = trainer.TrainingStep.__call__

    def fail_in_the_third(self, iteration, batches):
        if iteration == 2:
            raise RuntimeError("this is a failure")
        step(self, iteration, batches)

    _log_later(monkeypatch)
    monkeypatch.setattr(trainer.TrainingStep, "__call__", fail_in_the_third)
    with pytest.raises(RuntimeError, match="this is a failure"):
        train(configured("trainer.training.log_interval=1"), run_name="a")
    lines = metrics(tmp_path / "runs" / "a")
    assert [line["iteration"] for line in lines if "train/loss" in line] == [1, 2]


def test_validation_takes_the_same_windows_each_time_however_they_are_divided(configured):
    def validate(world, *overrides):
        config = configured(*overrides)
        data = open_data(config)
        torch.manual_seed(0)
        model = Llama(config.model)
        validation = Validation(data.val, config.trainer.training, world, data.vocabulary)
        return [validation(model, EagerBackend(model, config, ALONE.device)) for _ in range(2)]

    first, second = validate(ALONE, "trainer.training.eval_iters=6")
    assert first == second
    divided, _ = validate(ALONE, "trainer.training.eval_iters=2", "trainer.training.batch_size=9")
    assert divided == pytest.approx(first, rel=1e-6)


def test_an_id_that_the_tokenizer_has_not_is_refused_also_where_the_model_has_it(configured, data_dir, tmp_path):
    """Models of other programs are padded to a multiple of 64 entries, and the tokenizer knows no text for the last."""
    folder = Path(shutil.copytree(data_dir / "data_as_memmaps" / "sample-tokenized", tmp_path / "other"))
    np.memmap(folder / "train.bin", "<u2", "r+")[::2] = 2100
    config = configured(f"trainer.dataset.name={folder}", "trainer.checkpoint_name=padded", "model.vocab_size=2112")
    with pytest.raises(UserError, match="the train split holds the id 2100, and the vocabulary ends at 2047"):
        open_data(config).train.batch(0, np.arange(3))


def test_an_expansion_that_can_split_nothing_is_noted(configured, tmp_path):
    entries = {character: i for i, character in enumerate(sorted(ByteLevel.alphabet()))}
    tokenizer = Tokenizer(BPE({**entries, "<|endoftext|>": len(entries)}, []))
    tokenizer.pre_tokenizer, tokenizer.decoder = ByteLevel(add_prefix_space=False), ByteLevelDecoder()
    tokenizer.add_special_tokens(["<|endoftext|>"])
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    tokenize("sample", tokenizer=str(tmp_path / "tokenizer.json"), data_dir=tmp_path, limit=100)
    options = f"general.paths.data_dir={tmp_path}", "model.vocab_size=257", "trainer.training.max_iters=1"
    for p, method, is_noted in ((0, "stochastok", False), (0.2, "stochastok", True), (0.2, "uniform", True)):
        expansion = f"trainer.dataset.expand_prop={p}", f"trainer.dataset.expand_method={method}"
        seen = []
        train(configured(*options, *expansion), run_name=f"{method}-{p}", listeners=[seen.append])
        notes = [event.text for event in seen if isinstance(event, events.Note)]
        assert any(f"by {method} splits nothing: the tokenizer" in note for note in notes) is is_noted
        assert ("splits nothing" in (tmp_path / "runs" / f"{method}-{p}" / "train.log").read_text()) is is_noted
    config = configured("trainer.dataset.expand_prop=0.2")  # with the tokenizer of the sample
    assert open_data(config).notes == []


def test_a_validation_takes_as_many_windows_at_once_as_an_iteration(configured):
    """The fused kernels take all windows of an iteration together, and so those of as many batches of a validation."""

    class WholeIterations(EagerBackend):
        def micro_batches(self, windows):
            return [windows.ravel()]

    config = configured("trainer.training.eval_iters=6", "trainer.training.gradient_accumulation_steps=4")
    data = open_data(config)
    model = Llama(config.model)
    validation = Validation(data.val, config.trainer.training, ALONE, data.vocabulary)
    backend, sizes = WholeIterations(model, config, ALONE.device), []
    compute = backend.loss
    backend.loss = lambda batch: sizes.append(len(batch.ids)) or compute(batch)
    together = validation(model, backend)
    assert sizes == [4 * config.trainer.training.batch_size, 2 * config.trainer.training.batch_size]
    assert together == pytest.approx(validation(model, EagerBackend(model, config, ALONE.device)), rel=1e-6)


def test_bits_per_byte_count_the_bytes_of_the_predicted_ids(configured, vocabulary):
    config = configured()
    data = open_data(config)
    model = Llama(config.model)
    validation = Validation(data.val, config.trainer.training, ALONE, vocabulary)
    result = validation(model, EagerBackend(model, config, ALONE.device))
    ids = np.concatenate([data.val.batch(0, np.arange(first, first + 3)).ids[:, 1:] for first in (0, 3)])
    bits = result["validation/loss"] * ids.size / math.log(2)
    assert result["validation/bits_per_byte"] == pytest.approx(bits / count_bytes(ids.ravel(), vocabulary), rel=1e-6)


def test_bits_per_byte_of_questions_count_the_bytes_of_the_answers_alone(configured, vocabulary):
    """The windows weigh the same in the loss and in the bytes: a window with few answers counts as much as others."""
    config = configured(
        "trainer.dataset.name=langgame", "trainer.dataset.is_instruction=true", "model.context_window=64"
    )
    data = open_data(config)
    model = Llama(config.model)
    backend = EagerBackend(model, config, ALONE.device)
    result = Validation(data.val, config.trainer.training, ALONE, vocabulary)(model, backend)
    bytes_per_answer_token = []  # of each window
    for first in (0, 3):
        batch = data.val.batch(0, np.arange(first, first + 3))
        for ids, weights in zip(batch.ids[:, 1:], batch.token_weights, strict=True):
            answers = ids[weights > 0]
            assert 0 < len(answers) < len(ids) / 2
            bytes_per_answer_token.append(count_bytes(answers, vocabulary) / len(answers))
    bits = result["validation/loss"] / math.log(2) / np.mean(bytes_per_answer_token)
    assert result["validation/bits_per_byte"] == pytest.approx(bits, rel=1e-5)

    step = TrainingStep(model, config, ALONE, vocabulary=data.vocabulary)
    step(0, prefetch(data.train, [(0, index) for index in step.micro_batches], ALONE.device))
    windows = data.train.batch(0, np.concatenate(step.micro_batches))
    answers = [ids[weights > 0] for ids, weights in zip(windows.ids[:, 1:], windows.token_weights, strict=True)]
    measured = step.metrics()
    bits = measured.loss / math.log(2) / np.mean([count_bytes(ids, vocabulary) / len(ids) for ids in answers])
    assert measured.bits_per_byte == pytest.approx(bits, rel=1e-5)


def test_windows_are_expanded_on_the_fly(configured, vocabulary, data_dir):
    trained = train(configured("trainer.dataset.expand_prop=1.0"), run_name="expanded")
    plain = train(configured(), run_name="plain")
    assert metrics(trained.folder)[1]["train/loss"] != metrics(plain.folder)[1]["train/loss"]
    data = open_data(configured("trainer.dataset.expand_prop=1.0", "model.context_window=64"))
    text = vocabulary.decode_bytes(Corpus(memmap_dir(data_dir) / "sample-tokenized").ids("val"))
    canonical = open_data(configured("model.context_window=64"))
    assert canonical.val_expanded is None
    for row in data.val_expanded.batch(0, np.arange(5)).ids:  # as in an expanded copy, and still the corpus's text
        assert vocabulary.decode_bytes(row) in text
    falling = ("trainer.dataset.expand_prop=1.0", "trainer.dataset.expand_schedule=linear")
    scheduled = open_data(configured(*falling, "model.context_window=64"))
    for iteration in (0, 4):  # only windows of training follow the schedule
        val, train_ids = [
            [drawn.batch(iteration, np.arange(5)).ids for drawn in (getattr(data, kind), getattr(scheduled, kind))]
            for kind in ("val_expanded", "train")
        ]
        assert (val[0] == val[1]).all()
        assert (train_ids[0] == train_ids[1]).all() == (iteration == 0)
    windows = [drawn.batch(0, np.arange(5)).ids for drawn in (canonical.val, data.val, data.val_expanded)]
    assert (windows[0] == windows[1]).all() and (windows[0] != windows[2]).any()
    # Both runs begin with the same weights and are validated on the same windows.
    first, of_plain = metrics(trained.folder)[0], metrics(plain.folder)[0]
    assert {k: v for k, v in first.items() if not k.startswith("validation_expanded/")} == of_plain
    assert set(first) - set(of_plain) == {f"validation_expanded/{k}" for k in ("loss", "perplexity", "bits_per_byte")}
    assert first["validation_expanded/bits_per_byte"] > first["validation/bits_per_byte"]  # more tokens for the text
    log = (trained.folder / "train.log").read_text()
    assert re.search(r"iteration 1  loss \d+\.\d{4}  \d+\.\d{4} bits/byte  lr", log)
    assert re.search(r"validation/perplexity \d,\d{3}  validation/bits_per_byte", log)


def test_instruction_tuning_goes_from_a_checkpoint_and_takes_its_weights(configured, tmp_path):
    parent = train(configured("model.context_window=128"))
    tuning = (
        "trainer.dataset.name=langgame",
        "trainer.dataset.is_instruction=true",
        "general.logging.run_name_prefix=instruction_tuning",
        f"trainer.checkpoint_name={parent.folder.name}",
    )
    seen = []
    child = train(configured(*tuning), listeners=[seen.append])
    assert child.folder.name == "instruction_tuning-langgame-from-pretraining-sample-tokenized"
    notes = [event.text for event in seen if isinstance(event, events.Note)]
    assert notes[1:] == [f"starting from {parent.checkpoint}"]
    assert notes[0].startswith("model.context_window = 128 as in ")  # the checkpoint's model section wins
    assert load_model(child.checkpoint).config.context_window == 128
    first = metrics(child.folder)[0]
    assert first["iteration"] == 0
    created = train(configured(*tuning[:3], "model.context_window=128"), run_name="fresh")
    assert first["validation/loss"] < metrics(created.folder)[0]["validation/loss"]
    assert all(line["train/bits_per_byte"] > 0 for line in metrics(created.folder) if "train/loss" in line)


@pytest.mark.parametrize("key", ["trainer.checkpoint_name", "model.checkpoint_name"])
def test_either_key_names_the_checkpoint_and_a_path_will_do(configured, key):
    parent = train(configured("trainer.training.max_iters=1"), run_name="parent")
    child = train(configured(f"{key}={parent.checkpoint}", "trainer.training.warmup_iters=2"), run_name="child")
    assert metrics(child.folder)[0]["validation/loss"] == metrics(parent.folder)[-1]["validation/loss"]
    assert [start.parent for start in read_starts(child.folder / "starts.jsonl")[0]] == [str(parent.checkpoint)]
    assert f"starting from {parent.checkpoint}\n" in (child.folder / "train.log").read_text()


def test_a_model_that_transformers_saved_can_be_the_start(configured, tmp_path):
    from transformers import LlamaConfig, LlamaForCausalLM

    other = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=2048, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=2, max_position_embeddings=24, tie_word_embeddings=True, rms_norm_eps=1e-6,
        )
    )  # fmt: skip
    other.save_pretrained(tmp_path / "other")
    config = configured(f"trainer.checkpoint_name={tmp_path / 'other'}", "trainer.training.max_iters=1")
    trained = train(config)
    assert trained.folder.name == "pretraining-sample-tokenized-from-other"
    assert load_model(trained.checkpoint).config.hidden_dim == 32
    data = open_data(configured())
    ids = torch.from_numpy(np.concatenate([data.val.batch(0, np.arange(first, first + 3)).ids for first in (0, 3)]))
    with torch.no_grad():
        logits = other(ids[:, :-1]).logits
    loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())
    assert metrics(trained.folder)[0]["validation/loss"] == pytest.approx(loss.item(), rel=1e-5)


def test_the_profiler_writes_a_trace_and_a_table(configured):
    trained = train(configured("trainer.training.run_profiler=true"))
    trace = json.loads((trained.folder / "trace.json").read_text())
    assert trace["traceEvents"]
    assert "Self CPU" in (trained.folder / "train.log").read_text()


def test_tensorboard_shows_the_recorded_metrics_also_after_a_resume(configured):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    options = ("general.logging.tensorboard_log=true", "trainer.training.max_iters")
    train(configured(options[0], f"{options[1]}=4"))
    trained = train(configured(options[0], f"{options[1]}=8"))
    shown = EventAccumulator(str(trained.folder / "tensorboard"))
    shown.Reload()
    for name in ("train/loss", "validation/bits_per_byte"):
        recorded = [(line["iteration"], line[name]) for line in metrics(trained.folder) if name in line]
        assert [(s.step, s.value) for s in shown.Scalars(name)] == [(i, pytest.approx(v)) for i, v in recorded]


@pytest.mark.parametrize("method", ["forward_backward", "loss"])
def test_out_of_memory_says_what_to_lower(configured, monkeypatch, method):
    def too_much(*arguments):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")

    monkeypatch.setattr(f"stochastok_cli.training.backends.EagerBackend.{method}", too_much)
    with pytest.raises(UserError, match="micro-batches of 3 windows and reference kernels; lower .*batch_size") as info:
        train(configured())
    assert info.value.exit_code == FAILED


def test_a_record_without_its_line_end_is_kept_apart_from_the_next(configured, tmp_path):
    folder = train(configured("trainer.training.max_iters=4"), run_name="a").folder
    before = metrics(folder)
    file = folder / "metrics.jsonl"
    file.write_text(file.read_text().rstrip("\n"))
    train(configured("trainer.training.max_iters=8"), run_name="a")
    assert metrics(folder)[: len(before)] == before
    assert metrics(folder)[-1]["iteration"] == 8


def test_a_run_has_one_name_at_weights_and_biases_and_a_new_one_another(tmp_path):
    first = _run_id(tmp_path)
    assert first == _run_id(tmp_path) and first.startswith(f"{tmp_path.name}-")
    (tmp_path / "wandb_id").unlink()  # as in a folder made anew
    assert _run_id(tmp_path) != first


def test_keep_checkpoints(configured):
    options = ("trainer.training.max_iters=12", "trainer.training.checkpoint_interval=2")
    kept = train(configured(*options, "trainer.training.keep_checkpoints=2"), run_name="two")
    assert steps(kept.folder) == ["step_10", "step_12"]  # the last is also the best
    kept = train(configured(*options, "trainer.training.keep_checkpoints=null"), run_name="all")
    assert steps(kept.folder) == [f"step_{n}" for n in range(2, 13, 2)]


def test_a_key_of_the_reference_without_effect_is_noted(configured):
    seen = []
    train(configured("general.paths.output_dir=outputs", "trainer.training.max_iters=1"), listeners=[seen.append])
    assert any("output_dir (outputs) has no effect" in getattr(event, "text", "") for event in seen)


def test_a_renamed_addition_is_evaluated_in_training(configured, tmp_path):
    make_addition(load_vocabulary("sample2k"), tmp_path, num_digits=2, val_fraction=0.01, name="two-digits")
    entry = 'trainer.eval=[{evaluator:"math_generation",addition:two-digits,num_samples:3}]'
    data = ("trainer.dataset.name=two-digits_base", f"general.paths.data_dir={tmp_path}")
    trained = train(configured(entry, *data, "trainer.training.max_iters=1"))
    assert 0 <= metrics(trained.folder)[-1]["math_generation/val/base/exact_match"] <= 1
    with pytest.raises(UserError, match=r"there is no .*digits; run .* or train without it: trainer.eval=\[\]"):
        train(configured(entry.replace("two-digits", "three-digits"), *data), run_name="other")
