"""Tokenizers of a few entries as `tokenizer.json` objects, each with one setting changed."""

import copy
import json
from pathlib import Path
from typing import Any

from stochastok_cli.tokenization.merges import byte_characters

Json = dict[str, Any]

_FLAGS = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}


def added_token(number: int, content: str, special: bool = True, **flags: bool) -> Json:
    return {"id": number, "content": content, **_FLAGS, "special": special, **flags}


def byte_level(**model: Any) -> Json:
    """Byte-level BPE: 256 bytes, `ab` 256, `abc` 257, `xyz` 258 (which no merge makes), end-of-text 259."""
    vocabulary = [*byte_characters(), "ab", "abc", "xyz", "<|endoftext|>"]
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [added_token(259, "<|endoftext|>")],
        "normalizer": None,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
        "post_processor": None,
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": {entry: i for i, entry in enumerate(vocabulary)},
            "merges": [["a", "b"], ["ab", "c"]],
            **model,
        },
    }


def metaspace(scheme: str = "always") -> Json:
    return {"type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme, "split": True}


def unigram(byte_tokens: bool = False, **model: Any) -> Json:
    """Unigram: `<pad>`, `</s>`, `<unk>`, `▁`, `<`, `/`, `s`, `>`, `a`, `▁a`, then perhaps the 256 bytes."""
    pieces: list[tuple[str, float]] = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0)]
    pieces += [(letter, -3.0) for letter in "</s>a"] + [("▁a", -3.5)]
    pieces += [(f"<0x{byte:02X}>", 0.0) for byte in range(256 if byte_tokens else 0)]
    steps = [metaspace()]
    decoder: Json = metaspace()
    if byte_tokens:
        replace = {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}
        strip = {"type": "Strip", "content": " ", "start": 1, "stop": 0}
        decoder = {"type": "Sequence", "decoders": [replace, {"type": "ByteFallback"}, {"type": "Fuse"}, strip]}
    return {
        **byte_level(),
        "added_tokens": [added_token(i, pieces[i][0]) for i in range(3)],
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": steps},
        "decoder": decoder,
        "model": {"type": "Unigram", "unk_id": 2, "vocab": pieces, "byte_fallback": byte_tokens, **model},
    }


def sentencepiece_bpe(byte_tokens: bool = True, **model: Any) -> Json:
    """BPE over characters: `<unk>`, `</s>`, `▁`, `<`, `/`, `s`, `>`, `a`, `▁a`, `</`, `</s`, then perhaps 256 bytes.

    Merges would make `</s>` of a text.
    """
    entries = ["<unk>", "</s>", "▁", *"</s>a", "▁a", "</", "</s"]
    entries += [f"<0x{byte:02X}>" for byte in range(256 if byte_tokens else 0)]
    content = unigram(byte_tokens=True)
    bpe = byte_level()["model"] | {"vocab": {entry: i for i, entry in enumerate(entries)}}
    merges = [["▁", "a"], ["<", "/"], ["</", "s"], ["</s", ">"]]
    added = [added_token(i, entries[i]) for i in range(2)]
    bpe |= {"merges": merges, "unk_token": "<unk>", "byte_fallback": byte_tokens}
    return {**content, "added_tokens": added, "pre_tokenizer": metaspace(), "model": {**bpe, **model}}


def wordpiece(pre_tokenizer: str = "BertPreTokenizer", **model: Any) -> Json:
    """WordPiece: `[UNK]`, `[SEP]`, `a`, `##b`, `[`, `]`, `sep`, `SEP`, `##SEP`, `##]`."""
    entries = ["[UNK]", "[SEP]", "a", "##b", "[", "]", "sep", "SEP", "##SEP", "##]"]
    return {
        **byte_level(),
        "added_tokens": [added_token(i, entries[i]) for i in range(2)],
        "pre_tokenizer": {"type": pre_tokenizer},
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True},
        "model": {
            "type": "WordPiece",
            "unk_token": "[UNK]",
            "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100,
            "vocab": {entry: i for i, entry in enumerate(entries)},
            **model,
        },
    }


def changed(content: Json, **parts: Any) -> Json:
    """A copy with other parts; in `model`, with other entries of it."""
    content = copy.deepcopy(content)
    content["model"] |= parts.pop("model", {})
    return content | parts


def write(folder: Path, content: Json, config: Json | None = None) -> Path:
    """Writes the files of a tokenizer and returns the folder."""
    folder.mkdir(exist_ok=True)
    (folder / "tokenizer.json").write_text(json.dumps(content))
    if config is not None:
        (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder
