"""From text and conversations to a tuned model of `transformers`, by the commands that users type."""

import json
import sys

import numpy as np
import pytest
import torch
import transformers

from stochastok_cli.cli.app import main
from stochastok_cli.data.instruction_dataset import InstructionDataset
from stochastok_cli.data.tokenize_instructions import tokenize_instructions
from stochastok_cli.errors import UserError
from stochastok_cli.tokenization.expansion import StochasTok
from stochastok_cli.tokenization.loaders import load_vocabulary
from stochastok_cli.training.data import _added_names, open_data
from tests.data.chat_tokenizers import save_tokenizer, template
from tests.models.huggingface_families import CONFIGS
from tests.training.runs import metrics, tensors

WORDS = ["house", "river", "understanding", "something", "between"]
CHATS = [
    [
        {"role": "user", "content": f"Spell {word}, please {i}."},
        {"role": "assistant", "content": f"It is {'-'.join(word)}."},
        {"role": "user", "content": "Again?"},
        {"role": "assistant", "content": f"<think>\nno\n</think>\n\n{word}!"},
    ]
    for i in range(12)
    for word in WORDS
]
SMALL = [
    "model.context_window=64",
    *(f"trainer.training.{key}" for key in ("batch_size=2", "gradient_accumulation_steps=2", "warmup_iters=2")),
    *(f"trainer.training.{key}" for key in ("lr_decay_iters=12", "eval_interval=6", "eval_iters=2", "log_interval=1")),
    "trainer.training.checkpoint_interval=6",
    "trainer.optimizer.lr=1e-2",
    "trainer.eval=[]",
    "general.device=cpu",
]


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Runs a command in a folder of its own; returns stdout and stderr of one that succeeds."""
    monkeypatch.chdir(tmp_path)

    def run_command(*arguments: str) -> tuple[str, str]:
        monkeypatch.setattr(sys, "argv", ["stochastok", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        assert ended.value.code == 0, err
        return out, err

    return run_command


def write_chats(folder, chats=CHATS):
    file = folder / "chats.jsonl"
    file.write_text("".join(json.dumps({"messages": messages}) + "\n" for messages in chats))
    return file


@pytest.mark.parametrize(
    ("family", "chat", "config_name"),
    [
        ("qwen3", "qwen3", "instruction_tuning"),
        pytest.param("llama3_tied", "llama3", "chat_tuning", marks=pytest.mark.slow),
    ],
)
def test_continued_pretraining_then_chat_tuning(run, tmp_path, family, chat, config_name):
    torch.manual_seed(0)
    save_tokenizer(tmp_path / "base", template(chat))
    config = CONFIGS[family].__class__(**{**CONFIGS[family].to_dict(), "vocab_size": 2112})
    transformers.AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).save_pretrained(tmp_path / "base")
    write_chats(tmp_path, [*CHATS, CHATS[0][:1]])

    run("tokenize", "sample", "--tokenizer", "base", "--name", "corpus", "--quiet")
    expanded = "trainer.dataset.expand_prop=0.1"
    pretraining = ["trainer.checkpoint_name=base", "trainer.dataset.name=corpus-tokenized", expanded]
    run("train", "--config", "continued_pretraining", *SMALL, "trainer.training.max_iters=6", *pretraining)
    [pretrained] = (folder.name for folder in (tmp_path / "checkpoints").iterdir() if not folder.name.startswith("."))

    made = run(
        "tokenize",
        "chats.jsonl",
        "--messages-column",
        "messages",
        "--tokenizer",
        pretrained,
        "--name",
        "chats",
        "--max-length",
        "64",
        "--json",
    )
    result = json.loads(made[0])
    assert result["left_out"] == {"no turn of an assistant": 1}
    assert f"{result['truncated']} of 61 rows are truncated to 64 ids" in made[1]
    assert "1 of 61 rows is left out: 1 with no turn of an assistant (first chats.jsonl, line 61)" in made[1]
    tuning = [
        "--config",
        config_name,
        *SMALL,
        f"trainer.checkpoint_name={pretrained}",
        "trainer.dataset.name=chats",
        expanded,
    ]
    run("train", *tuning, "trainer.training.max_iters=12", "--run-name", "straight")
    run("train", *tuning, "trainer.training.max_iters=6", "--run-name", "parts")
    run("train", *tuning, "trainer.training.max_iters=12", "--run-name", "parts")
    straight = tmp_path / "checkpoints" / "straight"
    assert tensors(tmp_path / "checkpoints" / "parts" / "step_12") == tensors(straight / "step_12")
    losses = [line["validation/loss"] for line in metrics(straight) if "validation/loss" in line]
    assert losses[-1] < losses[0]

    model = transformers.AutoModelForCausalLM.from_pretrained(straight / "step_12")
    tokenizer = transformers.AutoTokenizer.from_pretrained(straight / "step_12")
    assert tokenizer.chat_template == template(chat)
    prompt = tokenizer.apply_chat_template(
        CHATS[0][:1], add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    answer = model.generate(**prompt, max_new_tokens=4, do_sample=False)[0, prompt["input_ids"].shape[1] :]
    assert len(tokenizer.decode(answer)) > 0


@pytest.fixture(scope="module")
def chats(tmp_path_factory):
    """A data directory with conversations of up to some 60 tokens."""
    folder = tmp_path_factory.mktemp("chats")
    tokenizer = save_tokenizer(folder / "tokenizer", template("chatml"))
    tokenize_instructions(write_chats(folder), messages_column="messages", tokenizer=tokenizer, data_dir=folder)
    return folder


def opened(configured, chats, *overrides):
    vocab_size = load_vocabulary(chats / "tokenizer").size
    return open_data(
        configured(
            "trainer.dataset.name=chats",
            f"general.paths.data_dir={chats}",
            f"model.vocab_size={vocab_size}",
            "model.context_window=90",
            "trainer.dataset.is_instruction=true",
            *overrides,
        )
    )


def test_windows_are_of_whole_conversations_with_losses_of_the_assistant(configured, chats):
    data = opened(configured, chats)
    batch = data.train.batch(0, np.arange(3))
    ids, weights, starts = batch.ids[0], batch.token_weights[0], batch.segment_start[0]
    stop = np.unique(starts)[1]
    text = data.vocabulary.decode(ids[:stop])
    assert text in {"".join(f"<|im_start|>{m['role']}\n{m['content']}<|im_end|>\n" for m in c) for c in CHATS}
    in_loss = data.vocabulary.decode(ids[1:stop][weights[: stop - 1] > 0])
    answers = [m["content"] for c in CHATS for m in c[1::2] if m["content"] in text]
    assert in_loss.count("<|im_end|>") == 2 and all(f"{answer}<|im_end|>" in in_loss for answer in answers[-1:])
    whole = data.train.batch(3, np.arange(8))
    for first in range(0, 8, 2):  # any rank draws the same windows
        np.testing.assert_array_equal(
            data.train.batch(3, np.arange(first, first + 2)).ids, whole.ids[first : first + 2]
        )


@pytest.mark.parametrize("method", ["stochastok", "uniform", "bpe-dropout"])
@pytest.mark.parametrize("where", ["all", "completion"])
def test_tokens_that_mark_parts_are_never_split(configured, chats, method, where):
    """Those that are special, and `<think>`, which is an added token and not special."""
    options = (f"trainer.dataset.expand_{key}" for key in ("prop=0.9", f"method={method}", f"where={where}"))
    data = opened(configured, chats, *options)
    canonical, expanded = data.val.batch(0, np.arange(4)), data.val_expanded.batch(0, np.arange(4))
    vocabulary = data.vocabulary
    think = [i for i in vocabulary.added if "think" in vocabulary.token_text(i)]
    assert len(think) == 2
    for before, after in zip(canonical.ids, expanded.ids, strict=True):
        marks = [i for i in before if i in think or i in vocabulary.special]
        kept = [i for i in after if i in think or i in vocabulary.special]
        assert kept == marks[: len(kept)] and len(kept) > 4
        assert before.tolist() != after.tolist()
        assert vocabulary.decode(before).startswith(vocabulary.decode(after)[:100])
    unkept = StochasTok(vocabulary, 1.0, "uniform")(np.array(think * 5))
    assert len(unkept) > 10 and _added_names(vocabulary) is not None


def test_data_that_do_not_fit_are_refused_with_the_fix(configured, chats):
    with pytest.raises(
        UserError, match="longest example .* set model.context_window to .* or make .* with --max-length"
    ):
        opened(configured, chats, "model.context_window=24")
    with pytest.raises(UserError, match="holds conversations or completions; set trainer.dataset.is_instruction=true"):
        opened(configured, chats, "trainer.dataset.is_instruction=false")
    with pytest.raises(UserError, match="expand_where = 'prompt' must be all: there are prompts with .*is_instruction"):
        opened(configured, chats, "trainer.dataset.is_instruction=false", "trainer.dataset.expand_where=prompt")
    folder = chats / "data_as_memmaps" / "chats"
    longest = int(InstructionDataset(folder).examples("train").length_range()[1])
    made = tokenize_instructions(
        chats / "chats.jsonl",
        messages_column="messages",
        tokenizer=chats / "tokenizer",
        data_dir=chats,
        name="short",
        max_length=24,
        long_examples="truncate",
    )
    assert longest > 24 and made.manifest.truncated == 60
    assert opened(configured, chats, "trainer.dataset.name=short", "model.context_window=24").train.length == 25
