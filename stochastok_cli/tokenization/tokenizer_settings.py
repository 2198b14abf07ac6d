"""What a `tokenizer.json` and a `tokenizer_config.json` configure: read, or refused by name.

`tokenizers` applies normalizers, pre-tokenizers and models as they are configured. What would change the ids at random,
lose text without a trace, or decode to other bytes than an entry seems to have is refused. Truncation, padding and
post-processors (which add special tokens) play no part: only the ids of the text itself are taken.
"""

import json
import warnings
from collections.abc import Iterator, Mapping, Set
from typing import Any

from stochastok_cli.errors import Notice, UserError, short_repr
from stochastok_cli.tokenization.merges import byte_characters

SPACE = "▁"
Json = dict[str, Any]

_KNOWN = {
    "": {"version", "truncation", "padding", "added_tokens", "normalizer", "pre_tokenizer", "post_processor"}
    | {"decoder", "model"},
    "BPE": {"type", "dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix", "fuse_unk"}
    | {"byte_fallback", "ignore_merges", "vocab", "merges"},
    "Unigram": {"type", "unk_id", "vocab", "byte_fallback", "alpha", "nbest_size"},
    "WordPiece": {"type", "unk_token", "continuing_subword_prefix", "max_input_chars_per_word", "vocab"},
}
_FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")
_DECODERS = {
    "byte-level": {"ByteLevel", "Fuse"},
    "sentencepiece": {"Metaspace", "Replace", "ByteFallback", "Fuse", "Strip"},
    "wordpiece": {"WordPiece"},
}
_WHITE_SPACE_PATTERNS = ({"String": " "}, {"Regex": r"\s+"}, {"Regex": r"\s"}, {"Regex": " +"}, {"Regex": " "})


def entry_encoding(content: Json, name: str) -> str:
    """How the entries of a tokenizer are written, once everything that it configures has been looked at.

    Args:
        content: the `tokenizer.json`, as `tokenizers` writes it.
        name: what the vocabulary is called.

    Returns:
        `byte-level`, `sentencepiece` or `wordpiece`.

    Raises:
        UserError: for a kind of tokenizer or a setting that is not supported.
    """
    _check_affixes(content["model"], name)
    encoding = _encoding(content["model"], content.get("decoder"), name)
    _check_decoder(content, encoding, name)
    _check_pretokenizers(content, encoding, name)
    return encoding


def check_fields(given: Mapping[str, Any], name: str) -> None:
    """Refuses settings that the installed `tokenizers` would pass over.

    Args:
        given: the `tokenizer.json` as it is in the file.
        name: what the vocabulary is called.
    """
    model = given["model"]
    _check_affixes(model, name)
    for where, fields in (("", given), (str(model.get("type")), model)):
        for key in fields.keys() - _KNOWN.get(where, fields.keys()):
            if fields[key]:
                setting = short_repr(key)
                raise UserError(f"{name}: {where or 'it'} has the setting {setting}, which is unknown", fix="remove it")
    notice_sampling(model.get("alpha"), name)


def notice_sampling(alpha: Any, name: str) -> None:
    """Warns of a Unigram model that samples segmentations, which `tokenizers` does not do once it is copied."""
    if alpha:
        _notice(f"{name} samples its segmentations (alpha {short_repr(alpha)}); this is switched off")


def _check_affixes(model: Json, name: str) -> None:
    for affix in ("continuing_subword_prefix", "end_of_word_suffix"):
        if model.get(affix) and model.get("type") == "BPE":
            raise UserError(
                f"{name}: its model marks the parts of a word with {str(model[affix])[:20]!r} ({affix}), which is not "
                "supported",
                fix="take a tokenizer without such marks",
            )


