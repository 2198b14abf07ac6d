"""Conversations and completions on disk: what is kept, what is counted, and bad input."""

import json
import shutil
import warnings

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from hub_server import Repo

from stochastok_cli.data.expand import expand
from stochastok_cli.data.instruction_dataset import InstructionDataset, is_instruction_dataset
from stochastok_cli.data.tokenize_instructions import tokenize_instructions
from stochastok_cli.errors import FAILED, USAGE, Notice, UserError
from stochastok_cli.manifest import SplitInfo
from stochastok_cli.random_streams import corpus_permutation
from stochastok_cli.tokenization.loaders import load_vocabulary
from tests.data.chat_tokenizers import save_tokenizer, template
from tests.tokenization.test_rank_files import small_tekken, write_ranks

SAMPLE = load_vocabulary("sample2k")
PAIRS = [(f"Question {i}: naïve <|endoftext|>? ", f" answer{' word' * (i % 5)}") for i in range(40)] + [("", "x")]


def chat(i):
    turns = [
        {"role": "user", "content": f"Question {i}?"},
        {"role": "assistant", "content": f"Answer {i}{' word' * (i % 9)}."},
    ]
    return turns * (1 + i % 3)


CHATS = [chat(i) for i in range(30)]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return save_tokenizer(tmp_path_factory.mktemp("chat"), template("chatml"))


def write(file, rows):
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def make_chats(tmp_path, tokenizer, rows, **options):
    source = write(tmp_path / "chats.jsonl", rows)
    options = {"messages_column": "messages", "tokenizer": tokenizer, "data_dir": tmp_path / "data", **options}
    return tokenize_instructions(source, **options)


def make_pairs(tmp_path, rows, **options):
    source = write(tmp_path / "pairs.jsonl", rows)
    columns = {"prompt_column": "prompt", "completion_column": "completion"}
    return tokenize_instructions(
        source, **{**columns, "tokenizer": "sample2k", "data_dir": tmp_path / "data", **options}
    )


def pairs(texts):
    return [{"prompt": prompt, "completion": completion} for prompt, completion in texts]


def read(folder, split):
    """The examples of a split: ids and losses."""
    dataset = InstructionDataset(folder)
    ends = dataset.ends(split)[:-1]
    return list(zip(np.split(dataset.ids(split), ends), np.split(dataset.loss_mask(split), ends), strict=True))


def test_a_limit_that_leaves_too_few_examples_is_named(tmp_path):
    (tmp_path / "c.jsonl").write_text('{"p": "a", "c": "b"}\n' * 3)
    message = "^--limit 1 reads 1 row of .*c.jsonl, which makes 1 example, too few for .*; raise --limit; "
    with pytest.raises(UserError, match=message):
        tokenize_instructions(
            tmp_path / "c.jsonl", prompt_column="p", completion_column="c", data_dir=tmp_path, num_proc=1, limit=1
        )


def test_prompts_and_completions(tmp_path):
    made = make_pairs(tmp_path, pairs(PAIRS), val_fraction=0.1)
    assert made.path == tmp_path / "data" / "data_as_memmaps" / "pairs"
    assert is_instruction_dataset(made.path)
    order = corpus_permutation(len(PAIRS), 489)
    for split, chosen in (("val", order[:5]), ("train", order[5:])):
        examples = read(made.path, split)
        for (ids, loss_mask), i in zip(examples, chosen, strict=True):
            prompt, completion = PAIRS[i]
            assert ids.tolist() == [*SAMPLE.encode(prompt), *SAMPLE.encode(completion), SAMPLE.end_of_text]
            assert SAMPLE.decode(ids[loss_mask == 0]) == prompt
            assert SAMPLE.decode(ids[loss_mask == 1]) == f"{completion}<|endoftext|>"
        assert made.manifest.splits[split] == SplitInfo(len(examples), sum(len(ids) for ids, _ in examples))
    assert sorted(f.name for f in made.path.iterdir()) == sorted(
        [f"{split}_{part}.bin" for split in ("train", "val") for part in ("ids", "loss_mask", "ends")]
        + ["manifest.json"]
    )
    assert not make_pairs(tmp_path, pairs(PAIRS), val_fraction=0.1).created


