"""Expansion in `datasets.map`, and in a collator under Hugging Face's Trainer."""

import json
import uuid

import datasets
import numpy as np
import pytest

from stochastok_cli import StochasTok, UserError, load_vocabulary
from stochastok_cli.integrations.transformers import ExpandingCollator, MapExamples, expand_example

GPT2 = load_vocabulary("gpt2")
TEXTS = [f"Example {i} about hundreds of elephants walking" for i in range(24)]


def examples():
    rows = []
    for text in TEXTS:
        ids = GPT2.encode(text)
        rows.append({"input_ids": ids, "attention_mask": [1] * len(ids), "labels": [-100, -100, *ids[2:]]})
    return rows


def test_masks_and_labels_follow_the_parts():
    row = {**examples()[0], "token_type_ids": list(range(len(examples()[0]["input_ids"]))), "text": TEXTS[0]}
    out = expand_example(StochasTok(GPT2, p=3), row, 5)
    n = len(out["input_ids"])
    assert n > len(row["input_ids"])
    assert GPT2.decode(out["input_ids"]) == out["text"] == TEXTS[0]
    assert [len(out[c]) for c in ("attention_mask", "labels", "token_type_ids")] == [n] * 3
    for token, label, origin in zip(out["input_ids"], out["labels"], out["token_type_ids"], strict=True):
        assert label == (-100 if origin < 2 else token)
    parts = [
        GPT2.decode([t for t, o in zip(out["input_ids"], out["token_type_ids"], strict=True) if o == i])
        for i in range(3)
    ]
    assert parts == [GPT2.decode([token]) for token in row["input_ids"][:3]]
    row = {"ids": row["input_ids"], "labels": row["token_type_ids"], "other": row["token_type_ids"], "len": 3, "n": 3}
    classes = expand_example(StochasTok(GPT2, p=3), row, 5, per_token=["labels"])
    assert classes["labels"] == out["token_type_ids"]
    assert classes["other"] == row["other"]


def test_it_is_the_function_of_map():
    dataset = datasets.Dataset.from_list(examples())
    expand = StochasTok(GPT2, p=1, seed=2)
    one = dataset.map(MapExamples(expand), batched=True, with_indices=True, batch_size=5)
    other = dataset.map(MapExamples(expand), batched=True, with_indices=True, batch_size=24)
    assert one["input_ids"] == other["input_ids"]
    assert [GPT2.decode(ids) for ids in one["input_ids"]] == TEXTS
    assert one[3]["input_ids"] == expand(dataset[3]["input_ids"], 3).tolist()
    singly = dataset.add_column("text", TEXTS).map(MapExamples(expand), with_indices=True, remove_columns=["text"])
    assert singly.column_names == dataset.column_names
    assert singly["labels"] == one["labels"]


def test_it_is_the_function_of_map_in_several_processes_and_of_its_cache(tmp_path):
    dataset = datasets.Dataset.from_list(examples())
    dataset.save_to_disk(tmp_path / "rows")
    expand = StochasTok(GPT2, p=1, seed=2)
    expand(GPT2.encode("what it keeps for itself is no part of it"))
    results = []
    for processes in (1, 2, 2):
        again = datasets.load_from_disk(tmp_path / "rows")
        results.append(again.map(MapExamples(expand), batched=True, with_indices=True, num_proc=processes))
    assert results[0]["input_ids"] == results[1]["input_ids"]
    assert results[1].cache_files == results[2].cache_files


def test_an_empty_example_and_columns_that_only_look_per_token():
    expand = StochasTok(GPT2, p=3)
    assert expand_example(expand, {"input_ids": [], "labels": []}, 0) == {"input_ids": [], "labels": []}
    ids = GPT2.encode("hundreds of")
    assert len(ids) == 3
    options = [["a"], ["b", "c"], []]
    assert expand_example(expand, {"input_ids": ids, "options": options}, 0)["options"] == options
    collator = ExpandingCollator(StochasTok(GPT2, p=3), then=list, max_length=4)
    for choices in range(5, 12):  # one of which is the number of ids after expansion
        (out,) = collator([{"input_ids": ids, "choices": [0] * choices}])
        assert (len(out["input_ids"]), len(out["choices"])) == (4, choices)


