"""Corpora made in the tasks of datatrove's own executors: the bytes of one machine, whatever the number of tasks."""

import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from stochastok_cli import StochasTok, expand, load_vocabulary, tokenize
from stochastok_cli.cli.app import main
from stochastok_cli.data.memmap import Corpus
from stochastok_cli.errors import FAILED, UserError
from stochastok_cli.tokenization.vocabulary import Vocabulary

datatrove = pytest.importorskip("datatrove")
from datatrove.data import Document  # noqa: E402
from datatrove.executor.local import LocalPipelineExecutor  # noqa: E402
from datatrove.pipeline.filters import LambdaFilter  # noqa: E402
from datatrove.pipeline.readers import JsonlReader  # noqa: E402

from stochastok_cli.integrations import datatrove as pipelines  # noqa: E402
from stochastok_cli.integrations.datatrove import (  # noqa: E402
    Tasks,
    corpus_steps,
    make_corpus,
)

pytestmark = pytest.mark.slow
WORDS = ("It", "is", "a", "truth", "universally", "acknowledged", "that", "remarkable", "tokenizations", "split")


def text(i: int) -> str:
    return " ".join(WORDS[(i * k) % len(WORDS)] for k in range(1, 3 + i % 9)) + f" {i}"


def one_after_another(tasks: int) -> Tasks:
    """Tasks in this process, which are quick to start."""
    return Tasks("local", tasks, num_proc=1)


def content(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir() if file.suffix == ".bin"}


def documents(folder: Path) -> list[tuple[int, ...]]:
    corpus = Corpus(folder)
    ids = np.concatenate([corpus.ids("train"), corpus.ids("val")])
    return [tuple(d.tolist()) for d in np.split(ids, np.flatnonzero(ids == corpus.end_of_text) + 1)[:-1]]


@pytest.fixture
def source(tmp_path, monkeypatch):
    """A folder of three files of text, of several batches each."""
    monkeypatch.setattr("stochastok_cli.data.reading._BATCH_CHARACTERS", 2000)
    folder = tmp_path / "source"
    folder.mkdir()
    for number in range(3):
        (folder / f"{number}.txt").write_text("\n\n".join(text(i) for i in range(number, 90 * (number + 1), 3)))
    return folder


@pytest.mark.parametrize("tasks", [1, 2, 4, 7])
def test_any_number_of_tasks_gives_the_bytes_of_one_machine(source, tmp_path, tasks):
    options = {"tokenizer": "sample2k", "val_fraction": 0.1, "seed": 5}
    plain = tokenize(source, data_dir=tmp_path / "one", **options)
    made = pipelines.tokenize(source, one_after_another(tasks), data_dir=tmp_path / "many", **options)
    assert (made.manifest.files, made.manifest.options) == (plain.manifest.files, plain.manifest.options)
    assert made.manifest.made_from == plain.manifest.made_from
    assert [path.name for path in made.path.parent.iterdir() if path.is_dir()] == [made.path.name]
    for method, p in (("stochastok", 0.5), ("bpe-dropout", 0.1)):
        plain_expanded = expand(plain.path, p=p, method=method, seed=3)
        expanded = pipelines.expand(made.path, one_after_another(tasks), p=p, method=method, seed=3)
        assert expanded.manifest.files == plain_expanded.manifest.files
        assert expanded.manifest.options == plain_expanded.manifest.options
    assert not tokenize(source, data_dir=tmp_path / "many", **options).created


def test_ranges_of_tasks_are_the_corpus(tmp_path):
    """Also where tasks are more than documents, and where a last document has no end."""
    folder = tmp_path / "corpus"
    folder.mkdir()
    end = load_vocabulary("sample2k").end_of_text
    np.array([5, end, 6, 7, 8, 9, end, end, 3, 4], "<u2").tofile(folder / "train.bin")
    np.array([], "<u2").tofile(folder / "val.bin")
    corpus = Corpus(folder, "sample2k")
    for tasks in range(1, 13):
        ranges = [corpus_steps.range_of_task(corpus, "train", rank, tasks).tolist() for rank in range(tasks)]
        assert [*itertools.chain(*ranges)] == corpus.ids("train").tolist()
        assert all(not ids or ids[-1] == end for ids in ranges[:-1] if 4 not in ids)
        assert corpus_steps.range_of_task(corpus, "val", tasks - 1, tasks).tolist() == []
    expanded = expand(folder, p=1.0, tokenizer="sample2k")
    in_tasks = pipelines.expand(folder, one_after_another(5), p=1.0, tokenizer="sample2k", out_name="in-tasks")
    assert content(in_tasks.path) == content(expanded.path)


