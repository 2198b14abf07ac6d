"""A GPT-2 of random weights, as `transformers` saves it, to stand in for a published model where there is no network.

python examples/reproduce/new_model.py --tokenizer gpt2 --width 512 --layers 8 --heads 8 --context-window 512 --out NEW
"""

import argparse
from pathlib import Path

from transformers import GPT2Config, GPT2LMHeadModel, set_seed
from transformers.utils.logging import disable_progress_bar

from stochastok_cli import load_vocabulary


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokenizer", required=True, help="as in `stochastok tokenize`")
    parser.add_argument("--out", required=True, metavar="NEW", help="the folder to write")
    for option in ("width", "layers", "heads", "context-window"):
        parser.add_argument(f"--{option}", type=int, required=True)
    arguments = parser.parse_args()
    vocabulary = load_vocabulary(arguments.tokenizer)
    disable_progress_bar()
    set_seed(0)
    config = GPT2Config(
        vocab_size=vocabulary.size,
        n_positions=arguments.context_window,
        n_embd=arguments.width,
        n_layer=arguments.layers,
        n_head=arguments.heads,
        bos_token_id=vocabulary.end_of_text,
        eos_token_id=vocabulary.end_of_text,
    )
    unfinished = Path(f"{arguments.out}.partial")
    GPT2LMHeadModel(config).save_pretrained(unfinished)
    unfinished.replace(arguments.out)


if __name__ == "__main__":
    main()