def test_long_examples_and_their_order_of_bytes():
    collator = ExpandingCollator(StochasTok(GPT2, p=0.5), then=list)
    ids = [50000] * 3000
    first, second = collator([{"input_ids": ids}, {"input_ids": np.array(ids, np.uint16)}])
    assert first["input_ids"] == second["input_ids"]
    assert GPT2.decode(first["input_ids"]) == GPT2.decode(ids)


def test_a_batch_of_ids():
    expand = StochasTok(GPT2, p=1, seed=2)
    ids = [GPT2.encode(text) for text in TEXTS]
    batch = expand(ids, 10)
    assert [d.tolist() for d in batch] == [expand(d, 10 + i).tolist() for i, d in enumerate(ids)]
    assert [d.tolist() for d in expand([np.array(d) for d in ids], 10)] == [d.tolist() for d in batch]


def test_anew_in_every_epoch_and_not_at_all_when_off():
    collator = ExpandingCollator(StochasTok(GPT2, p=1), then=list)
    first, again = collator(examples()), collator(examples()[::-1])[::-1]
    assert first == again
    collator.epoch = 1
    assert collator(examples()) != first
    with collator.off():
        assert collator(examples()) == examples()
    assert ExpandingCollator(StochasTok(GPT2, p=0), then=list)(examples()) == examples()
    short = ExpandingCollator(StochasTok(GPT2, p=3), then=list, max_length=9)(examples())
    assert {len(row[c]) for row in short for c in row} == {9}


def test_labels_of_something_else_are_left_alone():
    """Even where they have as many entries, or a class has the number of its token."""
    ids = GPT2.encode("The remarkable elephants walked home")
    translated = GPT2.encode("Les éléphants")
    assert len(ids) == len(translated)
    expand = StochasTok(GPT2, p=1)
    assert expand_example(expand, {"input_ids": ids, "labels": translated}, 0)["labels"] == translated
    one = [1000]
    assert len(expand(one, 3)) > 1
    for per_token, labels in ((["labels"], [1000] * len(expand(one, 3))), ([], expand(one, 3).tolist())):
        assert expand_example(expand, {"ids": one, "labels": [1000]}, 3, per_token)["labels"] == labels


def test_a_special_token_at_the_end_stays_there(tmp_path):
    end = GPT2.end_of_text
    rows = [{"input_ids": [*row["input_ids"], end], "labels": [*row["input_ids"], -100]} for row in examples()]
    for row in ExpandingCollator(StochasTok(GPT2, p=3), then=list, max_length=8)(rows):
        assert len(row["input_ids"]) == len(row["labels"]) == 8
        assert (row["input_ids"][-1], row["labels"][-1]) == (end, -100)
        assert row["labels"][:-1] == row["input_ids"][:-1]
    with pytest.raises(UserError, match="max_length is 0"):
        ExpandingCollator(StochasTok(GPT2), then=list, max_length=0)


def test_workers_that_live_on_learn_of_the_epoch():
    import torch

    collator = ExpandingCollator(StochasTok(GPT2, p=1), then=list)
    loader = torch.utils.data.DataLoader(
        examples(), batch_size=8, collate_fn=collator, num_workers=2, persistent_workers=True
    )
    here = []
    for epoch in range(3):
        collator.epoch = epoch
        here.append(collator(examples()))
        assert [row for batch in loader for row in batch] == here[-1]
    assert here[0] != here[1] != here[2]


def test_what_can_not_follow_is_refused():
    row = {**examples()[0], "attention_mask": [1, 1]}
    with pytest.raises(UserError, match="column 'attention_mask' has not one value for each of"):
        expand_example(StochasTok(GPT2), row, 0)
    with pytest.raises(UserError, match="merges across"):
        expand_example(StochasTok(GPT2, p=0.1, method="bpe-dropout"), examples()[0], 0)
    with pytest.raises(UserError, match="neither input_ids nor ids"):
        expand_example(StochasTok(GPT2), {"text": "a"}, 0)