@pytest.mark.parametrize("handler", [signal.default_int_handler, signal.SIG_IGN])
def test_a_task_that_is_killed_and_run_again(source, tmp_path, request, handler):
    """The pool of processes of a local executor would wait for a killed one forever.

    A command that a shell script starts with `&` ignores SIGINT.
    """
    before = signal.signal(signal.SIGINT, handler)
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, before))
    for file in source.iterdir():
        file.write_text("\n\n".join(text(i) for i in range(10_000)))
    tasks = Tasks("local", 3, num_proc=2)
    data = tmp_path / "data"
    running = data / "data_as_memmaps" / ".source-tokenized.tasks" / "logs" / "tokenize" / "running"
    killed = []

    def kill() -> None:
        while not killed:
            time.sleep(0.01)
            for file in running.glob("1"):
                if process := file.read_text():
                    os.kill(int(process), signal.SIGKILL)
                    killed.append(process)

    threading.Thread(target=kill, daemon=True).start()
    with pytest.raises(UserError, match="task 1 of 3 was killed, perhaps for its memory; its log is .*task_00001") as e:
        pipelines.tokenize(source, tasks, tokenizer="gpt2", data_dir=data)
    assert e.value.exit_code == FAILED
    assert signal.getsignal(signal.SIGINT) is handler
    assert not (data / "data_as_memmaps" / "source-tokenized").exists()
    made = pipelines.tokenize(source, tasks, tokenizer="gpt2", data_dir=data)
    assert made.manifest.files == tokenize(source, tokenizer="gpt2", data_dir=tmp_path / "one").manifest.files
    assert not running.parent.exists()


@pytest.mark.parametrize("processors", [1, 2])
def test_processes_end_with_a_command_that_is_killed(source, tmp_path, processors):
    (source / "large.txt").write_text("\n\n".join(text(i) for i in range(150_000)))
    options = ("--tokenizer", "gpt2", "--executor", "local", "--tasks", "6", "--num-proc", str(processors))
    command = [sys.executable, "-m", "stochastok_cli", "tokenize", "source", *options]
    started = subprocess.Popen(command, cwd=tmp_path, start_new_session=True, stderr=subprocess.DEVNULL)

    def processes() -> list[str]:
        listed = subprocess.run(["ps", "-eo", "sid=,stat=,pid="], capture_output=True, text=True, check=True)
        rows = [line.split() for line in listed.stdout.splitlines()]
        return [pid for session, state, pid in rows if session == str(started.pid) and not state.startswith("Z")]

    running = tmp_path / "data" / "data_as_memmaps" / ".source-tokenized.tasks" / "logs" / "tokenize" / "running"
    try:
        while not [*running.glob("*")] and started.poll() is None:
            time.sleep(0.02)
        assert len(processes()) > 1
        started.kill()
        started.wait()
        limit = time.monotonic() + 100
        while processes() and time.monotonic() < limit:
            time.sleep(0.05)
        assert processes() == []
    finally:
        for process in processes():
            os.kill(int(process), signal.SIGKILL)


def test_a_task_that_fails_for_another_reason_names_its_log(source, tmp_path):
    class Broken(LambdaFilter):
        def run(self, data, rank=0, world_size=1):
            raise ZeroDivisionError("division by zero")

    with pytest.raises(UserError, match="task 0 of 2 failed: ZeroDivisionError: division by zero; its log is"):
        make_corpus([Broken(None)], one_after_another(2), name="broken", tokenizer="sample2k", data_dir=tmp_path)


