"""The recipes of docs/integrations.md, as they stand there, with the trainers that they are for.

Those of trainers that CI can't install are skipped there, and run wherever the trainer can be imported.
"""

import json
import re
import textwrap
import types
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch

from stochastok_cli import StochasTok, load_vocabulary
from stochastok_cli.integrations.transformers import ExpandingCollator

PAGE = (Path(__file__).parents[2] / "docs" / "integrations.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"^```(?:python|bash)\n(.*?)^```$", re.M | re.S)
TEMPLATE = (
    "{% for m in messages %}{% if m.role == 'assistant' %}{% generation %}{{ m.content }}{{ eos_token }}"
    "{% endgeneration %}{% else %}{{ m.content }}\n{% endif %}{% endfor %}"
)
QUESTIONS = [f"What is number {i}?" for i in range(8)]
ANSWERS = [f"Number {i} is hundreds of elephants" for i in range(8)]
END = "<|endoftext|>"


def recipes() -> dict[str, str]:
    """The first block of code below each heading that has one."""
    sections = re.split(r"^##+ (.+)\n", PAGE, flags=re.M)[1:]
    pairs = zip(sections[::2], sections[1::2], strict=True)
    return {heading: block[1] for heading, text in pairs if (block := BLOCK.search(text))}


def run_recipe(heading: str, **names):
    code = recipes()[heading]
    exec(compile(code, heading, "exec"), names)
    return names


def test_each_recipe_has_at_most_fifteen_lines_of_code():
    after = PAGE.index("## TRL")
    headings = [h for h in recipes() if PAGE.index(f"# {h}\n") > after and h != "lm-evaluation-harness"]
    assert {"TRL: packing", "axolotl", "LLaMA-Factory", "torchtitan", "litgpt", "nanochat", "Megatron"} <= {*headings}
    for heading in headings:
        lines = [line for line in recipes()[heading].splitlines() if line.strip() and not line.lstrip().startswith("#")]
        assert len(lines) <= 15, heading


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    transformers = pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("tokenizer")
    load_vocabulary("gpt2").save_tokenizer(folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def tiny_model():
    import transformers

    config = transformers.LlamaConfig(
        vocab_size=50257, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2
    )
    return transformers.LlamaForCausalLM(config)


def conversations():
    return datasets.Dataset.from_list(
        [
            {"messages": [{"role": "user", "content": q}, {"role": "assistant", "content": a}]}
            for q, a in zip(QUESTIONS, ANSWERS, strict=True)
        ]
    )


def documents(inputs):
    """The ids and labels of each document of a batch, padded or flattened to one row."""
    positions = inputs.get("position_ids")
    for i, (ids, labels) in enumerate(zip(inputs["input_ids"], inputs["labels"], strict=True)):
        if positions is None:
            length = int(inputs["attention_mask"][i].sum())
            yield ids[:length].tolist(), labels[:length].tolist()
        else:
            starts = (positions[i] == 0).nonzero().flatten().tolist()
            for start, stop in zip(starts, [*starts[1:], len(ids)], strict=True):
                assert positions[i][start:stop].tolist() == [*range(stop - start)]
                yield ids[start:stop].tolist(), labels[start:stop].tolist()


@pytest.mark.slow
@pytest.mark.parametrize("heading", ["TRL: plain", "TRL: padding-free", "TRL: packing", "packed rows"])
def test_trl(heading, tokenizer, tmp_path):
    """Each conversation of two epochs arrives expanded, with the labels of its answer; evaluation is not expanded."""
    trl = pytest.importorskip("trl")
    model = tiny_model()
    seen = []
    keep = lambda module, args, inputs: seen.append((module.training, inputs))  # noqa: E731
    model.register_forward_pre_hook(keep, with_kwargs=True)
    arguments = {
        "output_dir": str(tmp_path),
        "num_train_epochs": 2,
        "per_device_train_batch_size": 4,
        "eval_strategy": "epoch",
        "report_to": [],
        "use_cpu": True,
        "bf16": False,
        "save_strategy": "no",
        "disable_tqdm": True,
    }
    names = {"model": model, "tokenizer": tokenizer, "dataset": conversations(), "arguments": arguments}
    if heading == "packed rows":
        config = trl.SFTConfig(packing=True, max_length=64, assistant_only_loss=True, **arguments)
        trainer = trl.SFTTrainer(
            model, args=config, train_dataset=conversations(), eval_dataset=conversations(), processing_class=tokenizer
        )
        ExpandingCollator.install(trainer, StochasTok.from_pretrained(tokenizer, p=1.0))
        trainer.train()
    else:
        arguments["eval_strategy"] = "no"
        run_recipe(heading, **names)
    trained = [pair for training, inputs in seen if training for pair in documents(inputs)]
    assert len(trained) == 16
    texts = [f"{q}\n{a}{END}" for q, a in zip(QUESTIONS, ANSWERS, strict=True)]
    assert sorted(tokenizer.decode(ids) for ids, _ in trained) == sorted(texts * 2)
    for ids, labels in trained:
        with_loss = [i for i, label in zip(ids, labels, strict=True) if label != -100]
        assert with_loss == [label for label in labels if label != -100]
        assert tokenizer.decode(with_loss) == tokenizer.decode(ids).split("\n")[1]
    canonical = {tuple(tokenizer(text)["input_ids"]) for text in texts}
    assert sum(tuple(ids) not in canonical for ids, _ in trained) >= 8
    draws = len({tuple(ids) for ids, _ in trained})
    assert draws <= 8 if heading == "TRL: packing" else draws > 10
    if heading == "TRL: packing":
        assert max(inputs["input_ids"].shape[1] for _, inputs in seen) <= 1024
    for ids, _ in (pair for training, inputs in seen if not training for pair in documents(inputs)):
        assert heading == "packed rows" and tuple(ids) in canonical


def test_flattening_after_expansion(tokenizer):
    rows = [{"input_ids": tokenizer(text)["input_ids"]} for text in ANSWERS]
    names = run_recipe("Without padding", expand=StochasTok.from_pretrained(tokenizer, p=1.0), rows=rows)
    joined = list(documents({name: torch.as_tensor(value) for name, value in names["batch"].items()}))
    assert [tokenizer.decode(ids) for ids, _ in joined] == ANSWERS
    assert all(labels == [-100, *ids[1:]] for ids, labels in joined)
    assert sum(ids != row["input_ids"] for (ids, _), row in zip(joined, rows, strict=True)) > 4


def prepared(tokenizer):
    """Rows as trainers prepare them, with the questions masked."""
    rows = []
    for question, answer in zip(QUESTIONS, ANSWERS, strict=True):
        prompt, completion = tokenizer(question + "\n")["input_ids"], tokenizer(answer + END)["input_ids"]
        ids = prompt + completion
        rows.append(
            {
                "input_ids": ids,
                "attention_mask": [1] * len(ids),
                "labels": [-100] * len(prompt) + completion,
                "position_ids": [*range(len(ids))],
                "length": len(ids),
            }
        )
    return datasets.Dataset.from_list(rows)


def assert_expanded(tokenizer, before, after):
    assert len(before) == len(after)
    for old, new in zip(before, after, strict=True):
        n = len(new["input_ids"])
        assert (new["length"], new["position_ids"], new["attention_mask"]) == (n, [*range(n)], [1] * n)
        assert tokenizer.decode(new["input_ids"]) == tokenizer.decode(old["input_ids"])
        answers = [[i for i in row["labels"] if i != -100] for row in (old, new)]
        assert tokenizer.decode(answers[0]) == tokenizer.decode(answers[1])
    assert sum(len(new["input_ids"]) > len(old["input_ids"]) for old, new in zip(before, after, strict=True)) > 2


@pytest.mark.slow
def test_axolotl(tokenizer, tmp_path, monkeypatch):
    base = pytest.importorskip("axolotl.integrations.base")
    from transformers import Trainer, TrainingArguments

    (tmp_path / "expansion.py").write_text(recipes()["axolotl"])
    monkeypatch.syspath_prepend(tmp_path)
    before = prepared(tokenizer)
    arguments = TrainingArguments(output_dir=str(tmp_path), report_to=[], use_cpu=True)
    trainer = Trainer(tiny_model(), arguments, train_dataset=before, processing_class=tokenizer)
    manager = base.PluginManager.get_instance()
    manager.register("expansion.Expansion")
    try:
        manager.post_trainer_create(types.SimpleNamespace(sequence_len=1024), trainer)
    finally:
        manager.plugins.clear()
    assert_expanded(tokenizer, before, trainer.train_dataset)


@pytest.mark.slow
def test_llama_factory(tokenizer, tmp_path, monkeypatch):
    """Its own loader reads the folder where it can be imported; the folder is a saved dataset anywhere."""
    monkeypatch.chdir(tmp_path)
    before = prepared(tokenizer)
    datasets.DatasetDict({"train": before}).save_to_disk("tokenized")
    run_recipe("LLaMA-Factory", tokenizer=tokenizer)
    assert_expanded(tokenizer, before, datasets.load_from_disk("expanded")["train"])
    loader = pytest.importorskip("llamafactory.data.loader", exc_type=ImportError)
    from llamafactory.hparams import DataArguments

    data = loader.get_dataset(None, None, DataArguments(tokenized_path="expanded"), None, stage="sft", tokenizer=None)
    assert_expanded(tokenizer, before, data["train_dataset"])


@pytest.mark.slow
def test_litgpt(tokenizer, tmp_path):
    litgpt = pytest.importorskip("litgpt.data")
    from litgpt.tokenizer import Tokenizer

    tokenizer.save_pretrained(tmp_path)
    rows = [{"instruction": q, "output": a} for q, a in zip(QUESTIONS, ANSWERS, strict=True)]
    for split in ("train", "val"):
        (tmp_path / f"{split}.json").write_text(json.dumps(rows))
    batches = []
    for data_module in (litgpt.JSON, run_recipe("litgpt")["ExpandedJSON"]):
        data = data_module(tmp_path, mask_prompt=True, num_workers=2)
        data.connect(Tokenizer(tmp_path), batch_size=8, max_seq_length=256)
        data.setup()
        loader = data.train_dataloader()
        batches.append([batch for _ in range(2) for batch in loader])
        assert tokenizer.decode(next(iter(data.val_dataloader()))["input_ids"][0]).count(QUESTIONS[0]) == 1
    texts, answers = [], []
    for epoch in (*batches[0][:1], *batches[1]):
        pad = epoch["labels"] == -100
        texts.append(sorted(tokenizer.decode(ids).rstrip("!") for ids in epoch["input_ids"]))  # litgpt pads with 0
        answers.append(sorted(tokenizer.decode(ids[~p]) for ids, p in zip(epoch["input_ids"], pad, strict=True)))
        assert (epoch["labels"][~pad] == epoch["input_ids"][~pad]).all()
    assert texts[0] == texts[1] == texts[2]
    assert answers[0] == answers[1] == answers[2] == sorted(a + END for a in ANSWERS)
    assert batches[1][0]["input_ids"].shape[1] > batches[0][0]["input_ids"].shape[1]
    first, second = ({tuple(ids.tolist()) for ids in batch["input_ids"]} for batch in batches[1])
    assert len(first & second) < 4


@pytest.mark.slow
def test_torchtitan(tokenizer, tmp_path):
    data = pytest.importorskip("torchtitan.components.data")
    from torchtitan.components.data.types import DatasetIterationPolicy
    from torchtitan.components.tokenizer import HuggingFaceTokenizer

    load_vocabulary("gpt2").save_tokenizer(tmp_path)
    (tmp_path / "rows.json").write_text("\n".join(json.dumps({"text": text}) for text in ANSWERS))
    code = recipes()["torchtitan"].replace("path/to/tokenizer", str(tmp_path)).replace("p=0.1", "p=1.0")
    names = {}
    exec(code, names)
    context = types.SimpleNamespace(tokenizer=HuggingFaceTokenizer(tokenizer_path=str(tmp_path)))
    policy = DatasetIterationPolicy(
        seed=0, shuffle=False, repeat=False, dp_rank=0, dp_world_size=1, streaming_shuffle_buffer_size=1
    )
    source = data.HuggingFaceRandomAccessSource.Config(
        path="json", split="train", load_dataset_kwargs={"data_files": str(tmp_path / "rows.json")}
    )
    config = data.SingleDatasetConfig(source=source, processor=names["ExpandedText"].Config())
    rows = list(config.build(context=context, dataset_iteration_policy=policy))
    whole = [np.append(row.input_ids, row.labels[-1]) for row in rows]
    assert [tokenizer.decode(ids).replace(END, "") for ids in whole] == ANSWERS
    assert all((row.labels[:-1] == row.input_ids[1:]).all() for row in rows)
    encode = context.tokenizer.encode
    assert sum(ids.tolist() != encode(text) for ids, text in zip(whole, ANSWERS, strict=True)) > 4


@pytest.mark.slow
def test_nanochat(tmp_path, monkeypatch):
    dataloader = pytest.importorskip("nanochat.dataloader")
    import pyarrow as pa
    import pyarrow.parquet as pq
    import tiktoken
    from nanochat.tokenizer import SPECIAL_TOKENS, SPLIT_PATTERN, RustBPETokenizer

    gpt2 = load_vocabulary("gpt2")
    ranks = {piece: i for i, piece in enumerate(gpt2.pieces) if i != gpt2.end_of_text}
    specials = {name: len(ranks) + i for i, name in enumerate(SPECIAL_TOKENS)}
    encoding = tiktoken.Encoding("own", pat_str=SPLIT_PATTERN, mergeable_ranks=ranks, special_tokens=specials)
    tokenizer = RustBPETokenizer(encoding, "<|bos|>")
    for name in ("train", "val"):
        pq.write_table(pa.table({"text": ANSWERS}), tmp_path / f"{name}.parquet")
    source = Path(dataloader.__file__).read_text(encoding="utf-8")
    old = re.search(r"    def refill_buffer\(\):\n(?:        .*\n)+", source)
    recipe = textwrap.indent(recipes()["nanochat"].replace("p=0.1", "p=1.0"), "    ")
    names = {}
    exec(compile(source.replace(old[0], recipe), "dataloader", "exec"), names)
    names["list_parquet_files"] = lambda **_: [tmp_path / "train.parquet", tmp_path / "val.parquet"]
    canonical = {tuple(tokenizer.encode(text, prepend="<|bos|>")) for text in ANSWERS}
    for split in ("train", "val"):
        batches = names["tokenizing_distributed_data_loader_with_state_bos_bestfit"](
            tokenizer, 4, 64, split, device="cpu", buffer_size=8
        )
        inputs, targets, _ = next(batches)
        assert (inputs[:, 1:] == targets[:, :-1]).all()
        rows = [re.split(re.escape("<|bos|>"), tokenizer.decode(row.tolist()))[1:-1] for row in inputs]
        assert {text for row in rows for text in row} <= {*ANSWERS}
        start = tokenizer.get_bos_token_id()
        pieces = [
            (start, *map(int, piece[1:]))
            for row in inputs.numpy()
            for piece in np.split(row, np.flatnonzero(row == start))[1:-1]
        ]
        assert len(pieces) > 8
        changed = sum(piece not in canonical for piece in pieces)
        assert changed > 8 if split == "train" else changed == 0