def apply_config(content: Json, config: Json, entries: Mapping[str, int], name: str) -> None:
    """Enters the tokens of a `tokenizer_config.json`, with their flags, in a `tokenizer.json`, as `transformers` does.

    Args:
        content: the `tokenizer.json`, whose `added_tokens` are changed.
        config: the `tokenizer_config.json`.
        entries: the id of each entry and added token.
        name: what the vocabulary is called.

    Raises:
        UserError: if the two disagree in what `transformers` would take from either.
    """
    added = {token["content"]: token for token in content["added_tokens"]}
    for number, token in _typed(config, "added_tokens_decoder", dict, name).items():
        text = token.get("content") if isinstance(token, dict) else None
        if not isinstance(text, str) or str(entries.get(text)) != number:
            raise UserError(
                f"{name}: its tokenizer_config.json adds the token {str(text)[:60]!r} as id {number[:20]}, "
                "which its tokenizer.json does not",
                fix="save both files anew with transformers",
            )
        if text not in added:
            added[text] = {"id": entries[text], "content": text, **dict.fromkeys(_FLAGS, False)}
            content["added_tokens"].append(added[text])
        added[text].update({key: token[key] for key in _FLAGS if isinstance(token.get(key), bool)})
    prefix = config.get("add_prefix_space")
    for part in components(content.get("pre_tokenizer")):
        _require_same(part, "ByteLevel", {"add_prefix_space": prefix}, name)
    for part in components(content.get("normalizer")):
        lowercase, accents = config.get("do_lower_case"), config.get("strip_accents")
        settings = {"lowercase": lowercase, "strip_accents": accents}
        settings["handle_chinese_chars"] = config.get("tokenize_chinese_chars")
        _require_same(part, "BertNormalizer", settings, name)


def named_end_of_text(config: Json, name: str) -> str | None:
    """The end-of-text token that a `tokenizer_config.json` names."""
    named = config.get("eos_token")
    text = named.get("content") if isinstance(named, dict) else named
    if text is not None and not isinstance(text, str):
        raise UserError(f"{name}: eos_token is {str(named)[:60]!r} in its tokenizer_config.json", fix="name a token")
    return text


def components(part: Json | None) -> Iterator[Json]:
    """The steps of a normalizer, pre-tokenizer or decoder, those of a sequence one by one."""
    if part:
        steps = next((part[key] for key in ("normalizers", "pretokenizers", "decoders") if key in part), None)
        if steps is None:
            yield part
        for step in steps or ():
            yield from components(step)


def notice_settings(content: Json, special: frozenset[int], name: str) -> None:
    """Warns of settings that make text come back changed, and of those that are switched off.

    Args:
        content: the `tokenizer.json`.
        special: the ids that no text is encoded to.
        name: what the vocabulary is called.
    """
    if content["model"].get("dropout"):
        _notice(f"{name} drops merges at random (dropout {content['model']['dropout']:g}); this is switched off")
    greedy = [t["content"] for t in content["added_tokens"] if (t["lstrip"] or t["rstrip"]) and t["id"] not in special]
    if greedy:
        tokens = ", ".join(map(repr, greedy[:3])) + " …" * (len(greedy) > 3)
        _notice(f"{name}: white space beside {tokens} in a text is lost (lstrip, rstrip)")


def _notice(text: str) -> None:
    warnings.warn(text, Notice, stacklevel=2)


def _encoding(model: Json, decoder: Json | None, name: str) -> str:
    kind = model.get("type")
    if kind == "BPE" and any(step["type"] == "ByteLevel" for step in components(decoder)):
        return "byte-level"
    if kind in ("BPE", "Unigram") and SPACE in json.dumps(decoder, ensure_ascii=False):
        return "sentencepiece"
    if kind == "WordPiece" and decoder and decoder.get("prefix") == model.get("continuing_subword_prefix") == "##":
        return "wordpiece"
    raise UserError(
        f"{name} holds a {kind} tokenizer whose way of decoding is not supported",
        fix="byte-level BPE, SentencePiece (▁) BPE and Unigram, and WordPiece (##) are",
    )


def _check_decoder(content: Json, encoding: str, name: str) -> None:
    steps = list(components(content.get("decoder")))
    for step in steps:
        is_space = step.get("pattern") == {"String": SPACE} and step.get("content") == " "
        if step["type"] not in _DECODERS[encoding] or (step["type"] == "Replace" and not is_space):
            raise UserError(f"{name}: the decoder {_described(step)} is not supported")
    if content["model"].get("byte_fallback") and encoding == "sentencepiece" and not has_byte_tokens(content):
        raise UserError(
            f"{name}: its model falls back to bytes (byte_fallback), which its decoder does not join to text",
            fix="add ByteFallback to the decoder",
        )


def has_byte_tokens(content: Json) -> bool:
    """Whether entries such as `<0xE2>` stand for bytes, rather than for their letters."""
    return any(step["type"] == "ByteFallback" for step in components(content.get("decoder")))