def test_completed_tasks_are_not_run_again_unless_the_source_changes(source, tmp_path, monkeypatch):
    encode_batch = Vocabulary.encode_batch

    def encode_or_fail(vocabulary, texts, threads=1):
        if texts[0].startswith("Last"):
            raise UserError("no space is left on the disk", exit_code=FAILED)
        return encode_batch(vocabulary, texts, threads)

    monkeypatch.setattr(Vocabulary, "encode_batch", encode_or_fail)
    (source / "2.txt").write_text("Last text.\n\n" + (source / "2.txt").read_text())
    work = tmp_path / "data_as_memmaps" / ".source-tokenized.tasks"
    kept = r"disk; 2 completed tasks need not run again if the source stays as it is \(.*source-tokenized.tasks\)"
    times = []
    for _ in range(2):
        with pytest.raises(UserError, match=kept):
            pipelines.tokenize(source, one_after_another(3), tokenizer="sample2k", data_dir=tmp_path)
        done = work / "logs" / "tokenize" / "completions"
        assert sorted(file.name for file in done.iterdir()) == ["00000", "00001"]
        times.append([(work / "parts" / f"0000{rank}.bin").stat().st_mtime_ns for rank in range(2)])
    assert times[0] == times[1]
    monkeypatch.undo()
    monkeypatch.setattr("stochastok_cli.data.reading._BATCH_CHARACTERS", 2000)
    (source / "0.txt").write_text("Another text.\n\nAnd one more.\n")
    made = pipelines.tokenize(source, one_after_another(3), tokenizer="sample2k", data_dir=tmp_path)
    plain = tokenize(source, tokenizer="sample2k", data_dir=tmp_path / "one")
    assert made.manifest.files == plain.manifest.files


def folders(data: Path) -> list[str]:
    return sorted(path.name for path in (data / "data_as_memmaps").iterdir() if path.is_dir())


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("text\n", "is empty: it has no documents"),
        ("text\na\nb\n\xff\n", "not UTF-8"),
        ("text\na\nb\nc\n", "stopped"),
    ],
)
def test_nothing_stays_behind_that_can_not_be_used_again(tmp_path, monkeypatch, rows, message):
    """The tasks run again anyway when the source has changed."""
    (tmp_path / "rows.csv").write_bytes(rows.encode("latin-1"))
    if message == "stopped":

        def stop(*_):
            raise UserError("stopped", exit_code=FAILED)

        monkeypatch.setattr(Vocabulary, "encode_batch", stop)
    with pytest.raises(UserError, match=message) as raised:
        pipelines.tokenize(tmp_path / "rows.csv", one_after_another(1), tokenizer="sample2k", data_dir=tmp_path)
    assert folders(tmp_path) == [] and "left out" not in str(raised.value)


def test_the_plain_command_removes_what_interrupted_tasks_have_left(source, tmp_path):
    options = {"tokenizer": "sample2k", "data_dir": tmp_path}
    for name in ("source-tokenized", "source-tokenized-stochastok0.1"):
        left = tmp_path / "data_as_memmaps" / f".{name}.tasks" / "parts"
        for made in (True, False):  # also where the folder is there already
            left.mkdir(parents=True)
            if name == "source-tokenized":
                assert tokenize(source, **options).created == made
            else:
                assert expand("source-tokenized", p=0.1, data_dir=tmp_path).created == made
            assert not left.parent.exists()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "data_as_memmaps" / "linked-tokenized").symlink_to(tmp_path / "elsewhere")
    pipelines.tokenize(source, one_after_another(2), name="linked", force=True, **options)
    assert not [*tmp_path.glob("**/.*.tasks")]
    left.mkdir(parents=True)
    with pytest.raises(UserError, match="made with other options"):
        pipelines.tokenize(source, one_after_another(2), seed=9, **options)
    assert left.exists()


def test_tasks_leave_the_progress_of_other_corpora_alone(source, tmp_path):
    """Also where a corpus has a name that ends as temporary folders do."""
    plain = tokenize(source, tokenizer="sample2k", data_dir=tmp_path)
    other = plain.path.with_name(".x.tasks") / "parts"
    other.mkdir(parents=True)
    made = pipelines.expand(plain.path, one_after_another(2), p=0.5, out_name="x.partial")
    assert content(made.path) == content(expand(plain.path, p=0.5).path)
    rows = write_rows(tmp_path / "rows", [*range(20)], 1)
    options = {"name": "x.partial", "tokenizer": "sample2k", "data_dir": tmp_path, "force": True}
    make_corpus([JsonlReader(str(rows))], one_after_another(2), **options)
    assert [path.name for path in plain.path.parent.glob(".*.tasks")] == [".x.tasks"]
    assert other.exists()


