"""Patok against exact enumeration of its attempts, and its lists of affixes."""

import json
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from stochastok_cli import StochasTok, UserError, Vocabulary, load_vocabulary
from stochastok_cli.tokenization.methods import expansion_label, require_method
from stochastok_cli.tokenization.methods.patok import affix_table
from stochastok_cli.tokenization.pretokenizers import pretokens_of_tokens
from tests.preloaded_python import run_stochastok
from tests.tokenization.tiny_tokenizers import wordpiece, write

GPT2 = load_vocabulary("gpt2")
PIECES = [b"m", b"a", b"g", b"l", b"ma", b"ag", b"mag", b"la", b"agl", b" ", b" m", b" ma", b"lag", b"gl", b"maglag"]
TOY = Vocabulary(
    name="toy",
    pieces=[*PIECES, b"<|endoftext|>"],
    special=[len(PIECES)],
    end_of_text=len(PIECES),
    encoder=lambda: None,
    pretokenizes_like_gpt2=True,
)
AFFIXES = {"prefixes": {b"ma", b" ma", b"Ma", b" Ma"}, "suffixes": {b"ag", b"ag "}, "infixes": {b"a"}}
RUNS = {2: 0.35, 3: 0.35, 4: 0.3}


def divisions(entry, lists):
    """Every way to cut an affix off an entry into entries."""
    ways = set()
    for i in range(1, len(entry)):
        head, tail = entry[:i], entry[i:]
        if head in lists["prefixes"] or tail in lists["suffixes"]:
            ways.add((head, tail))
        ways |= {(head, tail[:j], tail[j:]) for j in range(1, len(tail)) if tail[:j] in lists["infixes"]}
    return sorted(parts for parts in ways if set(parts) <= set(PIECES))


def contracted(law, awareness, lists, together):
    """The law after one more attempt to merge, of documents that are tuples of entries."""
    affixes = set().union(*lists.values())
    after = Counter()
    for document, mass in law.items():
        for size, share in RUNS.items():
            starts = len(document) - size + 1
            if starts < 1:
                after[document] += mass * share
            for start in range(max(starts, 0)):
                each = mass * share / starts
                run = document[start : start + size]
                entry = b"".join(run)
                if entry not in PIECES or not together(document, start, size):
                    after[document] += each
                    continue
                stays = awareness if affixes & set(run) else 0.0
                after[document] += each * stays
                ways = divisions(entry, lists)
                cut = awareness if ways else 0.0
                rest = each * (1 - stays)
                after[(*document[:start], entry, *document[start + size :])] += rest * (1 - cut)
                for parts in ways:
                    after[document[:start] + parts + document[start + size :]] += rest * cut / len(ways)
    return after


def split(law, lists):
    """The law after one more attempt to split, of tokens that are no affix."""
    affixes = set().union(*lists.values())
    after = Counter()
    for document, mass in law.items():
        may = [i for i, piece in enumerate(document) if piece not in affixes]
        if not may:
            after[document] += mass
        for i in may:
            piece = document[i]
            pairs = [(piece[:j], piece[j:]) for j in range(1, len(piece)) if {piece[:j], piece[j:]} <= set(PIECES)]
            for pair in pairs or [(piece,)]:
                after[document[:i] + pair + document[i + 1 :]] += mass / len(may) / max(len(pairs), 1)
    return after


def exact_law(document, contract_prop, p, awareness, lists, together):
    law = Counter({document: 1.0})
    for _ in range(int(len(document) * contract_prop)):
        law = contracted(law, awareness, lists, together)
    after = Counter()
    by_length = {}
    for one, mass in law.items():
        by_length.setdefault(len(one), Counter())[one] += mass
    for length, some in by_length.items():
        for _ in range(int(length * p)):
            some = split(some, lists)
        after.update(some)
    return after


def anywhere(document, start, size):
    return True


def in_one_pretoken(document, start, size):
    """Pretokens of the toy begin at a space before a letter, and at the first of two spaces."""
    text, begin = b"".join(document), len(b"".join(document[:start]))
    end = begin + len(b"".join(document[start : start + size]))
    return not any(text[i : i + 1] == b" " for i in range(begin + 1, end))


CASES = [
    ((b"m", b"a", b"g", b"l", b"a"), 0.6, 0.5, 0.7, AFFIXES, 0),
    ((b"ma", b"g", b"la", b"g"), 0.5, 0.6, 0.4, AFFIXES, 0),
    ((b" ", b"ma", b"ag", b" ", b"m", b"a"), 0.5, 0.2, 0.6, AFFIXES, 0),
    ((b"a", b" ", b"m", b"a"), 0.75, 0.3, 1.0, {"prefixes": set(), "suffixes": set(), "infixes": {b"a"}}, 1),
    ((b"m", b"a", b"g", b"l", b"a", b"g"), 0.5, 0.0, 0.9, {name: set() for name in AFFIXES}, 0),
    ((b"maglag", b"mag"), 1.0, 1.0, 0.5, AFFIXES, 1),
]


