"""Expansion at each access of a dataset, and in streams that several workers read."""

import multiprocessing

import datasets
import pytest
import torch

from stochastok_cli import StochasTok, UserError, load_vocabulary
from stochastok_cli.integrations.occurrences import Occurrences
from stochastok_cli.integrations.transformers import MapExamples

GPT2 = load_vocabulary("gpt2")
EXPAND = StochasTok(GPT2, p=2)
TEXTS = [f"Example {i} about hundreds of elephants walking" for i in range(12)]
ROWS = [{"input_ids": GPT2.encode(text), "text": text, "name": f"row {i}"} for i, text in enumerate(TEXTS)]


def stream(rows, shards=4):
    return datasets.Dataset.from_list(rows).to_iterable_dataset(num_shards=shards)


def read(dataset, workers, **options):
    """The ids of all rows, sorted, as read by this many workers; 0 reads them here."""
    loader = torch.utils.data.DataLoader(dataset, batch_size=None, num_workers=workers, **options)
    return sorted(list(map(int, row["input_ids"])) for row in loader)


def decoded(rows):
    return sorted(map(GPT2.decode, rows))


@pytest.mark.parametrize("id_column", [None, "name"])
@pytest.mark.parametrize("options", [{}, {"batched": True, "batch_size": 5}], ids=["singly", "batched"])
def test_a_stream_does_not_depend_on_the_number_of_workers(id_column, options):
    """Repeated rows, within a shard and in other shards, have draws of their own, and so has each epoch."""
    rows = ROWS + ROWS[:4] + [ROWS[0]] * 2
    results = []
    for workers in (0, 1, 2):
        function = MapExamples(EXPAND, id_column=id_column)
        dataset = stream(rows).map(function, **options)
        epochs = []
        for epoch in range(2):
            function.epoch = epoch
            epochs.append(read(dataset, workers))
        results.append(epochs)
    assert results[0] == results[1] == results[2]
    first, second = results[0]
    assert decoded(first) == decoded(second) == sorted(row["text"] for row in rows)
    assert len(set(map(tuple, [*first, *second]))) > 1.8 * len(rows)


def test_a_stream_that_repeats_its_rows_has_fresh_draws_in_each_pass():
    dataset = stream(ROWS, shards=2).map(MapExamples(EXPAND)).repeat(2)
    rows = read(dataset, 2)
    assert len(set(map(tuple, rows))) > 1.8 * len(ROWS)
    assert rows == read(stream(ROWS + ROWS, shards=2).map(MapExamples(EXPAND)), 1)


@pytest.mark.slow
def test_indices_of_a_stream_are_refused_where_they_start_anew_in_each_worker():
    dataset = stream(ROWS).map(MapExamples(EXPAND), with_indices=True)
    assert decoded(read(dataset, 0)) == sorted(TEXTS)
    with pytest.raises(UserError, match="indices of an IterableDataset start anew"):
        read(dataset, 2)


def test_an_id_and_not_the_ids_selects_the_random_numbers():
    same = [{**ROWS[0], "name": name} for name in ("a", "b", "a")]
    one, two, again = (row["input_ids"] for row in stream(same, 1).map(MapExamples(EXPAND, id_column="name")))
    assert len({tuple(one), tuple(two), tuple(again)}) == 3
    backwards = [row["input_ids"] for row in stream(same[::-1], 1).map(MapExamples(EXPAND, id_column="name"))]
    assert backwards == [one, two, again]  # the first "a", "b", the second "a"
    with pytest.raises(UserError, match="no 'key', which is its id_column"):
        next(iter(stream(same, 1).map(MapExamples(EXPAND, id_column="key"))))


def test_a_transform_draws_anew_at_each_access_and_keeps_all_columns():
    dataset = datasets.Dataset.from_list(ROWS)
    function = MapExamples(EXPAND)
    transformed = dataset.with_transform(function)
    passes = [transformed[:] for _ in range(3)]
    for rows in passes:
        assert [GPT2.decode(ids) for ids in rows["input_ids"]] == rows["text"] == TEXTS
        assert rows["name"] == dataset["name"][:]
    assert passes[0]["input_ids"] != passes[1]["input_ids"] != passes[2]["input_ids"]
    function.epoch = 0
    assert [transformed[i]["input_ids"] for i in range(len(ROWS))] == passes[0]["input_ids"]
    function.epoch = 1
    assert transformed.shuffle(seed=0).select(range(3))[0]["input_ids"] not in passes[0]["input_ids"]
    assert dataset[:] == {name: [row[name] for row in ROWS] for name in ROWS[0]}


