"""Columns of an example that follow its expansion: labels of both conventions, weights, and those that are refused."""

import warnings

import numpy as np
import pytest

from stochastok_cli import StochasTok, UserError, load_vocabulary
from stochastok_cli.errors import Notice
from stochastok_cli.integrations.transformers import ExpandingCollator, MapExamples, expand_example

GPT2 = load_vocabulary("gpt2")
EXPAND = StochasTok(GPT2, p=2)
IDS = GPT2.encode("Example 7 about hundreds of elephants walking home")
WORD = GPT2.encode(" hundreds")[0]  # a token that is split


def expanded(row, index=0, **options):
    return expand_example(EXPAND, row, index, **options)


def shifted(ids, after=-100):
    return [*ids[1:], after]


def origins_of(row, index=0):
    """The position of the token that each id is a part of."""
    return expanded({"input_ids": row, "word_ids": [*range(len(row))]}, index)["word_ids"]


@pytest.mark.parametrize("after", [-100, 1000])
def test_labels_that_were_shifted_beforehand_are_the_next_ids(after):
    out = expanded({"input_ids": IDS, "labels": shifted(IDS, after), "shift_labels": shifted(IDS, after)})
    assert len(out["input_ids"]) > len(IDS)
    assert out["labels"] == out["shift_labels"] == shifted(out["input_ids"], after)


def test_shifted_labels_of_a_prompt_have_the_mask_of_the_token_that_they_predict():
    prompt = 4
    labels = [-100] * (prompt - 1) + IDS[prompt:] + [-100]
    mask = [0] * (prompt - 1) + [1] * (len(IDS) - prompt) + [0]
    row = {"input_ids": IDS, "labels": labels, "loss_mask": mask, "loss_weights": [0.5 * m for m in mask]}
    for index in range(5):
        out, origin = expanded(row, index), origins_of(IDS, index)
        wanted = [t if o >= prompt else -100 for t, o in zip(out["input_ids"], origin, strict=True)]
        assert out["labels"] == shifted(wanted)
        assert out["loss_mask"] == [int(label != -100) for label in out["labels"]]
        assert out["loss_weights"] == [0.5 * m for m in out["loss_mask"]]


def test_a_mask_of_the_loss_of_shifted_labels_that_are_not_there():
    mask = [0, 0, *[1] * (len(IDS) - 3), 0]  # the loss of ids 3 and on
    out = expanded({"input_ids": IDS, "loss_mask": mask}, shifted_labels=True)
    assert out["loss_mask"] == [*(int(o >= 3) for o in origins_of(IDS)[1:]), 0]
    out = expanded({"input_ids": IDS, "loss_mask": mask})
    assert out["loss_mask"] == [mask[o] for o in origins_of(IDS)]


def test_shifted_labels_and_padding():
    pad = GPT2.end_of_text
    for left, right in ((2, 0), (0, 3)):
        row = {
            "input_ids": [pad] * left + IDS + [pad] * right,
            "attention_mask": [0] * left + [1] * len(IDS) + [0] * right,
            "labels": [-100] * left + shifted(IDS) + [-100] * right,
        }
        out = expanded(row)
        content = out["input_ids"][left : len(out["input_ids"]) - right]
        assert out["labels"] == [-100] * left + shifted(content) + [-100] * right


@pytest.mark.parametrize("max_length", [1, 3, 6, 9])
def test_shifted_labels_of_a_row_that_is_cut(max_length):
    """The last label is that of the next token where its own token is whole, and -100 where it is cut."""
    for seed in range(6):
        collator = ExpandingCollator(StochasTok(GPT2, p=2, seed=seed), then=list, max_length=max_length)
        row = {"input_ids": IDS, "labels": shifted(IDS), "word_ids": [*range(len(IDS))]}
        [out] = collator([row])
        last = out["word_ids"][-1]
        whole = GPT2.decode([t for t, o in zip(out["input_ids"], out["word_ids"], strict=True) if o == last])
        after = shifted(IDS)[last] if whole == GPT2.decode([IDS[last]]) else -100
        assert out["labels"] == shifted(out["input_ids"], after)


AMBIGUOUS = {"input_ids": [WORD] * 4, "labels": [WORD] * 4}


def test_a_row_of_equal_ids_is_refused_by_name_unless_something_tells():
    with pytest.raises(UserError, match="column 'labels'.*shifted_labels=True or"):
        expanded(AMBIGUOUS)
    out = expanded(AMBIGUOUS, shifted_labels=False)
    assert out["labels"] == out["input_ids"] != AMBIGUOUS["input_ids"]
    out = expanded(AMBIGUOUS, shifted_labels=True)
    assert out["labels"] == shifted(out["input_ids"], WORD)


