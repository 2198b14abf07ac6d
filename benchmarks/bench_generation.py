"""Greedy texts decoded together, one by one, and by `generate` of `transformers`, on the same models and device.

Usage: python benchmarks/bench_generation.py [--device cuda] [--prompts 64 --new 48 --repeats 3]
           [--models llama,gpt2,own,FOLDER…]

The models have random weights: a Llama and a GPT-2 of `transformers`, and one of this package; FOLDER is a checkpoint.
Prompts have 4 to 64 tokens. `together` is `LM.generate_greedy`; `alone` is the same with one prompt in each batch;
`transformers` is `model.generate` of all prompts in one batch, padded on the left. Nothing ends a text early, and with
`--stop 0.02` an id in fifty does: sequences then leave the batch of `together`, and wait in that of `transformers`. The
sides run in turns; the best time of each is printed, and whether all texts are equal. On a CPU the clock is processor
time, which other programs disturb less than the time on the wall.
"""

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

from stochastok_cli import load_vocabulary
from stochastok_cli.config import AttentionConfig, CoreModelConfig, FeedForwardConfig, ModelConfig
from stochastok_cli.evaluation.scoring import LM
from stochastok_cli.models.base import load_model
from stochastok_cli.models.llama.model import Llama
from stochastok_cli.models.llama.state_dict import save_model

VOCAB_SIZE = 2048  # of the bundled vocabulary sample2k


def make(name, folder):
    """A checkpoint with random weights, large enough that no two logits are nearly equal."""
    sizes: dict[str, Any] = {"vocab_size": VOCAB_SIZE, "initializer_range": 0.3}
    if name == "llama":
        llama = transformers.LlamaConfig(
            hidden_size=128,
            intermediate_size=344,
            num_hidden_layers=4,
            num_attention_heads=4,
            max_position_embeddings=512,
            bos_token_id=None,
            eos_token_id=None,
            attention_bias=True,  # which this package's own Llama does not have: `transformers` runs the model
            **sizes,
        )
        transformers.LlamaForCausalLM(llama).save_pretrained(folder)
    elif name == "gpt2":
        gpt2 = transformers.GPT2Config(
            n_embd=128, n_layer=4, n_head=4, n_positions=512, bos_token_id=None, eos_token_id=None, **sizes
        )
        transformers.GPT2LMHeadModel(gpt2).save_pretrained(folder)
    else:
        core = CoreModelConfig(
            num_layers=4, ffn=FeedForwardConfig(ffn_dim=344), attn=AttentionConfig(num_heads=4, group_size=1)
        )
        own = Llama(ModelConfig(core, hidden_dim=128, context_window=512, vocab_size=VOCAB_SIZE))
        with torch.no_grad():
            for parameter in own.layers.parameters():
                parameter.mul_(3 if parameter.dim() > 1 else 1)
        save_model(own, folder, load_vocabulary("sample2k"))


def generate(model, prompts, new, stop_ids):
    """The texts of `model.generate`, each without what follows its end."""
    width = max(map(len, prompts))
    ids = torch.tensor([[0] * (width - len(prompt)) + prompt for prompt in prompts], device=model.device)
    mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts], device=model.device)
    texts = model.generate(
        ids,
        attention_mask=mask,
        do_sample=False,
        max_new_tokens=new,
        pad_token_id=0,
        eos_token_id=sorted(stop_ids) or None,
    )[:, width:].tolist()
    ends = [next((i + 1 for i, token in enumerate(text) if token in stop_ids), new) for text in texts]
    return [text[:end] for text, end in zip(texts, ends, strict=True)]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--models", default="llama,gpt2,own")
    parser.add_argument("--prompts", type=int, default=64)
    parser.add_argument("--new", type=int, default=48)
    parser.add_argument("--stop", type=float, default=0.0)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batch-tokens", type=int, default=16384)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    transformers.utils.logging.disable_progress_bar()
    random = np.random.default_rng(0)
    lengths = random.integers(4, 65, args.prompts).tolist()
    prompts = [random.integers(1, VOCAB_SIZE, length).tolist() for length in lengths]
    stop_ids = set(random.permutation(VOCAB_SIZE)[: round(args.stop * VOCAB_SIZE)].tolist())
    now = time.perf_counter if args.device == "cuda" else time.process_time
    where = torch.cuda.get_device_name() if args.device == "cuda" else f"{args.threads} CPU threads"
    print(f"{args.prompts} prompts, up to {args.new} new ids each, an end in {len(stop_ids)} of {VOCAB_SIZE} ids")
    print(f"{where}, torch {torch.__version__}, transformers {transformers.__version__}")
    print("model   together s   alone s   transformers s   alone/together   transformers/together   texts")
    with tempfile.TemporaryDirectory() as temporary:
        for name in args.models.split(","):
            folder = Path(temporary, name) if name in ("llama", "gpt2", "own") else Path(name)
            if not folder.exists():
                folder.mkdir()
                make(name, folder)
            model = load_model(folder, args.device)
            theirs: Any = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
            theirs = theirs.to(args.device).eval()
            vocabulary = load_vocabulary("sample2k")

            def ours(batch_tokens, model=model, vocabulary=vocabulary):
                lm = LM(model, vocabulary, batch_tokens)
                return lm.generate_greedy(prompts, args.new, lambda ids: ids[-1] in stop_ids)

            sides = [
                lambda ours=ours: ours(args.batch_tokens),
                lambda ours=ours: ours(1),
                lambda theirs=theirs: generate(theirs, prompts, args.new, stop_ids),
            ]
            best = [float("inf")] * 3
            texts: list[Any] = [None] * 3
            for _ in range(args.repeats):
                for i, side in enumerate(sides):
                    start = now()
                    texts[i] = side()
                    best[i] = min(best[i], now() - start)
            equal = "equal" if texts[0] == texts[1] == texts[2] else "DIFFERENT"
            together, alone, transformed = best
            print(
                f"{name:7} {together:10.2f} {alone:9.2f} {transformed:16.2f} {alone / together:16.1f} "
                f"{transformed / together:23.2f}   {equal}",
                flush=True,
            )


if __name__ == "__main__":
    main()