@pytest.mark.parametrize(("document", "contract_prop", "p", "awareness", "lists", "across"), CASES)
def test_the_law(document, contract_prop, p, awareness, lists, across):
    law = exact_law(document, contract_prop, p, awareness, lists, anywhere if across else in_one_pretoken)
    assert sum(law.values()) == pytest.approx(1)
    spelled = {name: "+".join({a.decode().strip().lower() for a in some}) for name, some in lists.items() if some}
    method = f"patok:contract_prop={contract_prop},affix_awareness={awareness},across={across}"
    method += "".join(f",{name}={some}" for name, some in spelled.items())
    draws = 60_000
    ids = [PIECES.index(piece) for piece in document]
    out = StochasTok(TOY, p, method, seed=3)([ids] * draws)
    seen = Counter(tuple(PIECES[i] for i in one) for one in out)
    assert set(seen) <= set(law) and len(law) > 2
    often = [one for one, share in law.items() if share * draws > 5]
    expected = np.array([law[one] for one in often]) * draws
    counts = np.array([seen[one] for one in often])
    if len(often) < len(law):
        expected, counts = np.append(expected, draws - expected.sum()), np.append(counts, draws - counts.sum())
    assert stats.chisquare(counts, expected).pvalue > 1e-3


@pytest.mark.parametrize("across", [0, 1])
@settings(max_examples=50, deadline=None)
@given(data=st.data())
def test_every_document(across, data):
    """Bytes and special tokens stay, and a document does not depend on those beside it."""
    documents = data.draw(st.lists(st.lists(st.integers(0, GPT2.size - 1), max_size=12), min_size=1, max_size=4))
    letters = st.sampled_from([GPT2.pieces.index(bytes([c])) for c in b"magin ' \xc3\xa9"])
    documents.append(data.draw(st.lists(letters | st.just(GPT2.end_of_text), max_size=30)))
    draw = StochasTok(GPT2, 0.3, f"patok:prefixes=ma+mag,infixes=in,contract_prop=3,across={across}", seed=1)
    out = draw(documents, 5)
    for i, (before, after) in enumerate(zip(documents, out, strict=True)):
        assert GPT2.decode_bytes(after) == GPT2.decode_bytes(before)
        specials = [[t for t in ids if GPT2.is_special(t)] for ids in (before, after.tolist())]
        assert specials[0] == specials[1]
        np.testing.assert_array_equal(draw(before, 5 + i), after)


def test_it_shortens_and_leaves_pretokens_and_kept_tokens():
    ids = GPT2.encode("".join(chr(ord("a") + i % 26) for i in range(10)) + "\n\ndon't un be lie va ble")
    letters = [GPT2.pieces.index(bytes([byte])) for byte in GPT2.decode_bytes(ids)]
    within = StochasTok(GPT2, 0, "patok:contract_prop=20")
    across = StochasTok(GPT2, 0, "patok:contract_prop=20,across=1")
    ends = {n: set(np.cumsum(GPT2.widths[draw(letters, n)])) for n in range(30) for draw in [within]}
    words = np.cumsum([len(w) for w in ["abcdefghij", "\n", "\n", "don", "'t", " un", " be", " lie", " va", " ble"]])
    assert all(set(words) <= some for some in ends.values())
    assert all(b"\n\n" in [GPT2.pieces[i] for i in across(letters, n)] for n in range(30))
    assert len(within(letters)) < 0.6 * len(letters)
    kept = StochasTok(GPT2, 0, "patok:contract_prop=20", keep="[aeiou]")(letters)
    vowels = [i for i in letters if GPT2.pieces[i] in (b"a", b"e", b"i", b"o", b"u")]
    assert [i for i in kept if i in vowels] == vowels


def test_at_most_so_many_splits_and_no_attempts():
    ids = GPT2.encode("An unbelievable rebuilding of sentences")
    for index in range(20):
        few = StochasTok(GPT2, 5, "patok:contract_prop=0", max_splits=2)(ids, index)
        assert len(few) == len(ids) + 2
    assert StochasTok(GPT2, 0, "patok:contract_prop=0")(ids).tolist() == ids
    assert StochasTok(GPT2, 0.5, "patok", round_budget="randomly")([]).size == 0
    alone = [StochasTok(GPT2, 0.4, "patok", round_budget="randomly")([ids[1]], i).size for i in range(2000)]
    assert np.mean(np.array(alone) > 1) == pytest.approx(0.4, abs=0.04)