@pytest.mark.parametrize("context", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
def test_a_transform_in_workers_that_live_on_draws_anew_in_each_pass(context):
    results = []
    for workers in (0, 2):
        function = MapExamples(EXPAND)
        dataset = datasets.Dataset.from_list(ROWS).with_transform(function)
        options = {"multiprocessing_context": context, "persistent_workers": True} if workers else {}
        loader = torch.utils.data.DataLoader(dataset, batch_size=None, num_workers=workers, **options)
        passes = [sorted(row["input_ids"] for row in loader) for _ in range(2)]
        function.epoch = 1
        results.append([*passes, sorted(row["input_ids"] for row in loader)])
    assert results[0] == results[1]
    assert all(decoded(rows) == sorted(TEXTS) for rows in results[0])
    assert len({tuple(ids) for rows in results[0] for ids in rows}) > 2.7 * len(ROWS)


def test_copies_that_processes_of_map_make_are_refused_without_indices():
    dataset = datasets.Dataset.from_list(ROWS)
    with pytest.raises(UserError, match="give with_indices=True"):
        dataset.map(MapExamples(EXPAND), num_proc=2)
    epoch = MapExamples(EXPAND)
    epoch.epoch = 1
    second = dataset.map(epoch, with_indices=True, num_proc=2)["input_ids"]
    first, again = (dataset.map(f, batched=True, with_indices=True)["input_ids"] for f in (MapExamples(EXPAND), epoch))
    assert first != second == again


def test_batches_of_no_rows_and_rows_of_no_ids():
    function = MapExamples(EXPAND)
    assert function({"input_ids": [], "labels": []}, []) == {}
    assert function({"input_ids": [], "labels": []}) == {"input_ids": [], "labels": []}
    assert function({"input_ids": [[], []], "text": ["", ""]}) == {"input_ids": [[], []], "text": ["", ""]}
    assert len(datasets.Dataset.from_list(ROWS).with_transform(function)[0:0]["input_ids"]) == 0


@pytest.mark.slow
@pytest.mark.parametrize(("workers", "streamed"), [(0, False), (2, True)])
def test_the_epochs_of_a_trainer(tmp_path, workers, streamed):
    """Each epoch has draws of its own, which are those of its number."""
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("accelerate")
    seen = []

    class Keep(transformers.LlamaForCausalLM):
        def forward(self, input_ids, attention_mask, **inputs):
            seen.extend(ids[mask.bool()].tolist() for ids, mask in zip(input_ids, attention_mask, strict=True))
            return super().forward(input_ids, attention_mask, **inputs)

    dataset = datasets.Dataset.from_list([{"input_ids": row["input_ids"]} for row in ROWS])
    function = MapExamples(EXPAND)
    training = stream([*dataset]).map(function) if streamed else dataset.with_transform(function)
    if not streamed:
        training[:]  # a look at the data changes nothing

    GPT2.save_tokenizer(tmp_path)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path)
    tokenizer.pad_token = tokenizer.eos_token
    arguments = transformers.TrainingArguments(
        output_dir=str(tmp_path),
        max_steps=12,
        per_device_train_batch_size=2,
        dataloader_num_workers=workers,
        dataloader_persistent_workers=workers > 0,
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
        save_strategy="no",
    )
    config = transformers.LlamaConfig(
        vocab_size=50257, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2
    )
    trainer = transformers.Trainer(
        Keep(config),
        arguments,
        data_collator=transformers.DataCollatorForLanguageModeling(tokenizer, mlm=False),
        train_dataset=training,
        callbacks=[function.callback()],
    )
    trainer.train()
    epochs = [sorted(seen[: len(ROWS)]), sorted(seen[len(ROWS) :])]
    for epoch, rows in enumerate(epochs):
        function.epoch = epoch
        alone = dataset.with_transform(function)[:]["input_ids"]
        assert rows == sorted(alone)
    assert epochs[0] != epochs[1]


def count(occurrences, keys, times):
    for _ in range(times):
        occurrences.count(keys)


def test_occurrences_are_exact_over_processes_and_leave_no_file():
    occurrences = Occurrences()
    keys = [0, 2**64 - 1, 5, 5]
    fork = multiprocessing.get_context("fork")
    workers = [fork.Process(target=count, args=(occurrences, keys, 50)) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert occurrences.count(keys) == [200, 200, 400, 401]
    occurrences.clear()
    assert occurrences.count([5, 6]) == [0, 0]
    folder = occurrences.path.parent
    assert folder.is_dir()
    del occurrences
    assert not folder.exists()
