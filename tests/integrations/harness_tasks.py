"""Small tasks of lm-evaluation-harness, one for each type of request, and models with tokenizers of several kinds."""

import json
import random
from pathlib import Path

import tokenizers
import torch
import transformers
from tokenizers import decoders, models, normalizers, processors, trainers

from stochastok_cli.models.llama.state_dict import save_model
from stochastok_cli.tokenization.loaders import load_vocabulary
from tests.models.huggingface_families import random_model
from tests.models.small_models import sharp_model, small_config

TEXT = "the old house stood near a river and wind moved through tall trees while children played in small boats"
WORDS = TEXT.split()
SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
CHAT_TEMPLATE = (
    "{% for message in messages %}<|turn|>{{ message['role'] }}\n<think>{{ message['content'] }}{% endfor %}"
    "{% if add_generation_prompt %}<|turn|>assistant\n{% endif %}"
)
CHOICES = """
task: tiny_choices
output_type: multiple_choice
doc_to_text: "Question: {{question}}\\nAnswer:"
doc_to_choice: "{{choices}}"
doc_to_target: answer
fewshot_split: test
metric_list:
- {metric: acc, aggregation: mean, higher_is_better: true}
- {metric: acc_norm, aggregation: mean, higher_is_better: true}
"""
SENTENCES = """
task: tiny_sentences
output_type: multiple_choice
doc_to_text: ""
doc_to_choice: "{{choices}}"
doc_to_target: answer
metric_list:
- {metric: acc, aggregation: mean, higher_is_better: true}
"""
TEXTS = """
task: tiny_texts
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{question}}"
metric_list:
- {metric: word_perplexity, aggregation: weighted_perplexity, higher_is_better: false}
- {metric: bits_per_byte, aggregation: bits_per_byte, higher_is_better: false}
"""
ANSWERS = """
task: tiny_answers
output_type: generate_until
doc_to_text: "Q: {{question}}\\nA:"
doc_to_target: "{{choices[0]}}"
generation_kwargs: {until: ["\\n\\n", " e"], max_gen_toks: 8}
metric_list:
- {metric: exact_match, aggregation: mean, higher_is_better: true}
"""
GROUP = """
group: tiny_group
task: [tiny_choices, tiny_sentences]
aggregate_metric_list:
- {metric: acc, weight_by_size: true}
"""
TASKS = ("tiny_group", "tiny_texts", "tiny_answers")


def write_tasks(folder: Path) -> Path:
    """A folder for `include_path`. One of the questions is longer than the context windows of the models."""
    draw = random.Random(0)

    def words(n: int) -> str:
        return " ".join(draw.choices(WORDS, k=n))

    rows = [
        {"question": words(n), "choices": [words(1), words(2), words(3)], "answer": draw.randrange(3)}
        for n in (3, 5, 4, 70, 6, 2)
    ]
    data = folder / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    source = (
        f"dataset_path: json\ntest_split: test\ndataset_kwargs: {{data_files: {{test: {json.dumps(str(data))}}}}}\n"
    )
    for task in (CHOICES, SENTENCES, TEXTS, ANSWERS):
        (folder / f"{task.split()[1]}.yaml").write_text(task + source)
    (folder / "tiny_group.yaml").write_text(GROUP)
    return folder


def write_model(kind: str, folder: Path) -> Path:
    """A model of random weights: `gpt2`, `llama` (its tokenizer puts one special token before every text, and has a
    chat template), `gemma` (a tokenizer as SentencePiece makes them, which does that, too), or `own`."""
    folder.mkdir()
    if kind == "own":
        save_model(sharp_model(small_config()), folder, load_vocabulary("sample2k"))
    elif kind == "gpt2":
        random_model("gpt2").save_pretrained(folder)
        load_vocabulary("sample2k").save_tokenizer(folder)
    else:
        tokenizer = _with_begin_of_text(folder) if kind == "llama" else _like_sentencepiece()
        torch.manual_seed(3)
        window = {"vocab_size": len(tokenizer), "max_position_embeddings": 64}
        config = transformers.LlamaConfig if kind == "llama" else transformers.GemmaConfig
        ids = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": None}
        more = {"head_dim": 8} if kind == "gemma" else {}
        model = transformers.AutoModelForCausalLM.from_config(
            config(**SIZES, **window, **ids, **more, num_key_value_heads=2), dtype=torch.float32
        )
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.dim() > 1:
                    parameter.mul_(8)
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    return folder


def _with_begin_of_text(folder: Path) -> transformers.PreTrainedTokenizerFast:
    load_vocabulary("sample2k").save_tokenizer(folder)
    tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.add_special_tokens(["<|begin|>", "<|turn|>"])
    tokenizer.add_tokens(["<think>"])
    begin = tokenizer.token_to_id("<|begin|>")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<|begin|> $A", special_tokens=[("<|begin|>", begin)]
    )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<|begin|>",
        eos_token="<|endoftext|>",
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
    )


def _like_sentencepiece() -> transformers.PreTrainedTokenizerFast:
    """As that of Llama 2: BPE over characters with a space before every text, bytes for other characters, and `<s>`."""
    tokenizer = tokenizers.Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    pieces = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    tokenizer.decoder = decoders.Sequence(pieces)
    special = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    trainer = trainers.BpeTrainer(vocab_size=420, special_tokens=special, show_progress=False)
    tokenizer.train_from_iterator([*WORDS, "Question: Answer: Q: A:"] * 20, trainer)
    content = json.loads(tokenizer.to_str())
    content["added_tokens"] = content["added_tokens"][:3]  # the bytes are ordinary entries
    content["post_processor"] = json.loads(
        processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)]).__getstate__()
    )
    tokenizer = tokenizers.Tokenizer.from_str(json.dumps(content))
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        clean_up_tokenization_spaces=False,
    )