def test_conversations_need_neither_their_source_nor_their_tokenizer_again(tmp_path, tokenizer):
    folder = shutil.copytree(tokenizer, tmp_path / "tokenizer")
    made = make_chats(tmp_path, folder, [{"messages": messages} for messages in CHATS], name="talk", val_fraction=0.1)
    shutil.rmtree(folder)
    dataset = InstructionDataset(made.path)
    assert dataset.vocabulary.fingerprint == made.manifest.tokenizer.fingerprint
    assert dataset.vocabulary.name == str(folder)
    assert (made.path / "tokenizer" / "chat_template.jinja").read_text() == template("chatml")
    order = corpus_permutation(len(CHATS), 489)
    for (ids, loss_mask), i in zip(read(made.path, "val"), order[:3], strict=True):
        text = "".join(f"<|im_start|>{m['role']}\n{m['content']}<|im_end|>\n" for m in CHATS[i])
        assert dataset.vocabulary.decode(ids) == text
        answers = "".join(f"{m['content']}<|im_end|>" for m in CHATS[i][1::2])
        assert dataset.vocabulary.decode(ids[loss_mask == 1]) == answers


@pytest.mark.parametrize(
    "name", ["a.tiktoken?pattern=gpt2", "a.tiktoken?end_of_text=<|x|>&pattern=qwen", "tekken.json"]
)
@pytest.mark.parametrize("in_folder", [False, True])
def test_a_tokenizer_in_another_format_is_found_again_by_its_name(tmp_path, name, in_folder):
    (tmp_path / "t").mkdir()
    write_ranks(tmp_path / "t" / "a.tiktoken")
    if name == "tekken.json":
        (tmp_path / "t" / "a.tiktoken").unlink()
        (tmp_path / "t" / name).write_text(json.dumps(small_tekken()))
    chosen = f"{tmp_path}/t{name.removeprefix('a.tiktoken').removeprefix('tekken.json') if in_folder else '/' + name}"
    made = make_pairs(tmp_path, pairs(PAIRS), tokenizer=chosen)
    vocabulary = InstructionDataset(made.path).vocabulary
    assert vocabulary.name == made.manifest.tokenizer.name == chosen
    ids, loss_mask = next(iter(read(made.path, "train")))
    assert vocabulary.decode(ids[loss_mask == 1]).endswith(vocabulary.token_text(vocabulary.end_of_text))
    assert not (made.path / "tokenizer").exists()


@pytest.mark.parametrize("file", ["", "/tokenizer.json"])
def test_another_end_of_text_is_that_of_the_dataset(tmp_path, tokenizer, file):
    folder = shutil.copytree(tokenizer, tmp_path / "tokenizer")
    chosen = f"{folder}{file}?end_of_text=<|im_start|>"
    made = make_pairs(tmp_path, pairs(PAIRS), tokenizer=chosen)
    shutil.rmtree(folder)
    vocabulary = InstructionDataset(made.path).vocabulary
    assert vocabulary.name == chosen
    assert vocabulary.token_text(vocabulary.end_of_text) == "<|im_start|>"


def test_every_source_gives_the_same_examples(tmp_path, tokenizer, hub_server):
    """Tables have all keys in all rows, where JSON objects leave them out."""
    rows = [{"messages": messages, "id": i} for i, messages in enumerate(CHATS)]
    rows[3]["messages"] = [{**message, "name": "me"} for message in rows[3]["messages"]]
    expected = make_chats(tmp_path, tokenizer, rows, name="jsonl")
    table = pa.Table.from_pylist(rows)
    pyarrow.parquet.write_table(table, tmp_path / "chats.parquet")
    hub_server.add_dataset("anyone/chats", {"train.parquet": (tmp_path / "chats.parquet").read_bytes()})
    for source, name in ((tmp_path / "chats.parquet", "parquet"), ("anyone/chats", "hub")):
        made = tokenize_instructions(
            source, messages_column="messages", tokenizer=tokenizer, data_dir=tmp_path / "data", name=name
        )
        assert made.manifest.fingerprint == expected.manifest.fingerprint
    columns = pa.table({"q": [p for p, _ in PAIRS], "a": [c for _, c in PAIRS]})
    pyarrow.parquet.write_table(columns, tmp_path / "pairs.parquet")
    hub_server.add_dataset("anyone/pairs", {"train.parquet": (tmp_path / "pairs.parquet").read_bytes()})
    options = {"prompt_column": "q", "completion_column": "a", "tokenizer": "sample2k", "data_dir": tmp_path / "data"}
    assert (
        tokenize_instructions("anyone/pairs", name="hub-pairs", **options).manifest.fingerprint
        == make_pairs(tmp_path, pairs(PAIRS)).manifest.fingerprint
    )


