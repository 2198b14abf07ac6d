"""Multiple choice: this package's scoring against one question at a time, on the same model and device.

Usage: python benchmarks/bench_evaluation.py [--device cuda] [--questions 1000 --baseline-questions 100]
           [--threads 2] [--benchmarks arc=FILE]

The model is the shipped configuration with random weights (47 M parameters, gpt2). Questions come from a file of the
benchmark's columns where one is given (`name=FILE`), else they are made of the bundled text with the lengths that the
benchmark's questions have; LangGame is generated. Two baselines take one question at a time and the logits of every
position, as a call of a model in `transformers` gives them: `alone` reads one option after the other, `padded` all
options of the question as one batch. The largest difference of a score from theirs is printed. On a CPU the clock is
processor time, which other programs disturb less than the time on the wall.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import torch

from stochastok_cli import load_vocabulary
from stochastok_cli.config import ModelConfig
from stochastok_cli.data.recipes.langgame_generator import LangGame
from stochastok_cli.data.recipes.langgame_questions import case_table, substring_lengths
from stochastok_cli.data.text_sources import open_source
from stochastok_cli.data.word_list import read_words
from stochastok_cli.evaluation.benchmarks import Benchmark, Question, load_benchmark
from stochastok_cli.evaluation.encoding import encode
from stochastok_cli.evaluation.scoring import LM
from stochastok_cli.models.llama.model import Llama

# Mean words of prefix and option, number of options; the deviation of a length is half of its mean.
SHAPES = {"hellaswag": (40, 20, 4), "arc": (20, 4, 4), "mmlu": (70, 8, 4), "winograd": (0, 20, 2), "blimp": (0, 8, 2)}


def made(name, count, random):
    """Questions of the benchmark's lengths; the sentences of a pair without a prefix differ in one word, as theirs."""
    if name.startswith("langgame"):
        table = case_table(read_words().words, 4, substring_lengths(1, 3))
        block = next(LangGame({"val": table}, 0).blocks("val", count))
        rows = zip(block.texts, block.options.tolist(), strict=True)
        return [Question(text, [f" {table.words[i]}" for i in options], 1) for text, options in rows]
    words = " ".join(text for batch, _ in open_source("sample").batches() for text in batch).split()
    before, after, options = SHAPES[name]

    def text(mean):
        size = max(1, round(random.normal(mean, mean / 2)))
        start = random.integers(len(words) - size)
        return words[start : start + size]

    questions = []
    for _ in range(count):
        if before:
            questions.append(Question(" ".join(text(before)), [" ".join(text(after)) for _ in range(options)], 1))
        else:
            sentence = text(after)
            place = random.integers(len(sentence))
            pair = [" ".join([*sentence[:place], other, *sentence[place + 1 :]]) for other in random.choice(words, 2)]
            questions.append(Question("", pair, 1))
    return questions


@torch.inference_mode()
def padded(model, pairs):
    """One question: all logits of a batch of its options."""
    sequences = [[*context, *option] for context, option in pairs]
    ids = np.zeros((len(pairs), max(map(len, sequences)) - 1), dtype=np.int64)
    for row, sequence in zip(ids, sequences, strict=True):
        row[: len(sequence) - 1] = sequence[:-1]
    log_p = torch.log_softmax(model.logits(model(torch.from_numpy(ids).to(model.head_weight.device))), dim=-1)
    scores = []
    for index, (context, option) in enumerate(pairs):
        places = torch.arange(len(context) - 1, len(context) + len(option) - 1)
        scores.append(log_p[index, places, torch.tensor(option)].sum().item())
    return scores


def alone(model, pairs):
    return [score for pair in pairs for score in padded(model, [pair])]


def clock(function, device, repeats):
    now = time.perf_counter if device == "cuda" else time.process_time
    best, result = float("inf"), None
    for _ in range(repeats):
        start = now()
        result = np.asarray(function())  # on the host, so the device has finished
        best = min(best, now() - start)
    return best, result


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--questions", type=int, default=200)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batch-tokens", type=int, default=None)
    parser.add_argument("--benchmarks", default=",".join(["langgame-train", "langgame-val", *SHAPES]))
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--baseline-questions", type=int, help="the first so many; their times are scaled to all")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    batch_tokens = args.batch_tokens or (65536 if args.device == "cuda" else 16384)
    vocabulary = load_vocabulary("gpt2")
    torch.manual_seed(0)
    model = Llama(ModelConfig()).to(args.device).eval()
    where = torch.cuda.get_device_name() if args.device == "cuda" else f"{args.threads} CPU threads"
    print(f"{args.questions} questions of each, {where}, torch {torch.__version__}, {batch_tokens} tokens a batch")
    print("benchmark        tokens/question   alone s  padded s    ours s  alone/ours  padded/ours   difference")
    total = 0.0
    for given in args.benchmarks.split(","):
        name, _, path = given.partition("=")
        if path:
            benchmark = load_benchmark(given, Path("data"), args.questions)
        else:
            benchmark = Benchmark(name, made(name, args.questions, np.random.default_rng(0)))
        encoded = encode(benchmark, vocabulary, model.config.context_window)
        questions = [[(question.context, option) for option in question.options] for question in encoded.questions]
        lm = LM(model, vocabulary, batch_tokens)

        def slow(score, questions):
            return [value for question in questions for value in score(model, question)]

        def fast(lm=lm, encoded=encoded):
            return np.concatenate(lm.question_scores(encoded))

        padded(model, questions[0]), fast()  # warm up
        some = questions[: args.baseline_questions]
        one, expected = clock(lambda some=some: slow(alone, some), args.device, 1)
        batch, _ = clock(lambda some=some: slow(padded, some), args.device, 1)
        one, batch = (seconds * len(questions) / len(some) for seconds in (one, batch))
        ours, scores = clock(fast, args.device, args.repeats)
        size = sum(len(c) + len(o) - 1 for c, o in encoded.pairs) / len(questions)
        total += ours
        print(
            f"{name:16} {size:15.0f} {one:9.2f} {batch:9.2f} {ours:9.2f} {one / ours:11.1f} {batch / ours:12.1f} "
            f"{np.abs(scores[: len(expected)] - expected).max():12.1e}"
        )
    print(f"all benchmarks: {total:.2f} s")


if __name__ == "__main__":
    main()
