"""datatrove's own dataset reads what `export` writes, and its writer writes the same bytes."""

import numpy as np
import pytest

from stochastok_cli.data.expand import expand
from stochastok_cli.data.export import export
from stochastok_cli.data.memmap import Corpus
from stochastok_cli.tokenization.loaders import load_vocabulary
from tests.data.chat_tokenizers import save_tokenizer, template
from tests.data.test_export import DOCUMENTS, END, make_corpus, make_questions
from tests.data.test_sft_dataset import PAIRS


def files_of(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.slow
@pytest.mark.parametrize(("size", "token_size"), [(65_536, 2), (128_000, 4)])
def test_a_corpus(tmp_path, size, token_size):
    pytest.importorskip("datatrove")
    from datatrove.pipeline.tokens.tokenizer import TokenizedFile
    from datatrove.utils.dataset import DatatroveFolderDataset

    documents = {"train": [*DOCUMENTS["train"], [size - 1, END]], "val": DOCUMENTS["val"]}
    make_corpus(tmp_path, documents, size)
    made = export("corpus", format="datatrove", data_dir=tmp_path)
    for split, lists in documents.items():
        name = f"00000_{split}.ds"
        settings = {"tokenizer_name_or_path": "nowhere", "save_final_metadata": True, "token_size": token_size}
        file = TokenizedFile(str(tmp_path / split), name, **settings)
        for ids in lists:
            file.write(ids, None)
        file.close()
        assert files_of(made.path / split) == files_of(tmp_path / split)
        tokens = [i for ids in lists for i in ids]
        dataset = DatatroveFolderDataset(
            str(made.path / split), seq_len=len(tokens) - 1, token_size=token_size, return_positions=True
        )
        assert len(dataset) == 1
        assert dataset[0]["input_ids"].tolist() == tokens
        assert dataset[0]["positions"].tolist() == [place for ids in lists for place in range(len(ids))]


@pytest.mark.slow
def test_what_it_writes_is_expanded(tmp_path):
    pytest.importorskip("datatrove")
    from datatrove.data import Document
    from datatrove.pipeline.tokens import DocumentTokenizer

    tokenizer = save_tokenizer(tmp_path / "tokenizer", template("chatml"))
    vocabulary = load_vocabulary(tokenizer)
    texts = [f"Document {i} says something." for i in range(5)]
    step = DocumentTokenizer(
        str(tmp_path / "tokens"),
        str(tokenizer / "tokenizer.json"),
        eos_token=vocabulary.token_text(vocabulary.end_of_text),
        shuffle_documents=False,
    )
    step.run([Document(text, str(i)) for i, text in enumerate(texts)])
    (file,) = (tmp_path / "tokens").glob("*.ds")
    made = expand(str(file), p=1.0, tokenizer=tokenizer, data_dir=tmp_path)
    ids = Corpus(made.path).ids("train")
    parts = np.split(ids, np.flatnonzero(ids == vocabulary.end_of_text) + 1)[:-1]
    assert [vocabulary.decode(part[:-1]) for part in parts] == texts


@pytest.mark.slow
def test_questions(tmp_path):
    pytest.importorskip("datatrove")
    from datatrove.utils.dataset import DatatroveFolderDataset

    make_questions(tmp_path)
    made = export("questions", format="datatrove", data_dir=tmp_path)
    rows = [question + answer for question, answer in PAIRS["train"]]
    folder = made.path / "train"
    dataset = DatatroveFolderDataset(str(folder), seq_len=12)
    assert dataset[0]["input_ids"].tolist() == [i for row in rows for i in row]
    loss = np.fromfile(folder / "00000_train.ds.loss", np.uint8).tolist()
    assert loss == [value for question, answer in PAIRS["train"] for value in [0] * len(question) + [1] * len(answer)]
    assert np.fromfile(folder / "00000_train.ds.index", "<u8").tolist() == [4, 7, 13]