class Recorder:
    """A collator that keeps a file of what it was given, by whichever process."""

    def __init__(self, folder, then):
        self.folder, self.then = folder, then

    def __call__(self, rows):
        with open(self.folder / f"{uuid.uuid4()}.json", "w") as file:
            json.dump([list(map(int, row["input_ids"])) for row in rows], file)
        return self.then(rows)


def _evaluating_by_itself(transformers):
    class Evaluate(transformers.TrainerCallback):
        trainer = None

        def on_step_end(self, args, state, control, **kwargs):
            if state.global_step == 1:
                self.trainer.evaluate(metric_key_prefix="own")
            control.should_evaluate = state.global_step == 2

    return Evaluate()


@pytest.mark.parametrize(("workers", "streamed"), [(0, True), pytest.param(2, False, marks=pytest.mark.slow)])
def test_under_the_trainer(tmp_path, workers, streamed):
    """Every training batch is expanded, differently in each epoch; evaluations see the canonical ids, whoever asks."""
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("accelerate")

    load_vocabulary("gpt2").save_tokenizer(tmp_path)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path)
    tokenizer.pad_token = tokenizer.eos_token
    expand = StochasTok.from_pretrained(tokenizer, p=1.0)
    assert expand.vocabulary.fingerprint == GPT2.fingerprint
    (tmp_path / "seen").mkdir()
    collator = ExpandingCollator(expand, Recorder(tmp_path / "seen", transformers.DataCollatorForSeq2Seq(tokenizer)))
    config = transformers.LlamaConfig(
        vocab_size=50257, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2
    )
    training = datasets.Dataset.from_list(examples())
    arguments = transformers.TrainingArguments(
        output_dir=str(tmp_path / "out"),
        max_steps=6,  # two epochs
        per_device_train_batch_size=8,
        eval_strategy="no",
        eval_on_start=True,
        dataloader_num_workers=workers,
        dataloader_persistent_workers=workers > 0,
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
        save_strategy="no",
    )
    by_itself = _evaluating_by_itself(transformers)
    trainer = transformers.Trainer(
        model=transformers.LlamaForCausalLM(config),
        args=arguments,
        train_dataset=training.to_iterable_dataset() if streamed else training,
        eval_dataset={"a": training.select(range(8)), "b": training.select(range(8, 16))},
        data_collator=collator,
        callbacks=[collator.callback(), by_itself],
    )
    by_itself.trainer = trainer
    trainer.evaluate()
    trainer.train()
    trainer.evaluate()
    canonical = {tuple(row["input_ids"]) for row in examples()}
    batches = [[tuple(row) for row in json.loads(f.read_text())] for f in (tmp_path / "seen").iterdir()]
    untouched = [rows for rows in batches if set(rows) <= canonical]
    expanded = [row for rows in batches if not set(rows) <= canonical for row in rows]
    assert len(untouched) == 10  # two sets: before, on start, after steps 1 and 2, and afterwards
    assert len(expanded) == 48
    assert len(set(expanded)) > 40
    assert sorted(GPT2.decode(row) for row in expanded) == sorted(TEXTS * 2)


END = GPT2.end_of_text
PADDED = {
    "input_ids": [11004, 11241, 4582, END, END, END],
    "labels": [11004, 11241, 4582, END, -100, -100],
    "attention_mask": [1, 1, 1, 1, 0, 0],
}
PACKED = {
    "input_ids": [2787, 45543, 11241, 4582, 8347, END, 29214, 6827, END],
    "labels": [-100, -100, -100, 4582, 8347, END, 29214, 6827, END],
    "attention_mask": [1] * 9,
    "position_ids": [0, 1, 2, 3, 4, 5, 0, 1, 2],
    "seq_lengths": [6, 3],
    "offset_mapping": [[i, i + 1] for i in range(9)],
    "length": 9,
}