@pytest.mark.parametrize("tasks", [2, 5])
def test_documents_that_can_not_be_read_are_counted_once_and_in_order(tmp_path, monkeypatch, tasks):
    monkeypatch.setattr("stochastok_cli.data.reading._BATCH_CHARACTERS", 2000)
    monkeypatch.chdir(tmp_path)
    folder = Path("rows")
    folder.mkdir()
    for number in range(3):
        rows = [{"text": None if i % 20 == number else text(i)} for i in range(60)]
        (folder / f"{number}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + "{no row\n")
    options = {"tokenizer": "sample2k", "on_bad_document": "skip"}
    with pytest.warns(UserWarning, match="12 documents left out") as plainly:
        plain = tokenize("rows", data_dir="one", **options)
    with pytest.warns(UserWarning, match="12 documents left out") as in_tasks:
        made = pipelines.tokenize("rows", one_after_another(tasks), data_dir="many", **options)
    assert [str(w.message) for w in in_tasks] == [str(w.message) for w in plainly]
    assert made.manifest.left_out_places == plain.manifest.left_out_places
    assert (made.manifest.left_out, made.manifest.files) == (plain.manifest.left_out, plain.manifest.files)
    with pytest.raises(UserError, match="--limit would have no effect on what tasks read"):
        pipelines.tokenize("rows", one_after_another(tasks), limit=3)


@pytest.mark.parametrize("options", [{}, {"id_column": "id"}])
def test_a_dataset_on_the_hub_is_refused(hub_server, tmp_path, options):
    hub_server.add_dataset("anyone/rows", {"train.jsonl": b'{"text": "one", "id": 1}\n'})
    with pytest.raises(UserError, match="anyone/rows is a dataset on the Hub; download it first: hf download --repo-t"):
        pipelines.tokenize("anyone/rows", one_after_another(2), data_dir=tmp_path, **options)
    assert not any(path.is_file() and not path.name.endswith(".lock") for path in tmp_path.rglob("*"))


def write_rows(folder: Path, order: list[int], files: int, with_ids: bool = True) -> Path:
    """Writes 120 rows in this order to some files; rows 100 to 119 repeat the texts of the first ones."""
    folder.mkdir()
    for number in range(files):
        rows = [{"text": text(i % 100)} | ({"id": f"row {i}"} if with_ids else {}) for i in order[number::files]]
        (folder / f"{number}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.mark.parametrize("key", ["id", "content"])
def test_pipelines_of_ones_own(tmp_path, key):
    """A reader and a filter of datatrove before ours; neither tasks, files nor the order of rows change a byte."""
    vocabulary = load_vocabulary("sample2k")
    keep = LambdaFilter(lambda document: not document.text.endswith("7"))

    def make(name: str, rows: Path, tasks: int, expansion: StochasTok | None) -> Path:
        steps = [JsonlReader(str(rows)), keep]
        options = {"tokenizer": vocabulary, "key": key, "val_fraction": 0.1, "data_dir": tmp_path / "data"}
        made = make_corpus(steps, one_after_another(tasks), name=name, expand=expansion, **options)
        assert [path for path in made.path.parent.iterdir() if path.name.endswith(".tasks")] == []
        assert made.manifest.splits["val"].documents == 11
        return made.path

    backwards = write_rows(tmp_path / "backwards", [*reversed(range(120))], 2, key == "id")
    rows = write_rows(tmp_path / "rows", [*range(120)], 3, key == "id")
    expansion = StochasTok(vocabulary, p=0.8, seed=2)
    one, four = make("one", rows, 1, expansion), make("four", rows, 4, expansion)
    assert content(one) == content(four) == content(make("backwards", backwards, 2, expansion))
    plain = make("plain", rows, 2, None)
    expected = [text(i % 100).encode() for i in range(120) if i % 10 != 7]
    decode = vocabulary.decode_bytes
    for folder in (one, plain):
        assert sorted(decode(document[:-1]) for document in documents(folder)) == sorted(expected)
    assert [decode(d) for d in documents(plain)] != [decode(d) for d in sorted(documents(plain))]
    repeated = [d for d in documents(one) if decode(d[:-1]) == text(9).encode()]
    assert len(set(documents(plain))) == 90 and len(repeated) == 2 and repeated[0] != repeated[1]


def test_an_id_column(tmp_path):
    """The order and the split go by the ids; ids and texts that are missing are named."""
    rows = write_rows(tmp_path / "rows", [*range(120)], 3)
    backwards = write_rows(tmp_path / "backwards", [*reversed(range(120))], 2)
    options = {"tokenizer": "sample2k", "val_fraction": 0.1, "id_column": "id", "data_dir": tmp_path / "data"}
    made = [pipelines.tokenize(rows, one_after_another(n), name=f"of-{n}", **options) for n in (1, 4)]
    made.append(pipelines.tokenize(backwards, one_after_another(2), **options))
    assert content(made[0].path) == content(made[1].path) == content(made[2].path)
    assert made[0].manifest.made_from.fingerprint and made[0].manifest.options["id_column"] == "id"
    plain = tokenize(rows, tokenizer="sample2k", val_fraction=0.1, data_dir=tmp_path / "plain")
    assert sorted(documents(made[0].path)) == sorted(documents(plain.path))
    with pytest.raises(UserError, match="documents would have no effect beside --id-column"):
        pipelines.tokenize(rows, one_after_another(2), documents="file", **options)
    (rows / "0.jsonl").write_text('{"text": "a", "id": null}\n')
    with pytest.raises(UserError, match="0.jsonl, line 1: 'id' holds no id"):
        pipelines.tokenize(rows, one_after_another(2), **options)


def test_steps_in_an_executor_of_ones_own(tmp_path):
    """An expansion depends on the document's id; documents without ids, and ids that repeat, are not silent."""
    vocabulary = load_vocabulary("sample2k")
    expansion = StochasTok(vocabulary, p=0.8, seed=2)
    given = [Document(text(i), f"{i}") for i in range(20)]
    steps = [pipelines.TokenizeDocuments(vocabulary), pipelines.ExpandDocuments(expansion)]
    save = pipelines.SaveDocuments(tmp_path / "saved", vocabulary)
    finish = pipelines.FinishCorpus(tmp_path / "saved", 1, tmp_path / "made", vocabulary, val_fraction=0.1)
    LocalPipelineExecutor([given, *steps, save], logging_dir=str(tmp_path / "logs")).run()
    LocalPipelineExecutor([finish], logging_dir=str(tmp_path / "logs of the end")).run()
    expanded = {document.id: document.metadata["input_ids"] for document in steps[1](steps[0](iter(given[::-1])))}
    assert sorted(documents(tmp_path / "made")) == sorted(tuple(ids.tolist()) for ids in expanded.values())
    with pytest.raises(UserError, match="the document '3' has no input_ids; put TokenizeDocuments before"):
        [*steps[1](iter([Document("", "3")]))]
    (tmp_path / "saved" / "00000.bin").write_bytes((tmp_path / "saved" / "00000.bin").read_bytes()[:-2])
    pipelines.NumberDocuments(tmp_path / "saved", 1).run()
    with pytest.raises(UserError, match="00000.bin is cut short"):
        [*pipelines.ReadSavedDocuments(tmp_path / "saved", 1, vocabulary.dtype).run()]
    again = pipelines.SaveDocuments(tmp_path / "twice", vocabulary)
    deque = [*again(steps[0](iter([Document(text(i), "same") for i in range(5)])))]
    assert len(deque) == 5
    with pytest.warns(UserWarning, match="4 documents have an id that another one has"):
        pipelines.FinishCorpus(tmp_path / "twice", 1, tmp_path / "of-five", vocabulary, val_fraction=0.1).make()


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ([70_000, 50_256], "the id 70000 is not in the vocabulary 'gpt2'"),
        (np.array([5, -1, 50_256]), "the id -1 is not in"),
        (np.array([50_257]), "the id 50257 is not in"),
        ([1.5, 50_256.0], "is no sequence of token ids"),
    ],
)
def test_ids_of_another_vocabulary_are_not_saved(ids, message, tmp_path):
    gpt2 = load_vocabulary("gpt2")
    for step in (pipelines.SaveDocuments(tmp_path, gpt2), pipelines.ExpandDocuments(StochasTok(gpt2, p=0.1))):
        with pytest.raises(UserError, match=f"the document 'seven': .*{message}"):
            [*step(iter([Document("", "seven", metadata={"input_ids": ids})]))]


def test_the_command_line(source, tmp_path, monkeypatch, capfd):
    """Results on stdout; an error in a process of a task is one line on stderr."""

    def run(*arguments: str) -> tuple[object, str, str]:
        monkeypatch.setattr(sys, "argv", ["stochastok", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        return ended.value.code, *capfd.readouterr()

    monkeypatch.chdir(tmp_path)
    (source / "3.jsonl").write_text('{"text": 3}\n')
    command = ("tokenize", "source", "--tokenizer", "sample2k", "--executor", "local", "--tasks", "2")
    code, out, err = run(*command, "--num-proc", "2")
    assert (code, out) == (FAILED, "")
    assert err.count("\n") == 1
    assert err.startswith("error: source/3.jsonl, line 1: 'text' holds 3, not text; --on-bad-doc")
    (source / "3.jsonl").unlink()
    code, out, err = run(*command, "--num-proc", "1", "--json")
    assert code == 0 and json.loads(out)["splits"]["train"]["documents"] == 178
    assert err.startswith("made source-tokenized: train 178 documents")
    (tmp_path / "rows.jsonl").write_text("".join(f'{{"text": "row {i}", "key": {i}}}\n' for i in range(9)))
    code, out, err = run("tokenize", "rows.jsonl", *command[2:], "--num-proc", "1", "--id-column", "key")
    assert (code, out) == (0, "data/data_as_memmaps/rows-tokenized\n"), err
    code, out, err = run("expand", "source-tokenized", *command[-4:], "--num-proc", "1")
    assert (code, out) == (0, "data/data_as_memmaps/source-tokenized-stochastok0.1\n")
    assert err.startswith("made source-tokenized-stochastok0.1: train 178 documents")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"executor": "sge"}, "--executor 'sge' is not known; give local, slurm, ray"),
        ({"tasks": 0}, "the number of tasks is 0; it must be at least 1"),
        ({"executor": "slurm"}, "Slurm needs a partition and a time limit; give --partition and --time"),
        ({"partition": "cpu"}, "--partition, --time and --slurm-args are for --executor slurm"),
    ],
)
def test_impossible_tasks(options, message):
    with pytest.raises(UserError, match=message):
        Tasks(**options)


