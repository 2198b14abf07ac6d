"""The law of `unigram` by enumeration and against SentencePiece's own sampling, and what it refuses."""

import math
from collections import Counter

import numpy as np
import pytest
from scipy.stats import chisquare
from tokenization.tiny_tokenizers import unigram, write

from stochastok_cli import StochasTok, UserError, load_vocabulary

PIECES = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -4.0)]
PIECES += [(letter, -3.0 - i / 4) for i, letter in enumerate("hugs")]
PIECES += [("▁hugs", -1.5), ("▁hug", -2.0), ("hu", -2.5), ("ug", -2.2), ("gs", -3.1), ("▁h", -3.3)]
PIECES += [(f"<0x{byte:02X}>", 0.0) for byte in range(256)]


@pytest.fixture
def vocabulary(tmp_path):
    return load_vocabulary(write(tmp_path, unigram(byte_tokens=True, vocab=PIECES)))


def segmentations(text, scores):
    """Every sequence of the pieces, with the sum of their scores."""
    if not text:
        return {(): 0.0}
    return {
        (piece, *rest): scores[piece] + score
        for piece in scores
        if text.startswith(piece)
        for rest, score in segmentations(text[len(piece) :], scores).items()
    }


def law_of(text, scores, alpha, nbest=None):
    best = sorted(segmentations(text, scores).items(), key=lambda entry: -entry[1])[:nbest]
    weights = {parts: math.exp(alpha * score) for parts, score in best}
    return {parts: weight / sum(weights.values()) for parts, weight in weights.items()}


def drawn(vocabulary, token, p, alpha, n, nbest=-1):
    """How often each segmentation of a token comes, as pieces with `▁`."""
    expand = StochasTok(vocabulary, p, f"unigram:alpha={alpha},nbest={nbest}", seed=3)
    out, lengths = expand.documents(np.full(n, token, vocabulary.dtype), np.ones(n, np.int64))
    pieces = [piece.decode(errors="replace").replace(" ", "▁") for piece in vocabulary.pieces]
    documents = np.split(out, np.cumsum(lengths)[:-1])
    return Counter(tuple(pieces[i] for i in document.tolist()) for document in documents)


def require_law(seen, law, n):
    assert set(seen) <= set(law)
    common = [parts for parts in law if n * law[parts] >= 5]
    observed, expected = [seen[parts] for parts in common], [n * law[parts] for parts in common]
    assert len(common) > 1
    assert chisquare(observed, np.array(expected) * (sum(observed) / sum(expected))).pvalue > 1e-4


@pytest.mark.parametrize("alpha", [0, 0.1, 1])
@pytest.mark.parametrize("p", [0.4, 1.0])
def test_segmentations_come_with_the_law_of_their_scores(vocabulary, alpha, p):
    (token,) = vocabulary.encode("hugs")
    scores = {piece: score for piece, score in PIECES[3:] if not piece.startswith("<")}
    law = {parts: p * weight for parts, weight in law_of("▁hugs", scores, alpha).items()}
    law[("▁hugs",)] += 1 - p
    require_law(drawn(vocabulary, token, p, alpha, 20_000), law, 20_000)


@pytest.mark.parametrize("nbest", [2, 7, 9, 10, 512])
@pytest.mark.parametrize("alpha", [0, 1])
def test_the_best_segmentations_come_with_the_law_of_their_scores(vocabulary, alpha, nbest):
    (token,) = vocabulary.encode("hugs")
    scores = {piece: score for piece, score in PIECES[3:] if not piece.startswith("<")}
    law = {parts: 0.8 * weight for parts, weight in law_of("▁hugs", scores, alpha, nbest).items()}
    assert len(law) == min(nbest, 10)
    law[("▁hugs",)] += 0.2
    require_law(drawn(vocabulary, token, 0.8, alpha, 10_000, nbest), law, 10_000)


def test_the_best_segmentation_may_be_another_than_the_token(tmp_path):
    pieces = [(piece, -20.0 if piece == "▁hugs" else score) for piece, score in PIECES]
    vocabulary = load_vocabulary(write(tmp_path, unigram(byte_tokens=True, vocab=pieces)))
    token = [piece for piece, _ in pieces].index("▁hugs")
    assert drawn(vocabulary, token, 1.0, 0.1, 10, nbest=1) == {("▁hug", "s"): 10}