def _check_pretokenizers(content: Json, encoding: str, name: str) -> None:
    steps = list(components(content.get("pre_tokenizer")))
    kinds = [step["type"] for step in steps]
    byte_steps = [*kinds, *(step["type"] for step in components(content.get("normalizer")))].count("ByteLevel")
    if byte_steps != (encoding == "byte-level"):
        raise UserError(
            f"{name}: it has {byte_steps} ByteLevel steps before its model, which is {encoding}",
            fix="a byte-level model has one, as pre-tokenizer or normalizer; other models have none",
        )
    words_keep_spaces = encoding == "wordpiece"
    for step in reversed(steps):
        is_space = step["type"] == "Metaspace"
        if is_space and (encoding != "sentencepiece" or step["replacement"] != SPACE):
            raise UserError(f"{name}: the pre-tokenizer {_described(step)} does not fit its decoder")
        words_keep_spaces |= is_space and step["prepend_scheme"] == "always"
        if _removes_text(step) and not (_removes_white_space(step) and words_keep_spaces):
            raise UserError(f"{name}: the pre-tokenizer {_described(step)} removes text, which would be lost")


def _removes_text(step: Json) -> bool:
    return step.get("behavior") == "Removed" or _removes_white_space(step) or step["type"] == "CharDelimiterSplit"


def _removes_white_space(step: Json) -> bool:
    if step["type"] == "Split":
        return step["behavior"] == "Removed" and not step["invert"] and step["pattern"] in _WHITE_SPACE_PATTERNS
    if step["type"] == "CharDelimiterSplit":
        return bool(step["delimiter"] == " ")
    return step["type"] in ("Whitespace", "WhitespaceSplit", "BertPreTokenizer")


def _described(step: Json) -> str:
    settings = {key: value for key, value in step.items() if key != "type"}
    return f"{step['type']} {json.dumps(settings, ensure_ascii=False)[:100]}" if settings else step["type"]


def _require_same(part: Json, kind: str, settings: Json, name: str) -> None:
    for key, value in settings.items():
        if part["type"] == kind and value is not None and value != part.get(key):
            raise UserError(
                f"{name}: {key} is {str(value)[:20]} in its tokenizer_config.json and {part.get(key)} in its "
                "tokenizer.json",
                fix="make the two agree",
            )


def _typed(config: Json, key: str, kind: type, name: str) -> Any:
    value = config.get(key) or kind()
    if not isinstance(value, kind):
        raise UserError(f"{name}: {key} of its tokenizer_config.json is no {kind.__name__}", fix="copy it anew")
    return value


_IN_UTF8 = [byte for byte in range(256) if byte not in (0xC0, 0xC1, *range(0xF5, 0x100))]


def require_all_text(content: Json, encoding: str, ordinary: Set[str], end: str, name: str) -> None:
    """Refuses a tokenizer that would drop text without a trace.

    Args:
        content: the `tokenizer.json`.
        encoding: see `entry_encoding`.
        ordinary: the entries that its model may encode text to.
        end: the end-of-text token.
        name: what the vocabulary is called.

    Raises:
        UserError: if there are characters that it has neither entries nor an unknown token for.
    """
    model = content["model"]
    missing = ["every character"]
    if encoding == "byte-level":
        letters = byte_characters()
        missing = [f"the byte {byte:#04x}" for byte in _IN_UTF8 if letters[byte] not in ordinary]
    elif model.get("byte_fallback"):
        missing = [f"the byte {byte:#04x}" for byte in _IN_UTF8 if f"<0x{byte:02X}>" not in ordinary]
    if not missing and model["type"] != "Unigram":  # which needs an unknown token even so
        return
    unknown = unknown_token(model)
    if unknown == end and missing:
        raise UserError(f"{name}: text that it has no entries for would become its end-of-text token {end!r}")
    if unknown is None:
        raise UserError(
            f"{name} has no unknown token and no entry for {missing[0] if missing else 'some characters'}"
            f"{f' and {len(missing) - 1} others' * (len(missing) > 1)}, so text would be lost",
            fix="train it with all bytes as its alphabet (initial_alphabet), or give it an unk_token",
        )


def unknown_token(model: Json) -> str | None:
    """The entry for text that a model has no other entries for; None if there is none."""
    if model["type"] == "Unigram":
        number, vocabulary = model["unk_id"], model["vocab"]
        return vocabulary[number][0] if number is not None and number < len(vocabulary) else None
    return model["unk_token"] if model["unk_token"] in model["vocab"] else None
