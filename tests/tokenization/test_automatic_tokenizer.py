"""A note says where transformers gives other ids than a tokenizer.json."""

import subprocess
import sys
import warnings

import pytest
import transformers  # noqa: F401  (ids are compared where it is imported)

from stochastok_cli import load_vocabulary
from stochastok_cli.errors import Notice
from tests.tokenization.test_verified_gigatoken import QWEN, all_pairs, split
from tests.tokenization.tiny_tokenizers import write

CONTENT = all_pairs(split(QWEN))


def test_a_class_that_overrides_the_file(tmp_path):
    config = {"tokenizer_class": "GPT2Tokenizer", "eos_token": "<|endoftext|>"}
    folder = write(tmp_path / "t", CONTENT, config)
    with pytest.warns(Notice, match=r"transformers \(GPT2Tokenizer\) gives other ids than its tokenizer.json"):
        vocabulary = load_vocabulary(folder)
    assert vocabulary.encode("!a 12") == load_vocabulary(write(tmp_path / "u", CONTENT)).encode("!a 12")


@pytest.mark.parametrize(
    "config",
    [
        {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|endoftext|>"},
        {"tokenizer_class": "NoSuchClass", "auto_map": {"AutoTokenizer": ["no_such_module.Class", None]}},
    ],
)
def test_no_note_where_they_agree_or_the_folder_does_not_open(config, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error", Notice)
        assert load_vocabulary(write(tmp_path / "t", CONTENT, config)).encode("!a 12")


@pytest.mark.slow
def test_transformers_is_not_imported_for_a_tokenizer_alone(tmp_path):
    config = {"tokenizer_class": "GPT2Tokenizer", "eos_token": "<|endoftext|>"}
    folder = write(tmp_path / "t", CONTENT, config)
    code = "import sys; from stochastok_cli import load_vocabulary; load_vocabulary(sys.argv[1]).encode('a')"
    code += "; print('transformers' in sys.modules)"

    def is_imported() -> str:
        run = subprocess.run([sys.executable, "-c", code, str(folder)], capture_output=True, text=True, check=True)
        return run.stdout.strip()

    assert is_imported() == "False"
    (folder / "config.json").write_text('{"model_type": "gpt2"}')
    assert is_imported() == "True"
