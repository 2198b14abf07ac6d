"""Pull and push with the real `huggingface_hub` and `datasets` clients, against a Hub on 127.0.0.1."""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import huggingface_hub
import hypothesis.strategies as st
import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import yaml
from hub_server import TOKEN, USER, HubServer
from hypothesis import HealthCheck, given, settings

from stochastok_cli import hub
from stochastok_cli.errors import FAILED, USAGE, UserError
from stochastok_cli.hub import cards, parquet_files
from stochastok_cli.manifest import Manifest

RETRY_COMMAND = "stochastok tokenize sample --push"


@pytest.fixture
def no_waiting(monkeypatch):
    """Retries wait for a moment only."""
    sleep = time.sleep
    monkeypatch.setattr(time, "sleep", lambda seconds: sleep(min(seconds, 0.001)))


def documents(count: int, seed: int = 0, dtype: str = "uint16") -> list[np.ndarray]:
    random = np.random.default_rng(seed)
    return [random.integers(0, 50257, random.integers(1, 40), dtype=np.dtype(dtype)) for _ in range(count)]


def batches(docs: list[np.ndarray], size: int = 7):
    """A function that starts the iteration over the documents, `size` at a time, as a corpus gives them."""

    def start():
        for first in range(0, len(docs), size):
            some = docs[first : first + size]
            yield np.concatenate(some), np.array([len(ids) for ids in some])

    return start


def manifest_of(corpus: dict[str, list[np.ndarray]], dtype: str = "uint16", **more) -> Manifest:
    tree = {
        "format": 1,
        "kind": "tokenized",
        "tokenizer": {"name": "gpt2", "fingerprint": "0123abcd", "size": 50257},
        "dtype": dtype,
        "end_of_text": 50256,
        "splits": {name: {"documents": len(d), "tokens": sum(map(len, d))} for name, d in corpus.items()},
        "made_from": {"name": "someone/texts", "fingerprint": "4567cdef"},
        "options": {"seed": 489},
        "made_by": {"version": "0.1.0", "command": "stochastok tokenize someone/texts"},
        **more,
    }
    return Manifest.from_json(tree)


def push(name: str, corpus: dict[str, list[np.ndarray]], *, size: int = 7, dtype: str = "uint16", **options):
    splits = {split: batches(docs, size) for split, docs in corpus.items()}
    return hub.push_corpus(f"{USER}/{name}", splits, manifest_of(corpus, dtype), retry_command=RETRY_COMMAND, **options)


def pulled(dataset: hub.HubDataset, split: str) -> list[list[int]]:
    return [part.tolist() for ids, lengths in dataset.ids(split) for part in np.split(ids, np.cumsum(lengths)[:-1])]


def as_lists(docs: list[np.ndarray]) -> list[list[int]]:
    return [ids.tolist() for ids in docs]


def parquet(**columns) -> bytes:
    sink = pyarrow.BufferOutputStream()
    pyarrow.parquet.write_table(pyarrow.table(columns), sink)
    return sink.getvalue().to_pybytes()


