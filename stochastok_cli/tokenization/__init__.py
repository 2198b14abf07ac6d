"""Vocabularies, and the ways to tokenize a text with one."""

BUNDLED = {"gpt2": "gpt2.bpe", "sample2k": "sample2k.bpe"}
"""The vocabularies in the package, by name, and the merge list of each."""