def test_padding_gives_way_to_text_and_the_real_end_of_text_stays_with_its_label():
    for epoch in range(5):
        collator = ExpandingCollator(StochasTok(GPT2, p=2), then=list, max_length=6)
        collator.epoch = epoch
        [row] = collator([PADDED])
        assert row["attention_mask"] == [1] * 6
        assert row["labels"] == row["input_ids"] and row["input_ids"][-1] == END and END not in row["input_ids"][:-1]


@pytest.mark.parametrize("pad", [END, 0])  # 0 is an ordinary token, of one letter
@pytest.mark.parametrize("left", [0, 2])
@pytest.mark.parametrize("right", [0, 3])
@pytest.mark.parametrize("method", ["stochastok", "uniform-k"])
def test_a_row_is_expanded_as_it_is_without_its_padding(pad, left, right, method):
    content = {"input_ids": PACKED["input_ids"][:5], "labels": [-100, *PACKED["input_ids"][1:5]]}
    padded = {
        "input_ids": [pad] * left + content["input_ids"] + [pad] * right,
        "labels": [-100] * left + content["labels"] + [-100] * right,
        "attention_mask": [0] * left + [1] * 5 + [0] * right,
        "length": 5,
        "position_ids": [0] * left + [*range(5)] + [0] * right,
    }
    collator = ExpandingCollator(StochasTok(GPT2, p=1, method=method), then=list)
    [bare], [row] = collator([content]), collator([padded])
    n = len(bare["input_ids"])
    assert n > 5
    assert row["attention_mask"] == [0] * left + [1] * n + [0] * right
    assert row["position_ids"] == [0] * left + [*range(n)] + [0] * right
    assert row["length"] == (n + left + right if left + right == 0 else n)
    for column, of_pad in (("input_ids", pad), ("labels", -100)):
        assert row[column] == [of_pad] * left + bare[column] + [of_pad] * right
    collator.max_length = n + 1
    [row] = collator([padded])
    assert len(row["input_ids"]) == min(n + 1, n + left + right)
    assert sum(row["attention_mask"]) == n
    nothing = {"input_ids": [END, END], "attention_mask": [0, 0]}
    assert collator([nothing]) == [nothing]


def documents(row: dict) -> list[list[int]]:
    """The ids of a packed row by its `seq_lengths`."""
    ends = np.cumsum(row["seq_lengths"])
    assert ends[-1] == len(row["input_ids"])
    return [ids.tolist() for ids in np.split(np.array(row["input_ids"]), ends[:-1])]


def test_positions_and_lengths_of_packed_rows_follow():
    for index in range(5):
        row = expand_example(StochasTok(GPT2, p=2), PACKED, index)
        assert row["length"] == len(row["input_ids"]) > 9
        assert [GPT2.decode(ids) for ids in documents(row)] == [GPT2.decode(ids) for ids in documents(PACKED)]
        assert row["position_ids"] == [i for n in row["seq_lengths"] for i in range(n)]
        # Each part has the span of its token, so that parts of the same span spell the token.
        for i, token in enumerate(PACKED["input_ids"]):
            parts = [t for t, span in zip(row["input_ids"], row["offset_mapping"], strict=True) if span == [i, i + 1]]
            assert GPT2.decode(parts) == GPT2.decode([token])
    mapped = datasets.Dataset.from_list([PACKED] * 3).map(
        MapExamples(StochasTok(GPT2, p=2)), batched=True, with_indices=True
    )
    assert mapped[2]["position_ids"] == [i for n in mapped[2]["seq_lengths"] for i in range(n)]


@pytest.mark.parametrize("max_length", [1, 4, 7, 10])
def test_positions_and_lengths_of_packed_rows_that_are_truncated(max_length):
    [row] = ExpandingCollator(StochasTok(GPT2, p=2), then=list, max_length=max_length)([PACKED])
    assert len(row["input_ids"]) == len(row["labels"]) == row["length"] == max_length
    assert row["input_ids"][-1] == row["labels"][-1] == END
    assert row["position_ids"] == [i for n in row["seq_lengths"] for i in range(n)]
    assert sum(row["seq_lengths"]) == max_length


