"""Small tokenizers with chat templates, written like those of ChatML, Llama 3 and Qwen 3."""

from pathlib import Path

import tokenizers
import transformers

from stochastok_cli.tokenization.loaders import load_vocabulary

NAMES = ["<|im_start|>", "<|im_end|>", "<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]

CHATML = """{%- for message in messages %}
{{- '<|im_start|>' + message.role + '\\n' }}
{%- if message.role == 'assistant' %}
{{- GENERATION }}{{- message.content + '<|im_end|>' }}{{- END }}{{- '\\n' }}
{%- else %}
{{- message.content + '<|im_end|>\\n' }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"""

LLAMA_3 = """{{- bos_token }}
{%- for message in messages %}
{{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' }}
{%- if message['role'] == 'assistant' %}
{{- GENERATION }}{{- message['content'] | trim + '<|eot_id|>' }}{{- END }}
{%- else %}
{{- message['content'] | trim + '<|eot_id|>' }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{%- endif %}"""

QWEN_3 = """{%- set last = namespace(query=0) %}
{%- for message in messages %}
{%- if message.role == 'user' %}{%- set last.query = loop.index0 %}{%- endif %}
{%- endfor %}
{%- for message in messages %}
{%- if message.role == 'assistant' %}
{%- set content = message.content.split('</think>')[-1].lstrip('\\n') %}
{{- '<|im_start|>assistant\\n' }}
{{- GENERATION }}
{%- if loop.index0 > last.query %}
{{- '<think>\\n' + message.get('reasoning_content', '') + '\\n</think>\\n\\n' }}
{%- endif %}
{{- content }}
{%- for call in message.tool_calls or [] %}
{{- '\\n<tool_call>\\n' }}{{- call | tojson }}{{- '\\n</tool_call>' }}{%- endfor %}
{{- '<|im_end|>' }}{{- END }}{{- '\\n' }}
{%- else %}
{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"""

TEMPLATES = {"chatml": CHATML, "llama3": LLAMA_3, "qwen3": QWEN_3}


def template(name: str, *, marked: bool = False) -> str:
    """A template, with or without marks around what the assistant generates."""
    marks = ("{%- generation %}", "{%- endgeneration %}") if marked else ("", "")
    return TEMPLATES[name].replace("{{- GENERATION }}", marks[0]).replace("{{- END }}", marks[1])


def save_tokenizer(folder: Path, chat_template: str | None, **flags: bool) -> Path:
    """Saves the bundled vocabulary with special tokens of chats, as `transformers` saves it.

    Args:
        folder: the folder, which is made.
        chat_template: the chat template, or None.
        flags: those of the special tokens, such as `rstrip`.
    """
    tokenizer = tokenizers.Tokenizer.from_str(load_vocabulary("sample2k").tokenizer_json())
    tokenizer.add_special_tokens([tokenizers.AddedToken(name, special=True, **flags) for name in NAMES])
    tokenizer.add_tokens(["<think>", "</think>"])  # as in Qwen 3, where they are not special
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|im_end|>", bos_token="<|begin_of_text|>", chat_template=chat_template
    )
    fast.save_pretrained(folder)
    return folder


def save_tokenizer_with_bos(folder: Path) -> int:
    """As `save_tokenizer`, and the tokenizer puts `<|begin_of_text|>` before every text; returns its id."""
    save_tokenizer(folder, None)
    tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    bos = ("<|begin_of_text|>", tokenizer.token_to_id("<|begin_of_text|>"))
    tokenizer.post_processor = tokenizers.processors.TemplateProcessing(f"{bos[0]} $A", special_tokens=[bos])
    tokenizer.save(str(folder / "tokenizer.json"))
    return bos[1]