@pytest.fixture
def ray_of_one_host():
    ray = pytest.importorskip("ray")
    try:
        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    except Exception as error:
        pytest.skip(f"Ray does not start here: {error}")
    yield
    ray.shutdown()


@pytest.mark.usefixtures("ray_of_one_host")
def test_tasks_on_ray(source, tmp_path):
    plain = tokenize(source, tokenizer="sample2k", data_dir=tmp_path / "one")
    made = pipelines.tokenize(source, Tasks("ray", 2), tokenizer="sample2k", data_dir=tmp_path / "ray")
    assert made.manifest.files == plain.manifest.files
    (source / "2.txt").write_bytes(b"\xff\n")
    with pytest.raises(UserError, match="2.txt, line 1: the byte 0xff at 0 is not UTF-8"):
        pipelines.tokenize(source, Tasks("ray", 2), tokenizer="sample2k", data_dir=tmp_path / "bad")


@pytest.mark.usefixtures("ray_of_one_host")
def test_expansion_and_pipelines_of_ones_own_on_ray(source, tmp_path):
    plain = tokenize(source, tokenizer="sample2k", data_dir=tmp_path)
    made = pipelines.expand(plain.path, Tasks("ray", 2), p=0.5, seed=3, out_name="on-ray")
    assert made.manifest.files == expand(plain.path, p=0.5, seed=3).manifest.files
    rows = write_rows(tmp_path / "rows", [*range(120)], 2)
    expansion = StochasTok(load_vocabulary("sample2k"), p=0.8, seed=2)
    options = {"tokenizer": "sample2k", "key": "content", "expand": expansion, "data_dir": tmp_path}
    on_ray, here = (
        make_corpus([JsonlReader(str(rows))], tasks, name=f"of-{tasks.executor}", **options)
        for tasks in (Tasks("ray", 2), one_after_another(3))
    )
    assert content(on_ray.path) == content(here.path)
    assert not [name for name in folders(tmp_path) if name.endswith(".tasks")]