def run_python(code: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess:
    """Another process, in which a UserError is printed with its exit code, and in which nothing may wait (`sleep`)."""
    wrapped = (
        "from stochastok_cli import hub\nfrom stochastok_cli.errors import UserError\nimport sys, time\n"
        f"time.sleep = None\ntry:\n    {code}"
    )
    wrapped += "\nexcept UserError as error:\n    print(error.exit_code, error)\n"
    return subprocess.run(
        [sys.executable, "-c", wrapped, *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
    )


SMALL = {"train": documents(30), "val": documents(4, seed=1)}


# ------------------------------------------------------------------------------------------------ round trips


counter = iter(range(10**6))


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_what_was_pushed_is_pulled(hub_server: HubServer, data):
    dtype = data.draw(st.sampled_from(["uint16", "uint32"]))
    largest = 65535 if dtype == "uint16" else 2**32 - 1
    lists = st.lists(st.lists(st.integers(0, largest), max_size=20), min_size=1, max_size=30)
    corpus = {
        split: [np.array(ids, dtype) for ids in data.draw(lists)]
        for split in data.draw(st.sampled_from([("train", "val"), ("val",)]))
    }
    name = f"round-trip-{next(counter)}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parquet_files, "ROW_GROUP_TOKENS", data.draw(st.integers(1, 200)))
        patch.setattr(parquet_files, "SHARD_ROW_GROUPS", data.draw(st.integers(1, 4)))
        push(name, corpus, size=data.draw(st.integers(1, 40)), dtype=dtype)
    dataset = hub.stream_ids(f"{USER}/{name}")
    assert set(dataset.splits) == set(corpus)
    assert dataset.manifest == manifest_of(corpus, dtype)
    for split, docs in corpus.items():
        assert pulled(dataset, split) == as_lists(docs)
        assert {ids.dtype for ids, _ in dataset.ids(split)} == {np.dtype(dtype)}
        assert dataset.num_rows(split) == len(docs)


def test_a_pushed_corpus_loads_with_plain_datasets(hub_server):
    import datasets

    url, revision = push("plain", SMALL)
    assert url == f"{hub_server.url}/datasets/{USER}/plain"
    assert revision == hub_server.dataset(f"{USER}/plain").head
    loaded = datasets.load_dataset(f"{USER}/plain")
    assert set(loaded) == {"train", "val"}
    for split, docs in SMALL.items():
        assert loaded[split].column_names == ["ids", "len"]
        assert loaded[split]["ids"] == as_lists(docs)
        assert loaded[split]["len"] == [len(ids) for ids in docs]
    streamed = datasets.load_dataset(f"{USER}/plain", split="val", streaming=True)
    assert [row["ids"] for row in streamed] == as_lists(SMALL["val"])


def test_a_dataset_pushed_by_datasets_is_pulled(hub_server):
    """As the published corpora were: int64 ids, no manifest of ours."""
    import datasets

    rows = {split: {"ids": as_lists(docs), "len": [len(ids) for ids in docs]} for split, docs in SMALL.items()}
    datasets.DatasetDict({s: datasets.Dataset.from_dict(r) for s, r in rows.items()}).push_to_hub(f"{USER}/theirs")
    dataset = hub.stream_ids(f"{USER}/theirs")
    assert dataset.manifest is None
    assert dataset.num_rows("train") == 30
    assert pulled(dataset, "train") == as_lists(SMALL["train"])
    assert pulled(dataset, "val") == as_lists(SMALL["val"])


def test_ids_are_pulled_from_other_formats_too(hub_server):
    rows = "\n".join(json.dumps({"ids": ids, "note": "x"}) for ids in as_lists(SMALL["val"]))
    hub_server.add_dataset("anyone/lines", {"train.jsonl": rows.encode(), "manifest.json": b'{"name": "not ours"}'})
    dataset = hub.stream_ids("anyone/lines")
    assert dataset.splits == ("train",)
    assert dataset.manifest is None
    assert dataset.num_rows("train") is None
    assert pulled(dataset, "train") == as_lists(SMALL["val"])


def test_the_pushed_bytes_depend_on_the_documents_only(hub_server, monkeypatch):
    monkeypatch.setattr(parquet_files, "ROW_GROUP_TOKENS", 50)
    monkeypatch.setattr(parquet_files, "SHARD_ROW_GROUPS", 3)
    push("bytes-a", SMALL, size=1)
    push("bytes-b", SMALL, size=1000)
    a, b = (hub_server.dataset(f"{USER}/bytes-{x}").files for x in "ab")
    names = [path for path in a if path.endswith(".parquet")]
    assert len(names) > 4
    assert all(re.fullmatch(r"data/(train|val)-\d{5}-of-\d{5}\.parquet", path) for path in names)
    assert {path: a[path] for path in names} == {path: b[path] for path in names}


def test_one_shard_at_a_time_lies_on_the_disk(hub_server, monkeypatch, tmp_path):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HOME", str(tmp_path))
    monkeypatch.setattr(parquet_files, "ROW_GROUP_TOKENS", 20)
    monkeypatch.setattr(parquet_files, "SHARD_ROW_GROUPS", 2)
    monkeypatch.setattr(parquet_files, "SMALL_FILE", 0)  # nothing is small enough to be kept in memory
    seen = []
    push(
        "disk",
        SMALL,
        progress=lambda what, done, total: seen.append((what, done, total, len([*tmp_path.rglob("*.parquet")]))),
    )
    assert max(files for *_, files in seen) == 1
    assert seen[-1][:3] == ("push val", 4, 4)
    assert [file.name for file in tmp_path.rglob("*")] == ["stochastok", ".lock"]
    assert pulled(hub.stream_ids(f"{USER}/disk"), "train") == as_lists(SMALL["train"])


def test_an_empty_split_is_left_out(hub_server):
    import datasets

    push("no-val", {"train": SMALL["train"], "val": []})
    assert hub.stream_ids(f"{USER}/no-val").splits == ("train",)
    assert set(datasets.load_dataset(f"{USER}/no-val")) == {"train"}


def test_a_second_push_replaces_the_first_and_its_revision_stays(hub_server, monkeypatch):
    monkeypatch.setattr(parquet_files, "ROW_GROUP_TOKENS", 20)
    monkeypatch.setattr(parquet_files, "SHARD_ROW_GROUPS", 2)
    repo = f"{USER}/twice"
    first = push("twice", SMALL)
    second = push("twice", {"train": SMALL["val"], "val": SMALL["val"]})
    names = [path for path in hub_server.dataset(repo).files if path.startswith("data/train")]
    assert all(path.endswith(f"of-{len(names):05d}.parquet") for path in names)
    newest = hub.stream_ids(repo)
    assert newest.revision == second.revision
    assert pulled(newest, "train") == as_lists(SMALL["val"])
    pinned = hub.stream_ids(repo, first.revision[:10])
    assert pinned.revision == first.revision
    assert pinned.manifest == manifest_of(SMALL)
    assert pulled(pinned, "train") == as_lists(SMALL["train"])


# ------------------------------------------------------------------------------------------------ folders


def test_a_folder_of_questions_is_pushed_as_it_is(hub_server, tmp_path):
    import datasets

    (tmp_path / "bins").mkdir()
    (tmp_path / "bins" / "train_data.bin").write_bytes(bytes(range(256)) * 20)
    (tmp_path / "bins" / "manifest.json").write_text("{}")
    (tmp_path / "bins" / ".lock").write_text("")
    questions = {"question": ["Which?", "What?"], "options": [["a", "b"], ["c", "d"]]}
    saved = datasets.DatasetDict({split: datasets.Dataset.from_dict(questions) for split in ("train", "val")})
    saved.save_to_disk(tmp_path / "saved")
    data_files = {split: f"evaluation/{split}/*.arrow" for split in ("train", "val")}
    manifest = manifest_of({}, kind="langgame", splits={"train": {"documents": 2}})
    card = cards.dataset_card(f"{USER}/game", manifest, about="A game.", use="Play it.", data_files=data_files)
    contents = {"": tmp_path / "bins", "evaluation": tmp_path / "saved"}
    url, _ = hub.push_folder(f"{USER}/game", contents, card=card, retry_command=RETRY_COMMAND)
    assert url.endswith(f"/datasets/{USER}/game")
    files = hub_server.dataset(f"{USER}/game").files
    assert files["train_data.bin"] == bytes(range(256)) * 20
    assert "train_data.bin" in hub_server.dataset(f"{USER}/game").lfs_paths
    assert not any(".lock" in path for path in files)
    loaded = datasets.load_dataset(f"{USER}/game")
    assert loaded["val"].to_dict() == questions
    assert hub.load_rows(f"{USER}/game", split="train")[1] == {"question": "What?", "options": ["c", "d"]}


def test_a_model_is_pushed_with_its_card(hub_server, tmp_path):
    from huggingface_hub import snapshot_download

    (tmp_path / "step_10").mkdir()
    (tmp_path / "step_10" / "model.safetensors").write_bytes(b"weights" * 1000)
    (tmp_path / "step_10" / "config.json").write_text("{}")
    (tmp_path / "step_10" / "README.md").write_text("old")
    (tmp_path / "config.yaml").write_text("seed: 0\n")
    card = cards.model_card(
        f"{USER}/model",
        config_yaml="seed: 0\n",
        metrics={"bits_per_byte/sample": 2.5},
        command="stochastok train",
        made_from="sample",
    )
    contents = {"": tmp_path / "step_10", "run/config.yaml": tmp_path / "config.yaml"}
    seen = []
    pushed = hub.push_folder(
        f"{USER}/model",
        contents,
        card=card,
        retry_command=RETRY_COMMAND,
        repo_type="model",
        progress=lambda *state: seen.append(state),
    )
    assert pushed.url == f"{hub_server.url}/{USER}/model"
    assert seen[-1] == ("push", 3, 3)
    local = Path(snapshot_download(f"{USER}/model", revision=pushed.revision))
    assert (local / "model.safetensors").read_bytes() == b"weights" * 1000
    assert (local / "run" / "config.yaml").read_text() == "seed: 0\n"
    assert (local / "README.md").read_text() == card
    assert "| bits_per_byte/sample | 2.5 |" in card
    assert yaml.safe_load(card.split("---")[1])["library_name"] == "transformers"


def test_the_card_of_a_corpus_says_what_it_is():
    options = {"method": "stochastok", "p": 0.1, "seed": 7, "source": "4567cdef"}
    made_from = {"name": "owt-tokenized", "fingerprint": "4567cdef"}
    card = cards.corpus_card(f"{USER}/x", manifest_of(SMALL, options=options, made_from=made_from), "cc0-1.0")
    front = yaml.safe_load(card.split("---\n")[1])
    assert front["license"] == "cc0-1.0"
    assert front["configs"][0]["data_files"] == [{"split": s, "path": f"data/{s}-*"} for s in ("train", "val")]
    train_tokens = sum(map(len, SMALL["train"]))
    for fact in ("owt-tokenized", "`gpt2`", "`stochastok`, p = 0.1, seed 7", f"30 documents, {train_tokens:,} tokens"):
        assert fact in card
    assert f"stochastok expand owt-tokenized -p 0.1 --method stochastok --pull --repo {USER}/x" in card
    assert f"load_dataset('{USER}/x')" in card
    assert f"""load_dataset('{USER}/x')["val"][0]""" in card
    assert "not known" in cards.corpus_card(f"{USER}/x", manifest_of(SMALL))


def test_the_card_of_a_corpus_without_validation_documents_loads_another_split():
    card = cards.corpus_card(f"{USER}/x", manifest_of({"train": SMALL["train"], "val": []}))
    assert f"""load_dataset('{USER}/x')["train"][0]""" in card and '["val"]' not in card
    assert yaml.safe_load(card.split("---\n")[1])["configs"][0]["data_files"] == [
        {"split": "train", "path": "data/train-*"}
    ]


def test_the_card_of_a_model_says_which_it_is():
    def first_line(**model):
        card = cards.model_card(f"{USER}/m", config_yaml="seed: 0\n", metrics={}, command="x", made_from="d", **model)
        return card.split(cards.BEGIN)[1].strip().splitlines()[0]

    assert first_line(model_type="gpt2") == "A `gpt2` language model trained with `stochastok` on `d`."
    assert first_line() == "A language model trained with `stochastok` on `d`."
    assert first_line(base_model="o/n") == "An adapter (LoRA) of `o/n` trained with `stochastok` on `d`."


# ------------------------------------------------------------------------------------------------ text


def test_text_streams_from_parquet_and_from_lines(hub_server):
    texts = [f"text {i}" for i in range(600)]
    hub_server.add_dataset("anyone/texts", {"data/train-0.parquet": parquet(text=texts, more=texts)})
    hub_server.add_dataset("anyone/json", {"validation.jsonl": b'{"story": "one"}\n{"story": "two"}\n'})
    rows = hub.load_text_dataset("anyone/texts")
    assert [text for _, (text,) in rows.rows()] == texts
    assert (rows.files, rows.total, rows.revision) == (None, 0, hub_server.dataset("anyone/texts").head)
    rows = hub.load_text_dataset("anyone/json", "story", split="validation")
    assert [text for _, (text,) in rows.rows()] == ["one", "two"]


@pytest.mark.parametrize("kind", ["parquet", "jsonl"])
def test_several_columns_are_read_from_one_download(hub_server, kind):
    """Columns inside of a struct, one that is named twice, and files whose columns have another order."""
    repo = f"anyone/columns-of-{kind}"
    number = range(600)
    files = [
        {"a": [f"a{i}" for i in number], "meta": [{"b": i, "c": [i]} for i in number], "more": [0] * 600},
        {"meta": [{"b": -1, "c": []}], "a": [None], "more": [1]},
    ]
    contents = {}
    for i, columns in enumerate(files):
        rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
        lines = "".join(json.dumps(row) + "\n" for row in rows).encode()
        contents[f"train-{i}.{kind}"] = parquet(**columns) if kind == "parquet" else lines
    hub_server.add_dataset(repo, contents)
    values = hub.load_columns(repo, ["meta.c", "a", "meta.b", "a"])
    hub_server.requests.clear()
    expected = [((f"train-0.{kind} of {repo}"), ([i], f"a{i}", i, f"a{i}")) for i in number]
    assert list(values.rows()) == [*expected, (f"train-1.{kind} of {repo}", ([], None, -1, None))]
    for path in contents:
        assert len(hub_server.requests_like(f"^GET .*/resolve/.*{path}")) == 1


SCRIPT = b"raise SystemExit('somebody\\'s code was run')"


def add_scripted(hub_server, name, subsets, split="train"):
    """A dataset that a script of its own loads, and what the Hub has made of it."""
    repo = hub_server.add_dataset(name, {f"{name.split('/')[-1]}.py": SCRIPT, "README.md": b"---\nlicense: mit\n---\n"})
    converted = {}
    for subset, columns in subsets.items():
        sink = pyarrow.BufferOutputStream()
        pyarrow.parquet.write_table(pyarrow.table(columns), sink)
        converted[f"{subset}/{split}/0000.parquet"] = sink.getvalue().to_pybytes()
    if converted:
        repo.commit_to("refs/convert/parquet", converted)


def test_what_only_a_script_loads_is_taken_as_the_hub_has_converted_it(hub_server):
    add_scripted(hub_server, "anyone/books", {"plain_text": {"text": ["a", "b"]}})
    rows = hub.load_text_dataset("anyone/books")
    assert (list(rows.rows()), rows.revision) == (
        [("plain_text/train/0000.parquet of anyone/books", (text,)) for text in ("a", "b")],
        hub_server.dataset("anyone/books").refs["refs/convert/parquet"],
    )
    assert rows.license == "mit"
    add_scripted(hub_server, "anyone/two", {"en": {"text": ["a"]}, "de": {"text": ["b"]}})
    assert [text for _, (text,) in hub.load_text_dataset("anyone/two", subset="de").rows()] == ["b"]
    add_scripted(hub_server, "anyone/ids", {"default": {"ids": [[1, 2]]}, "other": {"ids": [[3]]}})
    assert list(next(hub.stream_ids("anyone/ids").ids("train"))[0]) == [1, 2]
    assert list(next(hub.stream_ids("anyone/ids", subset="other").ids("train"))[0]) == [3]


def test_the_name_of_a_converted_subset_is_no_pattern(hub_server):
    add_scripted(hub_server, "anyone/brackets", {"zh[tw]": {"text": ["a"]}, "zht": {"text": ["b"]}})
    assert hub.load_rows("anyone/brackets", subset="zh[tw]", split="train")["text"][:] == ["a"]


@pytest.mark.parametrize(
    ("action", "message"),
    [
        (lambda: hub.load_text_dataset("anyone/two"), "has several subsets; there are: de, en"),
        (
            lambda: hub.load_text_dataset("anyone/two", subset="fn"),
            "no subset 'fn'; did you mean 'en'?; there are: de, en",
        ),
        (lambda: hub.load_text_dataset("anyone/old"), "is loaded by a script of its own, which is not run; download"),
        (lambda: hub.stream_ids("anyone/two", "main"), "is loaded by a script of its own"),
        (lambda: hub.load_rows("anyone/old", split="train"), "is loaded by a script of its own"),
        (lambda: hub.load_rows("anyone/two", subset="en", split="val"), "anyone/two has no split 'val'"),
        (lambda: hub.load_text_dataset("anyone/large"), "is loaded by a script of its own"),
    ],
)
def test_what_only_a_script_loads_may_not_be_had(hub_server, action, message):
    add_scripted(hub_server, "anyone/two", {"en": {"text": ["a"]}, "de": {"text": ["b"]}})
    add_scripted(hub_server, "anyone/old", {})
    add_scripted(hub_server, "anyone/large", {"plain": {"text": ["the beginning"]}}, split="partial-train")
    with pytest.raises(UserError, match=re.escape(message)) as info:
        action()
    assert info.value.exit_code == USAGE


def test_the_license_of_a_source_is_known(hub_server):
    hub_server.add_dataset(
        "anyone/free", {"README.md": b"---\nlicense: cc0-1.0\n---\n", "train.jsonl": b'{"ids": [1], "text": "a"}\n'}
    )
    hub_server.add_dataset("anyone/unfree", {"train.jsonl": b'{"ids": [1], "text": "a"}\n'})
    for repo, license in (("anyone/free", "cc0-1.0"), ("anyone/unfree", None)):
        assert hub.stream_ids(repo).license == license
        assert hub.load_columns(repo, ["ids"]).license == license
        assert hub.load_text_dataset(repo, "text").license == license


# ------------------------------------------------------------------------------------------------ wrong use


def pull_all(repo: str, revision: str | None = None):
    dataset = hub.stream_ids(repo, revision)
    return [pulled(dataset, split) for split in dataset.splits]


WRONG = [
    (lambda: pull_all("anyone/absent"), USAGE, "no repository anyone/absent is found"),
    (lambda: pull_all("other/secret"), USAGE, "it is private and this token does not open it"),
    (lambda: pull_all("other/gated"), FAILED, "access to other/gated must be asked for"),
    (lambda: pull_all("not a name"), USAGE, "'not a name' is not a name of a repository"),
    (lambda: pull_all("anyone/text", "v9"), USAGE, "anyone/text on the Hub has no revision 'v9'"),
    (lambda: pull_all("anyone/text"), USAGE, "no column 'ids' in train; there are: text, len"),
    (lambda: pull_all("anyone/floats"), USAGE, "column 'ids' of anyone/floats (train) holds list<element: double>"),
    (lambda: pull_all("anyone/flat"), USAGE, "column 'ids' of anyone/flat (train) holds int64"),
    (lambda: pull_all("anyone/gaps"), USAGE, "ids are missing in rows 0 to 2 of train"),
    (lambda: pull_all("anyone/damaged"), FAILED, "anyone/damaged on the Hub can't be read: "),
    (lambda: pull_all("anyone/nothing"), FAILED, "anyone/nothing on the Hub can't be read: "),
    (lambda: hub.load_text_dataset("anyone/text", "txet"), USAGE, "no column 'txet' in train; did you mean 'text'?"),
    (lambda: hub.load_text_dataset("anyone/text", "len"), USAGE, "column 'len' of anyone/text holds int64, not text"),
    (lambda: hub.load_text_dataset("anyone/text", split="tain"), USAGE, "no split 'tain'; did you mean 'train'?"),
    (lambda: hub.load_text_dataset("anyone/text", subset="en"), USAGE, "'en' not found. Available: ['default']"),
    (lambda: [*hub.load_text_dataset("anyone/broken").rows()], FAILED, "anyone/broken on the Hub can't be read: "),
    (lambda: push("x" * 100, SMALL), USAGE, "is not a name of a repository"),
]


@pytest.mark.parametrize(("action", "code", "message"), WRONG, ids=[message[:40] for *_, message in WRONG])
def test_wrong_use_is_one_clear_line(hub_server, capfd, action, code, message):
    ids = parquet(ids=[[1, 2], [3]])
    hub_server.add_dataset("other/secret", {"train.parquet": ids}, private=True)
    hub_server.add_dataset("other/gated", {"train.parquet": ids, "manifest.json": b"{}"}, gated=True)
    hub_server.add_dataset("anyone/text", {"train.parquet": parquet(text=["a"], len=[1])})
    hub_server.add_dataset("anyone/floats", {"train.parquet": parquet(ids=[[1.5]])})
    hub_server.add_dataset("anyone/flat", {"train.parquet": parquet(ids=[1, 2])})
    hub_server.add_dataset("anyone/gaps", {"train.parquet": parquet(ids=[[1, 2], [None]])})
    hub_server.add_dataset("anyone/damaged", {"train.parquet": ids[: len(ids) // 2]})
    hub_server.add_dataset("anyone/nothing", {"notes.md": b""})
    hub_server.add_dataset("anyone/nulls", {"train.parquet": parquet(text=["a", None])})
    hub_server.add_dataset("anyone/broken", {"train.jsonl": b'{"text": "a"}\n{"te'})
    with pytest.raises(UserError, match=re.escape(message)) as caught:
        action()
    assert caught.value.exit_code == code
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


def test_a_public_repository_takes_nothing_private(hub_server):
    hub_server.add_dataset(f"{USER}/public", {})
    with pytest.raises(UserError, match=f"{USER}/public exists on the Hub and is public") as caught:
        push("public", SMALL, private=True)
    assert caught.value.exit_code == USAGE
    assert not hub_server.requests_like("^PUT|commit")
    push("own", SMALL, private=True)
    assert hub_server.dataset(f"{USER}/own").private
    assert pulled(hub.stream_ids(f"{USER}/own"), "val") == as_lists(SMALL["val"])


# ------------------------------------------------------------------------------------------------ tokens


@pytest.mark.parametrize(
    ("token", "message"),
    [("hf_this_is_refused", "the Hub refuses the token"), (None, "no Hub token is set; set HF_TOKEN or run")],
)
def test_without_a_good_token_nothing_is_pushed(hub_server, monkeypatch, capfd, caplog, token, message):
    monkeypatch.delenv("HF_TOKEN")
    if token:
        monkeypatch.setenv("HF_TOKEN", token)
    for action in (lambda: push("refused", SMALL), hub.username):
        with pytest.raises(UserError, match=message) as caught:
            action()
        assert caught.value.exit_code == FAILED
        assert "hf_this_is_refused" not in str(caught.value) + caplog.text + "".join(capfd.readouterr())
    with pytest.raises(UserError, match=f"the push failed: .*; to try again: {RETRY_COMMAND}"):
        push("refused", SMALL)
    assert hub_server.repos == {}


def test_the_token_names_the_user_and_opens_only_their_repositories(hub_server):
    assert hub.username() == USER
    with pytest.raises(UserError, match="the token gives no right to do this with other/corpus") as caught:
        hub.push_corpus("other/corpus", {}, manifest_of({}), retry_command=RETRY_COMMAND)
    assert caught.value.exit_code == FAILED


def test_the_token_is_sent_to_the_hub_and_written_nowhere(hub_server, tmp_path):
    made = run_python(
        "from pathlib import Path; folder = Path(sys.argv[1])\n    "
        "print(hub.push_folder('someone/tokens', {'': folder}, card='', retry_command='x').url)",
        str(tmp_path),
        HF_HOME=str(tmp_path / "home"),
    )
    assert made.stdout == f"{hub_server.url}/datasets/someone/tokens\n"
    assert TOKEN not in made.stdout + made.stderr
    assert not any(TOKEN.encode() in file.read_bytes() for file in tmp_path.rglob("*") if file.is_file())


# ------------------------------------------------------------------------------------------------ failures on the way


PUSH_REQUESTS = [
    "POST /create",
    "POST /preupload",
    "POST /batch",
    "PUT /storage",
    "GET /tree",
    "POST /validate",
    "POST /commit",
]
PULL_REQUESTS = [
    "GET /api/datasets/",
    "GET /revision/",
    "GET /tree/",
    "GET .*README",
    "GET .*parquet",
    "HEAD .*manifest",
]
FAULTS = [{"status": 504}, {"status": 429, "times": 3}, {"cut": True}]


@pytest.mark.parametrize("fault", FAULTS, ids=str)
@pytest.mark.parametrize("request_", PUSH_REQUESTS)
def test_a_push_outlives_passing_failures(hub_server, no_waiting, request_, fault):
    method, path = request_.split()
    hub_server.fail(method, path, **fault)
    push("passing", SMALL)
    assert hub_server.faults[0].times == 0
    assert {"data/train-00000-of-00001.parquet", "manifest.json", "README.md"} <= {
        *hub_server.dataset(f"{USER}/passing").files
    }


@pytest.mark.parametrize(
    ("request_", "fault"),  # a HEAD has no body to cut
    [(r, f) for r in PULL_REQUESTS for f in FAULTS if not (r.startswith("HEAD") and "cut" in f)],
    ids=str,
)
def test_a_pull_outlives_passing_failures(hub_server, no_waiting, request_, fault):
    method, path = request_.split()
    name = f"passing-{PULL_REQUESTS.index(request_)}-{FAULTS.index(fault)}"
    push(name, SMALL)
    hub_server.fail(method, path, **fault)
    dataset = hub.stream_ids(f"{USER}/{name}")
    assert pulled(dataset, "train") == as_lists(SMALL["train"])
    assert hub_server.faults[0].times == 0


def test_the_hub_says_how_long_to_wait(hub_server, monkeypatch):
    slept = []
    monkeypatch.setattr(time, "sleep", slept.append)
    hub_server.fail("POST", "/create", 429, **{"RateLimit": '"api";r=0;t=55'})
    hub_server.fail("POST", "/create", 503, **{"Retry-After": "20"})
    push("waiting", SMALL)
    assert slept == [55, 20]


def test_a_failed_push_leaves_the_repository_and_the_next_resumes(hub_server, no_waiting, monkeypatch):
    monkeypatch.setattr(parquet_files, "ROW_GROUP_TOKENS", 50)
    monkeypatch.setattr(parquet_files, "SHARD_ROW_GROUPS", 2)
    first = push("resumed", {"train": SMALL["val"], "val": SMALL["val"]})
    known = {*hub_server.blobs}
    other = {"train": documents(60, seed=5), "val": SMALL["val"]}

    hub_server.fail("PUT", "/storage", 504, times=1000, after=3)
    with pytest.raises(
        UserError, match=f"^the push failed: the Hub keeps answering 504 .*; to try again: {RETRY_COMMAND}$"
    ) as caught:
        push("resumed", other)
    assert caught.value.exit_code == FAILED
    assert hub_server.dataset(f"{USER}/resumed").head == first.revision
    there = {*hub_server.blobs}
    assert len(there - known) == 3

    hub_server.faults.clear()
    hub_server.requests.clear()
    push("resumed", other)
    put = {request.rpartition("/")[2] for request in hub_server.requests_like("^PUT")}
    assert put == {*hub_server.blobs} - there != set()
    assert pulled(hub.stream_ids(f"{USER}/resumed"), "train") == as_lists(other["train"])


def test_an_outage_ends_a_pull_with_one_line(hub_server, no_waiting, monkeypatch, capfd):
    monkeypatch.setattr(parquet_files, "ROW_GROUP_TOKENS", 50)
    monkeypatch.setattr(parquet_files, "SHARD_ROW_GROUPS", 1)
    push("outage", SMALL)
    hub_server.fail("GET", "train.*parquet", 503, times=1000, after=4)
    with pytest.raises(UserError, match=f"^the Hub keeps answering 503 about {USER}/outage: ") as caught:
        pull_all(f"{USER}/outage")
    assert caught.value.exit_code == FAILED
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    "code",
    [
        "hub.stream_ids('someone/x')",
        "hub.load_text_dataset('someone/x')",
        "hub.load_rows('someone/x', split='val')",
        "hub.push_folder('someone/x', {}, card='', retry_command='x')",
    ],
)
@pytest.mark.parametrize(
    ("environment", "message"),
    [
        (
            {"HF_HUB_OFFLINE": "1"},
            "1 {}the Hub can't be asked about someone/x: offline mode is on; unset HF_HUB_OFFLINE{}\n",
        ),
        (
            {"HF_ENDPOINT": "http://127.0.0.1:9"},
            "1 {}the Hub can't be reached about someone/x; check the network connection{}\n",
        ),
    ],
    ids=["offline", "no network"],
)
def test_without_a_network_it_says_so_in_one_line(code, environment, message, tmp_path):
    """Port 9 of this machine stands for a network that is down: nothing listens there."""
    failed = run_python(code, HF_HOME=str(tmp_path), **environment)
    assert failed.stderr == ""
    pushing = ("the push failed: ", "; to try again: x") if "push" in code else ("", "")
    assert failed.stdout == message.format(*pushing)


@pytest.mark.slow
@pytest.mark.parametrize("subset", [None, "xl"])
def test_questions_once_loaded_need_no_network(hub_server, tmp_path, subset):
    if subset is None:
        hub_server.add_dataset("anyone/questions", {"train.jsonl": b'{"ctx": "a"}\n{"ctx": "b"}\n'})
    else:
        add_scripted(hub_server, "anyone/questions", {"xl": {"ctx": ["a", "b"]}, "xs": {"ctx": ["c"]}})
    code = f"print([*hub.load_rows('anyone/questions', subset={subset!r}, split='train')])"
    first = run_python(code, HF_HOME=str(tmp_path))
    assert (first.stdout, first.stderr) == ("[{'ctx': 'a'}, {'ctx': 'b'}]\n", "")
    num_requests = len(hub_server.requests)
    for environment in ({"HF_HUB_OFFLINE": "1"}, {"HF_ENDPOINT": "http://127.0.0.1:9"}):
        again = run_python(code, HF_HOME=str(tmp_path), **environment)
        assert (again.stdout, again.stderr) == (first.stdout, "")
    assert len(hub_server.requests) == num_requests
    other = run_python(code.replace("questions", "others"), HF_HOME=str(tmp_path), HF_HUB_OFFLINE="1")
    assert other.stdout == "1 the Hub can't be asked about anyone/others: offline mode is on; unset HF_HUB_OFFLINE\n"


def test_a_pull_that_is_given_up_ends_its_process_properly(hub_server, monkeypatch):
    """Arrow's scanner, which `datasets` reads parquet with, would abort it (apache/arrow#45214)."""
    monkeypatch.setattr(parquet_files, "ROW_GROUP_TOKENS", 20_000)
    push("given-up", {"train": documents(20_000)})
    code = "next(hub.stream_ids('someone/given-up').ids('train')); raise UserError('enough')"
    given_up = run_python(code)
    assert (given_up.returncode, given_up.stdout, given_up.stderr) == (0, "2 enough\n", "")


# ------------------------------------------------------------------------------------------------ names and imports


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("owner/name", True),
        ("Skylion007/openwebtext", True),
        ("a-b/c.d_e", True),
        ("squad", True),
        ("corpus.txt", False),
        ("texts/corpus.txt", False),
        ("texts/corpus.jsonl.gz", False),
        ("./corpus", False),
        ("/corpus", False),
        ("a/b/c", False),
        ("~/texts", False),
        ("", False),
    ],
)
def test_repositories_are_told_from_paths(name, expected):
    assert hub.is_repo_id(name) is expected


def test_a_revision_is_split_off():
    assert hub.parse_repo_id("owner/name@refs/convert/parquet") == ("owner/name", "refs/convert/parquet")
    assert hub.parse_repo_id("owner/name") == ("owner/name", None)


def test_importing_it_imports_no_client():
    code = "print([m for m in ('huggingface_hub', 'datasets', 'pyarrow', 'torch') if m in sys.modules])"
    assert run_python(code).stdout == "[]\n"


# ------------------------------------------------------------------------------------------------ the server


def test_the_server_is_a_hub_to_its_own_clients(hub_server, tmp_path):
    from huggingface_hub import HfApi, hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, RemoteEntryNotFoundError
    from huggingface_hub.utils import get_session

    api = HfApi()
    api.create_repo("someone/served", repo_type="dataset")
    small, large = b"small", bytes(range(256)) * 100
    for path, content in (("small.txt", small), ("folder/large.bin", large)):
        api.upload_file(path_or_fileobj=content, path_in_repo=path, repo_id="someone/served", repo_type="dataset")
    assert len(hub_server.requests_like("^PUT")) == 1
    assert hub_server.dataset("someone/served").lfs_paths == {"folder/large.bin"}
    assert api.list_repo_files("someone/served", repo_type="dataset") == [
        ".gitattributes",
        "folder/large.bin",
        "small.txt",
    ]
    entry = api.get_paths_info("someone/served", "folder/large.bin", repo_type="dataset")[0]
    assert (entry.size, entry.lfs.size) == (len(large), len(large))
    local = hf_hub_download("someone/served", "folder/large.bin", repo_type="dataset", cache_dir=tmp_path)
    assert Path(local).read_bytes() == large
    url = f"{hub_server.url}/datasets/someone/served/resolve/main/folder/large.bin"
    part = get_session().get(url, headers={"Range": "bytes=100-299"})
    assert (part.status_code, part.content, part.headers["Content-Range"]) == (
        206,
        large[100:300],
        f"bytes 100-299/{len(large)}",
    )
    assert get_session().get(url, headers={"Range": f"bytes={len(large)}-"}).status_code == 416
    with pytest.raises(RemoteEntryNotFoundError):
        hf_hub_download("someone/served", "absent", repo_type="dataset", cache_dir=tmp_path)
    with pytest.raises(HfHubHTTPError, match="412"):
        api.delete_file("small.txt", "someone/served", repo_type="dataset", parent_commit="0" * 40)
    api.delete_file("small.txt", "someone/served", repo_type="dataset")
    assert {*hub_server.dataset("someone/served").files} == {".gitattributes", "folder/large.bin"}