def test_positions_may_begin_anywhere_and_columns_that_are_absent_from_a_row_stay_so():
    row = {"input_ids": PACKED["input_ids"], "position_ids": [7, 8, 9, 10, 11, 12, 2, 3, 4], "word_ids": None}
    out = expand_example(StochasTok(GPT2, p=2), row, 0)
    n = out["position_ids"].index(2)
    assert out["position_ids"] == [*range(7, 7 + n), *range(2, 2 + len(out["input_ids"]) - n)]
    assert out["word_ids"] is None


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("position_ids", [[*range(9)]] * 3),
        ("position_ids", [*range(0, 18, 2)]),
        ("seq_lengths", [6, 2]),
        ("seq_lengths", [[6, 3]]),
        ("offset_mapping", [[0, 1]] * 8),
        ("cu_seq_lens_q", [0, 6, 9]),
        ("max_length_k", 6),
        ("start_positions", 4),
        ("shift_labels", PACKED["input_ids"]),
        ("prompt_length", 3),
        ("loss_weights", [0.5] * 8),
    ],
)
def test_columns_that_depend_on_the_length_and_can_not_follow_are_refused_by_name(column, value):
    with pytest.raises(UserError, match=f"column '{column}'"):
        expand_example(StochasTok(GPT2), {**PACKED, column: value}, 0)


def test_a_column_of_several_values_per_token():
    row = {"input_ids": PACKED["input_ids"], "bbox": [[i, 0, 0, i] for i in range(9)]}
    out = expand_example(StochasTok(GPT2, p=2), row, 0, per_token=["bbox"])
    assert len(out["bbox"]) == len(out["input_ids"]) > 9 and out["bbox"][-1] == [8, 0, 0, 8]


def test_the_tokenizer_of_a_checkpoint_does_not_hide_the_labels_of_real_end_of_text_tokens(tmp_path):
    transformers = pytest.importorskip("transformers")
    GPT2.save_tokenizer(tmp_path)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path)
    collate = transformers.DataCollatorForLanguageModeling(tokenizer, mlm=False)
    rows = [[*GPT2.encode(text), END] for text in ("An example", "Two words")]
    batch = collate(rows)
    assert batch["labels"].tolist() == batch["input_ids"].tolist() == rows
    with pytest.raises(ValueError, match="pad token"):  # an error, not a batch without the labels of end-of-text
        collate([rows[0], rows[1][1:]])
    # What the documentation recommends for rows of different lengths: the labels come from the data.
    tokenizer.pad_token = tokenizer.eos_token
    given = [{"input_ids": row, "labels": row} for row in (rows[0], rows[1][1:])]
    batch = transformers.DataCollatorForSeq2Seq(tokenizer)(given)
    assert batch["labels"].tolist() == [rows[0], [*rows[1][1:], -100]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 1, 0]]


def test_a_special_token_that_is_made_for_padding_is_the_padding_token(tmp_path):
    transformers = pytest.importorskip("transformers")
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    specials = ["<|endoftext|>", "<|padding|>"]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    raw = Tokenizer(models.BPE(vocab={word: i for i, word in enumerate([*specials, *alphabet])}, merges=[]))
    raw.pre_tokenizer, raw.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    raw.add_special_tokens([AddedToken(name, special=True) for name in specials])
    (tmp_path / "given").mkdir()
    raw.save(str(tmp_path / "given" / "tokenizer.json"))
    load_vocabulary(str(tmp_path / "given")).save_tokenizer(tmp_path)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path)
    batch = transformers.DataCollatorForLanguageModeling(tokenizer, mlm=False)(
        [{"input_ids": [2, 3, 0]}, {"input_ids": [2, 0]}]
    )
    assert batch["input_ids"].tolist() == [[2, 3, 0], [2, 0, 1]]
    assert batch["labels"].tolist() == [[2, 3, 0], [2, 0, -100]]