@pytest.mark.parametrize("long_examples", ["truncate", "drop"])
def test_long_examples_are_counted(tmp_path, long_examples):
    lengths = [len(SAMPLE.encode(p)) + len(SAMPLE.encode(c)) + 1 for p, c in PAIRS]
    prompts = [len(SAMPLE.encode(p)) for p, _ in PAIRS]
    most = 27
    long = [n > most for n in lengths]
    assert 0 < sum(long) < len(PAIRS)
    rows = [*PAIRS, ("word " * 30, "never seen")]
    with pytest.warns(Notice) as notices:
        made = make_pairs(tmp_path, pairs(rows), max_length=most, long_examples=long_examples, val_fraction=0.1)
    where = tmp_path / "pairs.jsonl"
    if long_examples == "drop":
        assert made.manifest.left_out == {"more than 27 ids": sum(long) + 1}
        assert made.manifest.truncated is None
        first = long.index(True) + 1
        expected = [
            f"{sum(long) + 1} of 42 rows are left out: {sum(long) + 1} with more than 27 ids "
            f"(first {where}, line {first})"
        ]
    else:
        assert max(prompts) < most
        assert made.manifest.left_out == {"no token with a loss among its first 27 ids": 1}
        assert made.manifest.truncated == sum(long)
        expected = [
            f"1 of 42 rows is left out: 1 with no token with a loss among its first 27 ids (first {where}, line 42)",
            f"{sum(long)} of 42 rows are truncated to 27 ids",
        ]
    assert [str(notice.message) for notice in notices] == expected
    examples = [ids for split in ("train", "val") for ids, _ in read(made.path, split)]
    assert max(map(len, examples)) <= most
    assert len(examples) == 42 - sum(made.manifest.left_out.values())
    tree = json.loads((made.path / "manifest.json").read_text())
    assert tree["left_out"] == made.manifest.left_out
    assert tree.get("truncated") == made.manifest.truncated
    assert tree["options"]["max_length"] == most


def test_conversations_that_are_no_examples_are_counted_by_reason(tmp_path, tokenizer):
    rows = [{"messages": messages} for messages in CHATS]
    rows[4]["messages"] = rows[9]["messages"] = chat(0)[:1]
    rows[7]["messages"] = [{"role": "user", "content": ["no text"]}, {"role": "assistant", "content": "y"}]
    with pytest.warns(
        Notice, match=r"3 of 30 rows are left out: 2 with no turn of an assistant \(first .*, line 5\); 1 w"
    ):
        made = make_chats(tmp_path, tokenizer, rows)
    assert [*made.manifest.left_out.values()] == [2, 1]
    assert sum(split.documents for split in made.manifest.splits.values()) == 27
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not make_chats(tmp_path, tokenizer, rows).created