def test_equal_seeds_give_equal_best_segmentations(vocabulary):
    ids = np.array(vocabulary.encode("hugs hug é hugs") * 50)
    expand = StochasTok(vocabulary, 0.5, "unigram:nbest=4", seed=1)
    assert np.array_equal(expand(ids), StochasTok(vocabulary, 0.5, "unigram:nbest=4,alpha=0.10", seed=1)(ids))
    assert not np.array_equal(expand(ids), StochasTok(vocabulary, 0.5, "unigram:nbest=4", seed=2)(ids))
    assert vocabulary.decode_bytes(expand(ids)) == vocabulary.decode_bytes(ids)
    assert np.array_equal(StochasTok(vocabulary, 1.0, "unigram:nbest=1", seed=1)(ids), ids)
    assert expand.method == "unigram:nbest=4"
    whole_law = StochasTok(vocabulary, 0.5, "unigram:nbest=-1", seed=1)
    assert whole_law.method == "unigram"


@pytest.mark.parametrize("value", ["0", "-2", "513", "2.5", "all"])
def test_impossible_numbers_of_segmentations(vocabulary, value):
    with pytest.raises(UserError, match="unigram: nbest (must not be 0|= .* is not possible)"):
        StochasTok(vocabulary, 0.1, f"unigram:nbest={value}")


def test_bytes_of_byte_fallback_and_large_scores(tmp_path):
    pieces = [(piece, score * 1000) for piece, score in PIECES]
    vocabulary = load_vocabulary(write(tmp_path, unigram(byte_tokens=True, vocab=pieces)))
    ids = np.array(vocabulary.encode("hugs é hugs"))
    expand = StochasTok(vocabulary, 1.0, "unigram:alpha=1", seed=0)
    out = expand(ids)
    assert vocabulary.decode_bytes(out) == vocabulary.decode_bytes(ids)
    assert np.array_equal(out, ids)  # the best segmentation is the only one that is ever drawn
    out = StochasTok(vocabulary, 1.0, "unigram:alpha=0", seed=0)(ids)
    assert vocabulary.decode_bytes(out) == vocabulary.decode_bytes(ids)
    in_bytes = [i for i in out.tolist() if i >= len(PIECES) - 256]
    assert in_bytes == [len(PIECES) - 256 + byte for byte in "é".encode()]


def test_another_kind_of_tokenizer_is_refused():
    with pytest.raises(UserError, match="unigram needs the scores of a Unigram model, and 'gpt2' is another kind"):
        StochasTok(load_vocabulary("gpt2"), 0.1, "unigram")


@pytest.mark.slow
@pytest.mark.parametrize("nbest", [-1, 4])
def test_the_law_of_sentencepiece_itself(tmp_path, nbest):
    sentencepiece = pytest.importorskip("sentencepiece")
    pytest.importorskip("google.protobuf")
    text = ["hugs", "bugs", "mugs", "hug", "bug", "mug", "the", "of", "a", "in", "hugs", "hugs", "snug", "rugs", "lugs"]
    prefix = tmp_path / "model"
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([" ".join(text[i:] + text[:i]) for i in range(len(text))] * 20),
        model_prefix=str(prefix),
        vocab_size=60,
        model_type="unigram",
        hard_vocab_limit=False,
        minloglevel=2,
    )
    processor = sentencepiece.SentencePieceProcessor(model_file=f"{prefix}.model")
    vocabulary = load_vocabulary(f"{prefix}.model")
    words = [word for word in sorted(set(text)) if len(vocabulary.encode(word)) == 1]
    word = max(words, key=len)
    (token,) = vocabulary.encode(word)
    n = 20_000
    ours = drawn(vocabulary, token, 1.0, 0.3, n, nbest)
    theirs = Counter(
        tuple(processor.encode(word, out_type=str, enable_sampling=True, alpha=0.3, nbest_size=nbest)) for _ in range(n)
    )
    common = [parts for parts in theirs if theirs[parts] + ours[parts] >= 20]
    assert len(common) > 2
    # Two samples of the same law: the sum of (a - b)^2 / (a + b) is a chi-square (Numerical Recipes, Section 14.3).
    statistic = sum((ours[parts] - theirs[parts]) ** 2 / (ours[parts] + theirs[parts]) for parts in common)
    from scipy.stats import chi2

    assert chi2.sf(statistic, len(common)) > 1e-4
    assert len(words) > 5
    for word in words:
        for most in (1, 2, 5, 512):
            ours = drawn(vocabulary, vocabulary.encode(word)[0], 1.0, 0, 3_000, most)
            theirs = processor.NBestEncodeAsPieces(word, most)
            assert set(ours) == set(map(tuple, theirs))