@pytest.mark.parametrize("labels", [IDS, shifted(IDS)])
@pytest.mark.parametrize("use", ["map", "collator"])
def test_a_row_of_equal_ids_takes_the_convention_of_others_before_or_after_it(labels, use):
    rows = [AMBIGUOUS, {"input_ids": IDS, "labels": labels}, AMBIGUOUS]
    if use == "map":
        batch = MapExamples(EXPAND)({name: [row[name] for row in rows] for name in rows[0]}, [0, 1, 2])
        out = [
            {"input_ids": i, "labels": labels} for i, labels in zip(batch["input_ids"], batch["labels"], strict=True)
        ]
    else:
        collator = ExpandingCollator(EXPAND, then=list)
        out = [*collator(rows[:2]), *collator(rows[2:])]
    for row, after in zip(out, (WORD, -100, WORD), strict=True):
        assert row["labels"] == (row["input_ids"] if labels is IDS else shifted(row["input_ids"], after))


def test_rows_of_both_conventions_tell_nothing_about_one_of_equal_ids():
    collator = ExpandingCollator(EXPAND, then=list)
    collator([{"input_ids": IDS, "labels": IDS}, {"input_ids": IDS, "labels": shifted(IDS)}])
    with pytest.raises(UserError, match="equal ids"):
        collator([AMBIGUOUS])


def test_rows_in_which_both_conventions_give_the_same_or_only_one_is_likely():
    nothing = {"input_ids": [WORD] * 3, "labels": [-100] * 3}
    assert set(expanded(nothing)["labels"]) == {-100}
    only_last = {"input_ids": [*IDS, WORD], "labels": [-100] * len(IDS) + [WORD]}
    out = expanded(only_last)
    parts = origins_of(only_last["input_ids"]).count(len(IDS))
    assert out["labels"] == [-100] * (len(out["labels"]) - parts) + out["input_ids"][-parts:]
    assert (
        expanded({"input_ids": [WORD], "labels": [WORD]}, 1)["labels"]
        == expanded({"input_ids": [WORD]}, 1)["input_ids"]
    )
    other = {"input_ids": IDS, "labels": [-100] * (len(IDS) - 1) + [3]}  # a class, or shifted: nothing tells
    assert expanded(other)["labels"] == other["labels"]
    assert expanded(other, shifted_labels=True)["labels"][-2:] == [-100, 3]


def test_labels_that_contradict_what_the_user_says_are_refused_by_name():
    for said, labels in ((True, IDS), (False, shifted(IDS)), (True, [7] * len(IDS)), (False, [7] * len(IDS))):
        with pytest.raises(UserError, match=f"column 'labels'.*shifted_labels={said}"):
            expanded({"input_ids": IDS, "labels": labels}, shifted_labels=said)
    with pytest.raises(UserError, match="column 'labels' repeats the ids without their first"):
        expanded({"input_ids": IDS, "labels": IDS[1:]})


def test_each_part_has_the_weight_of_its_token():
    """A weighted sum of losses stays that of the tokens, and weights of 0 and 1 mean what a mask means."""
    weights = [0.0, 1.0, 0.25, 2.0, *[1.0] * (len(IDS) - 4)]
    out = expanded({"input_ids": IDS, "loss_weights": weights, "loss_mask": [int(w > 0) for w in weights]})
    assert out["loss_weights"] == [weights[o] for o in origins_of(IDS)]
    assert out["loss_mask"] == [int(w > 0) for w in out["loss_weights"]]


def test_word_ids_with_none_at_special_tokens():
    ids = [*IDS, GPT2.end_of_text]
    words = [*range(len(IDS)), None]
    assert expanded({"input_ids": ids, "word_ids": words})["word_ids"] == [words[o] for o in origins_of(ids)]