@pytest.mark.parametrize(
    ("rows", "message", "code"),
    [
        ([{"massages": chat(1)}], "line 1: there is no column 'messages'; did you mean 'massages'", USAGE),
        ([{"messages": "hello"}], "line 1: 'messages' holds 'hello', no list of messages", FAILED),
        ([{"messages": ["hello"]}], "no list of messages", FAILED),
        ([{"messages": [{"from": "human", "value": "x"}]}], "message 1 has no role, .*rename `from` to `role`", FAILED),
        ([{"messages": chat(1)}, {"messages": [{"role": "user", "content": "\ud800"}]}], "line 2: .*surrogate", FAILED),
        (
            [{"messages": chat(1)[:1]}] * 3,
            r"holds 0 examples \(3 of 3 rows are left out: 3 with no turn of an assistant \(first .*line 1",
            USAGE,
        ),
        ([{"messages": chat(1)}], r"holds 1 example, too few", USAGE),
        ([], r"is empty: it has no rows", USAGE),
    ],
)
def test_bad_conversations_are_one_line_and_leave_nothing(tmp_path, tokenizer, rows, message, code):
    with pytest.raises(UserError, match=message) as raised:
        make_chats(tmp_path, tokenizer, rows)
    assert raised.value.exit_code == code
    assert not list((tmp_path / "data").rglob("*.bin"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"completion_column": None}, "give --messages-column, or --prompt-column and --completion-column"),
        ({"messages_column": "messages"}, "give --messages-column, or --prompt-column and --completion-column"),
        ({"completion_column": "answer"}, "there is no column 'answer'.*with --completion-column"),
        ({"max_length": 1}, "the largest length of an example is 1"),
        ({"long_examples": "keep"}, "--long-examples 'keep' is not known; give truncate or drop"),
        ({"val_fraction": 1.0}, "the share of validation documents is 1.0"),
    ],
)
def test_bad_options(tmp_path, options, message):
    with pytest.raises(UserError, match=message):
        make_pairs(tmp_path, pairs(PAIRS), **options)


def test_lists_and_text_files_are_no_completions(tmp_path):
    with pytest.raises(UserError, match="'completion' holds a list, not text; conversations are .*--messages-column"):
        make_pairs(tmp_path, [{"prompt": "x", "completion": [{"role": "assistant", "content": "y"}]}])
    (tmp_path / "text.txt").write_text("some text")
    with pytest.raises(UserError, match="text.txt has no columns; --messages-column takes rows of .jsonl"):
        tokenize_instructions(
            tmp_path / "text.txt", messages_column="m", tokenizer=save_tokenizer(tmp_path / "t", "{}")
        )


def test_damage_is_named(tmp_path):
    made = make_pairs(tmp_path, pairs(PAIRS))
    manifest = json.loads((made.path / "manifest.json").read_text())
    file = made.path / "train_loss_mask.bin"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(UserError, match="train_loss_mask.bin has"):
        InstructionDataset(made.path)
    (made.path / "manifest.json").write_text(json.dumps({**manifest, "files": {}}))
    with pytest.raises(UserError, match="train_loss_mask.bin is damaged: it has .* entries, and its examples"):
        InstructionDataset(made.path).examples("train")


def test_a_tokenizer_on_the_hub_comes_with_its_template(tmp_path, tokenizer, hub_server):
    """`OWNER/NAME` and `OWNER/NAME@REVISION`, which the manifest names."""
    hub_server.repos["models/anyone/chat"] = repo = Repo()
    repo.commit({file.name: file.read_bytes() for file in tokenizer.iterdir()})
    rows = [{"messages": messages} for messages in CHATS]
    expected = make_chats(tmp_path, tokenizer, rows)
    for name in ("anyone/chat", f"anyone/chat@{repo.head}"):
        made = make_chats(tmp_path, name, rows, name=name.replace("/", "-"))
        assert made.manifest.fingerprint == expected.manifest.fingerprint
        assert made.manifest.tokenizer.name == name
        assert load_vocabulary(name).fingerprint == made.manifest.tokenizer.fingerprint


def test_another_template_is_another_option(tmp_path, tokenizer):
    rows = [{"messages": messages} for messages in CHATS]
    make_chats(tmp_path, tokenizer, rows)
    other = save_tokenizer(tmp_path / "other", template("llama3"))
    with pytest.raises(UserError, match=r"exists, made with other options: chat_template .*--force makes it again"):
        make_chats(tmp_path, other, rows)


def test_examples_are_not_expanded_on_disk(tmp_path):
    made = make_pairs(tmp_path, pairs(PAIRS))
    with pytest.raises(UserError, match="holds conversations or completions, .*; set trainer.dataset.expand_prop"):
        expand(made.path)
