"""Multiple choice and generated answers: `evaluate` against lm-evaluation-harness's model `hf`, on one loaded model.

Usage: python benchmarks/bench_lm_eval.py [--device cuda --dtype bfloat16]
           [--models gpt2,qwen3-0.6b,llama-1b,llama-3b] [--questions 1000 --prompts 256] [--repeats 2]

Models have the shapes of GPT-2 (124 M), Qwen 3 (0.6 B), Llama 3.2 (1 B and 3 B) and random weights, and gpt2's
tokenizer. Questions are made of the bundled text, with the lengths of HellaSwag and ARC; prompts have 20 to 60 words,
and 32 ids are generated after each. Both sides get the same object of `transformers`, the harness with
`batch_size=auto`. Times are of whole calls, tokenization included, and the sides take turns. Best times are printed,
how often the chosen options and the texts are equal, and the largest difference of an option's log-likelihood; with
16-bit weights also how many of each side's answers are those of the same weights in float32. Needs the extra `lm-eval`.
"""

import argparse
import gc
import json
import logging
import os
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import lm_eval
import numpy as np
import torch
import transformers
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager

from stochastok_cli import evaluate, load_vocabulary
from stochastok_cli.data.text_sources import open_source

SHAPES = {
    "tiny": ("llama", {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}),
    "gpt2": ("gpt2", {}),
    "qwen3-0.6b": (
        "qwen3",
        {"hidden_size": 1024, "intermediate_size": 3072, "num_hidden_layers": 28, "num_attention_heads": 16}
        | {"num_key_value_heads": 8, "head_dim": 128, "tie_word_embeddings": True},
    ),
    "llama-1b": (
        "llama",
        {"hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16, "num_attention_heads": 32}
        | {"num_key_value_heads": 8, "tie_word_embeddings": True},
    ),
    "llama-3b": (
        "llama",
        {"hidden_size": 3072, "intermediate_size": 8192, "num_hidden_layers": 28, "num_attention_heads": 24}
        | {"num_key_value_heads": 8, "tie_word_embeddings": True},
    ),
}
LENGTHS = {"long": (40, 20), "short": (20, 4)}  # as HellaSwag and ARC have: mean words of a question and of an option
CHOICES = """task: {name}
output_type: multiple_choice
doc_to_text: "{{{{question}}}}"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: answer
metric_list: [{{metric: acc}}]
"""
TEXTS = """task: {name}
output_type: generate_until
doc_to_text: "{{{{question}}}}"
doc_to_target: "{{{{answer}}}}"
generation_kwargs: {{until: ["\\n"], max_gen_toks: 32, do_sample: false}}
metric_list: [{{metric: exact_match}}]
"""
SOURCE = "dataset_path: json\ntest_split: test\ndataset_kwargs: {{data_files: {{test: {file}}}}}\n"


def write_questions(folder, questions, prompts):
    """Files of questions, for both sides, and a task of the harness for each."""
    random = np.random.default_rng(0)
    words = " ".join(text for batch, _ in open_source("sample").batches() for text in batch).split()

    def text(least, most):
        size = int(random.integers(least, most + 1))
        start = int(random.integers(len(words) - size))
        return " ".join(words[start : start + size])

    for name, (before, after) in LENGTHS.items():
        rows = [
            {
                "question": text(before // 2, before * 3 // 2),
                "choices": [text(max(1, after // 2), after * 3 // 2) for _ in range(4)],
                "answer": int(random.integers(4)),
            }
            for _ in range(questions)
        ]
        write(folder, name, rows, CHOICES)
    write(folder, "texts", [{"question": text(20, 60), "answer": text(1, 3)} for _ in range(prompts)], TEXTS)


def write(folder, name, rows, task):
    file = folder / f"{name}.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / f"{name}.yaml").write_text((task + SOURCE).format(name=name, file=json.dumps(str(file))))


def by_harness(lm, name, manager, limit):
    """What the harness has for each question: the text, or log-likelihoods of the options, the right one first."""
    results = lm_eval.simple_evaluate(lm, tasks=[name], task_manager=manager, bootstrap_iters=0, limit=limit)
    rows = sorted(results["samples"][name], key=lambda row: row["doc_id"])
    if name == "texts":
        return [row["resps"][0][0].strip() for row in rows]
    likelihoods = [[response[0][0] for response in row["resps"]] for row in rows]
    right = [row["doc"]["answer"] for row in rows]
    return [[one[i], *one[:i], *one[i + 1 :]] for one, i in zip(likelihoods, right, strict=True)]


def by_us(model, tokenizer, name, folder, device, limit, log):
    """The same, from `evaluate` and its file of answers."""
    evaluator = {"evaluator": "mcq", "benchmarks": [f"{name}={folder / name}.jsonl"], "num_samples": limit}
    if name == "texts":
        evaluator |= {"evaluator": "generation", "max_new_tokens": 32, "until": ["\n"]}
    evaluate(model, evaluator, tokenizer=tokenizer, device=device, log_samples=log)
    rows = [json.loads(line) for line in log.read_text().splitlines()]
    return [row["answer"].strip() if name == "texts" else row["log_likelihoods"] for row in rows]


def answers_of(results):
    """The chosen options, or the texts."""
    return [one if isinstance(one, str) else int(np.argmax(one)) for one in results]


def num_equal(first, second):
    return sum(a == b for a, b in zip(answers_of(first), answers_of(second), strict=True))


def compare(theirs, ours, exact):
    text = f"{num_equal(theirs, ours)} of {len(ours)}"
    if not isinstance(ours[0], str):
        worst = max(np.abs(np.subtract(a, b)).max() for a, b in zip(theirs, ours, strict=True))
        text += f", log-likelihoods within {worst:.2g}"
    if exact is not None:
        text += f"; as in float32: {num_equal(theirs, exact)} and {num_equal(ours, exact)}"
    return text


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--models", default="tiny")
    parser.add_argument("--questions", type=int, default=1000)
    parser.add_argument("--prompts", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=2)
    args = parser.parse_args()
    for name in ("lm_eval", "lm-eval", "transformers"):
        logging.getLogger(name).setLevel(logging.ERROR)
    where = torch.cuda.get_device_name() if args.device == "cuda" else f"{torch.get_num_threads()} CPU threads"
    print(f"{where}, {args.dtype}, torch {torch.__version__}, lm_eval {lm_eval.__version__}")
    print("model        task    lm_eval s    ours s   lm_eval/ours   equal answers")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_questions(folder, args.questions, args.prompts)
        manager = TaskManager(include_path=str(folder), include_defaults=False)
        vocabulary = load_vocabulary("gpt2")
        vocabulary.save_tokenizer(folder)
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        for shape in args.models.split(","):
            kind, sizes = SHAPES[shape]
            ids = {"bos_token_id": vocabulary.end_of_text, "eos_token_id": vocabulary.end_of_text}
            window = {} if kind == "gpt2" else {"max_position_embeddings": 2048}
            config = transformers.AutoConfig.for_model(kind, vocab_size=vocabulary.size, **ids, **window, **sizes)
            torch.manual_seed(0)
            with torch.device(args.device):
                model = transformers.AutoModelForCausalLM.from_config(config, dtype=getattr(torch, args.dtype)).eval()
            rows: list[Any] = []
            for name in (*LENGTHS, "texts"):
                lm = HFLM(model, tokenizer=tokenizer, batch_size="auto")
                sides = [
                    lambda limit, lm=lm, name=name: by_harness(lm, name, manager, limit),
                    lambda limit, model=model, name=name: by_us(
                        model, tokenizer, name, folder, args.device, limit, folder / "answers.jsonl"
                    ),
                ]
                for side in sides:
                    side(8)
                best: list[float] = [float("inf")] * 2
                answers: list[Any] = [None, None]
                for _ in range(args.repeats):
                    for i, side in enumerate(sides):
                        began = time.perf_counter()
                        answers[i] = side(None)
                        best[i] = min(best[i], time.perf_counter() - began)
                rows.append((name, sides[1], best, answers))
            if args.dtype != "float32":
                model.float()
            for name, ours, (harness_seconds, our_seconds), answers in rows:
                equal = compare(answers[0], answers[1], None if args.dtype == "float32" else ours(None))
                ratio = harness_seconds / our_seconds
                print(
                    f"{shape:12} {name:6} {harness_seconds:10.2f} {our_seconds:9.2f} {ratio:14.2f}   {equal}",
                    flush=True,
                )
            del model, lm, sides, rows, ours
            gc.collect()
            torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