def rows_with(column, value, rows=10):
    for i in range(rows):
        ids = IDS[: 3 + i % 5]
        yield {"input_ids": ids, column: value(ids)}


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("pos_tags", lambda ids: [1] * len(ids)),
        ("tokens", lambda ids: [GPT2.decode([i]) for i in ids]),
        ("labels", lambda ids: [1] * len(ids)),
        ("bbox", lambda ids: np.zeros((len(ids), 4))),
    ],
)
def test_an_unknown_column_with_a_value_for_each_id_is_refused_by_name(column, value):
    rows = list(rows_with(column, value))
    with pytest.raises(UserError, match=f"column '{column}' has one value for each id"):
        ExpandingCollator(EXPAND, then=list)(rows)
    followed = ExpandingCollator(EXPAND, then=list, per_token=[column])(rows)
    assert all(len(row[column]) == len(row["input_ids"]) for row in followed)
    left = ExpandingCollator(EXPAND, then=list, unrelated=[column])(rows)
    assert all(out[column] is row[column] for out, row in zip(left, rows, strict=True))
    with pytest.raises(UserError, match="both in per_token and in unrelated"):
        ExpandingCollator(EXPAND, then=list, per_token=[column], unrelated=[column])


def test_a_column_that_has_another_length_in_any_row_is_left_alone():
    rows = list(rows_with("choices", lambda ids: [0] * len(ids)))
    rows[3]["choices"] = [0]
    for row, out in zip(rows, ExpandingCollator(EXPAND, then=list)(rows), strict=True):
        assert out["choices"] == row["choices"]


def test_masks_without_any_assistant_are_noted_once():
    row = {"input_ids": IDS, "assistant_masks": [0] * len(IDS)}
    good = {"input_ids": IDS, "assistant_masks": [0, *[1] * (len(IDS) - 1)]}
    with warnings.catch_warnings(record=True) as noted:
        warnings.simplefilter("always")
        mapped = MapExamples(EXPAND)
        for i, example in enumerate([good, row, row, good]):
            mapped(example, i)
    assert [w.category for w in noted if "assistant_masks" in str(w.message)] == [Notice]


def test_a_row_that_is_cut_is_noted_once():
    with warnings.catch_warnings(record=True) as noted:
        warnings.simplefilter("always")
        ExpandingCollator(EXPAND, then=list, max_length=3 * len(IDS))([{"input_ids": IDS}])
        assert not noted
        ExpandingCollator(EXPAND, then=list, max_length=5)([{"input_ids": IDS}] * 3)
    assert ["longer than max_length" in str(w.message) for w in noted] == [True]


@pytest.mark.parametrize("use", ["map", "collator"])
def test_ids_beside_input_ids_are_those_of_records(use):
    def rows(values):
        return [{"input_ids": IDS, "ids": values(IDS)} for _ in range(10)]

    def results(rows):
        if use == "collator":
            return ExpandingCollator(EXPAND, then=list)(rows)
        mapped = MapExamples(EXPAND)
        return [{**row, **mapped(row, i)} for i, row in enumerate(rows)]

    for value in ("record 7", 7, [7]):
        assert {str(out["ids"]) for out in results(rows(lambda ids, value=value: value))} == {str(value)}
    assert all(len(out["input_ids"]) > len(IDS) for out in results(rows(lambda ids: 7)))
    with pytest.raises(UserError, match="column 'ids' has one value for each id"):
        results(rows(lambda ids: [*range(len(ids))]))


@pytest.mark.parametrize("p", [0, 2])
def test_max_length_is_the_same_for_both(p):
    row = {"input_ids": IDS, "attention_mask": [1] * len(IDS), "labels": IDS}
    expand = StochasTok(GPT2, p=p)
    [out] = ExpandingCollator(expand, then=list, max_length=4)([row])
    mapped = MapExamples(expand, max_length=4)(row, 0)
    assert {len(out[c]) for c in row} == {len(mapped[c]) for c in row} == {4}
    if p == 0:
        assert out["input_ids"] == mapped["input_ids"] == IDS[:4]


@pytest.mark.parametrize(
    ("column", "good", "bad"),
    [
        ("labels", IDS, [-100] * (len(IDS) - 1) + IDS[-1:]),
        ("labels", shifted(IDS), [-100] * (len(IDS) - 2) + [IDS[-1], -100]),
        ("loss_mask", [1] * len(IDS), [0] * (len(IDS) - 1) + [1]),
        ("completion_mask", [1] * len(IDS), [0] * (len(IDS) - 1) + [1]),
    ],
)
def test_a_row_that_max_length_leaves_without_a_label_is_noted_once(column, good, bad):
    def notes(values):
        with warnings.catch_warnings(record=True) as noted:
            warnings.simplefilter("always")
            ExpandingCollator(EXPAND, then=list, max_length=5)([{"input_ids": IDS, column: v} for v in values])
        return sum("without any label" in str(w.message) for w in noted)

    assert notes([good, good]) == 0
    assert notes([good, bad, bad]) == 1