def test_entries_and_affixes_of_gpt2():
    table = affix_table(GPT2, "re", "ing+able", "")
    pieces = {GPT2.pieces[i] for i in np.flatnonzero(table.is_affix)}
    assert pieces == {b"re", b" re", b"Re", b" Re", b"ing", b"able"}
    token = GPT2.pieces.index(b" rebuilding")
    rows = table.parts[table.first[token] : table.first[token + 1]]
    assert {tuple(GPT2.pieces[i] for i in row if i >= 0) for row in rows} == {
        (b" rebuild", b"ing"),
        (b" re", b"building"),
    }
    assert not affix_table(GPT2, "", "", "").is_affix.any()


def test_words_of_a_wordpiece_vocabulary(tmp_path):
    entries = ["[UNK]", "[SEP]", "a", "##b", "##c", "ab", "##bc", "abc", "b"]
    vocabulary = load_vocabulary(write(tmp_path, wordpiece(vocab={entry: i for i, entry in enumerate(entries)})))
    ids = [entries.index(entry) for entry in ("a", "##b", "##c", "b", "##c")]
    first, last = pretokens_of_tokens(vocabulary, np.array([*ids, 1], np.uint16), np.array([3, 3]))
    assert first.tolist() == last.tolist() == [0, 0, 0, 1, 1, 2]
    out = StochasTok(vocabulary, 0, "patok:contract_prop=20")(ids).tolist()
    assert [entries[i] for i in out] == ["abc", "b", "##c"]


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("patok:contract_prop=0.90,across=0", "patok"),
        ("patok:prefixes=mag+ma+mag", "patok:prefixes=ma+mag"),
        ("patok:suffixes= an + in ,affix_awareness=1", "patok:affix_awareness=1,suffixes=an+in"),
    ],
)
def test_one_spelling(text, name):
    assert require_method(text).name == name


def test_a_file_of_affixes(tmp_path):
    file = tmp_path / "prefixes.txt"
    file.write_text("mag\n\n ma \n", encoding="utf-8")
    named = f"patok:prefixes=@{file}"
    assert require_method(named).name == "patok:prefixes=ma+mag"
    assert StochasTok(GPT2, 0.1, named).key == StochasTok(GPT2, 0.1, "patok:prefixes=ma+mag").key
    file.write_text("\n".join(f"affix{chr(ord('a') + i % 26)}{i}" for i in range(80)), encoding="utf-8")
    label = expansion_label(named, 0.1)
    assert len(label) < 130 and label == expansion_label(require_method(named).name, 0.1)


def test_lists_as_options(tmp_path):
    file = tmp_path / "prefixes.txt"
    file.write_text("mag\nma\n", encoding="utf-8")
    base = ["expand", "--text", "magandang umaga", "--json", "--samples", "2", "--method"]
    named = run_stochastok(*base, "patok:prefixes=ma+mag,suffixes=an,uniform")
    given = run_stochastok(*base, "patok,uniform", "--prefixes", str(file), "--suffixes", "an")
    assert (named.returncode, given.returncode) == (0, 0), given.stderr
    samples = [[sample["ids"] for sample in json.loads(done.stdout)] for done in (named, given)]
    assert samples[0] == samples[1] and len(samples[0]) == 5
    for method, options, message in [
        ("uniform", ["--infixes", "um"], "--infixes would have no effect with --method uniform; add --method patok"),
        ("all", ["--infixes", "um"], "--infixes goes with methods that are named, not with all"),
        ("patok:infixes=in", ["--infixes", "um"], "--infixes and patok:infixes=in both give infixes"),
        ("patok", ["--prefixes", str(tmp_path / "none.txt")], "none.txt can't be read: No such file"),
        ("patok", ["--prefixes", "m a"], "'m a' is no affix"),
        ("all,uniform", [], "all stands for every method, and is not one of several; give --method all alone"),
    ]:
        refused = run_stochastok(*base, method, *options)
        assert message in refused.stderr and refused.returncode in (1, 2), refused.stderr
    once = run_stochastok(*base, "uniform,uniform")
    assert [sample["label"] for sample in json.loads(once.stdout)] == ["canonical", "sample 1", "sample 2"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "can't be read: No such file"),
        (b"\n", "have no line with one; give one affix a line"),
        (b"ma\n\xff", "not UTF-8 text"),
        (b"ma\nm a", "line 2: 'm a' is no affix; give letters"),
    ],
)
def test_files_that_are_refused(tmp_path, content, message):
    file = tmp_path / "affixes.txt"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(UserError, match=message):
        require_method(f"patok:infixes=@{file}")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("patok:prefixes=ma++in", "patok: prefixes: '' is no affix"),
        ("patok:prefixes=m(a", "'m\\(a' is no affix"),
        ("patok:across=2", "across = 2 is not possible; give a whole number from 0 up to 1"),
        ("patok:prefix=ma", "no argument 'prefix=ma'; did you mean 'prefixes'"),
    ],
)
def test_arguments_that_are_refused(text, message):
    with pytest.raises(UserError, match=message):
        require_method(text)
