"""Questions of one's own: every form of row that published sets use, and what is wrong with others."""

import json

import datasets
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stochastok_cli.errors import Notice, UserError
from stochastok_cli.evaluation.benchmarks import Question, load_benchmark
from stochastok_cli.evaluation.evaluators.multiple_choice import MultipleChoice
from stochastok_cli.evaluation.question_rows import read_question_rows
from stochastok_cli.progress import no_progress

PACUTE = {
    "category": "affix_inflection",
    "subcategory": "prefix",
    "prompts": [
        {
            "text_en": 'Which option has the prefix "mag-"?',
            "text_tl": 'Alin ang may laping "mag-"?',
            "mcq_options": {"correct": "mag-aral", "incorrect1": "aral", "incorrect2": "ma-aral"},
            "choice1": "aral",
            "choice2": "mag-aral",
            "choice3": "ma-aral",
        }
    ],
    "label": "B",
}
LANGGAME = {"question": "What starts with 'm'? Answer:", "answer": " make", "options": [" make", " paper"], "id": "l_0"}
ADDITION = {"question": "829+227=", "answer": "1056", "options": ["1056", "1560", "1057"]}
FORMS = {
    "pacute": (
        PACUTE,
        'Which option has the prefix "mag-"?',
        ["mag-aral", "aral", "ma-aral"],
        "affix_inflection_prefix",
    ),
    "langgame": (LANGGAME, LANGGAME["question"], [" make", " paper"], ""),
    "addition": (ADDITION, "829+227=", ["1056", "1560", "1057"], ""),
    "the first is right": ({"prompt": "?", "choices": ["a", "b"], "task": "x"}, "?", ["a", "b"], "x"),
    "an index": ({"question": "?", "choices": ["a", "b", "c"], "answer": 1}, "?", ["b", "a", "c"], ""),
    "as ARC": (
        {"question": "?", "choices": {"text": ["ice", "fire"], "label": ["1", "2"]}, "answerKey": "2"},
        "?",
        ["fire", "ice"],
        "",
    ),
    "columns": ({"question": "?", "option1": "a", "option2": "b", "option3": None, "answer": "B"}, "?", ["b", "a"], ""),
    "numbers": ({"question": "?", "options": [3, 4], "answer": 4, "level": 2}, "?", ["4", "3"], "2"),
}


def read(rows, **options):
    return read_question_rows("benchmark x", datasets.Dataset.from_list(rows), **options)


@pytest.mark.parametrize("form", FORMS)
def test_each_form_of_row(form, jsonl, tmp_path):
    row, question, options, kind = FORMS[form]
    benchmark = load_benchmark(f"mine={jsonl([row])}", tmp_path)
    assert (benchmark.name, benchmark.questions) == ("mine", [Question(question, options, 1, kind)])


def test_a_language_is_chosen(jsonl, tmp_path):
    file = jsonl([PACUTE])
    [question] = load_benchmark(f"mine={file}", tmp_path, language="tl").questions
    assert question.prefix == 'Alin ang may laping "mag-"?'
    with pytest.raises(UserError, match="benchmark mine: --language fr is not there; there are: en, tl"):
        load_benchmark(f"mine={file}", tmp_path, language="fr")
    with pytest.raises(UserError, match="questions are in one language"):
        load_benchmark(f"mine={jsonl([LANGGAME])}", tmp_path, language="tl")
    with pytest.raises(UserError, match="--benchmarks has none"):
        MultipleChoice(("arc",), language="tl").check()
    rows = [{"prompt_en": "?", "prompt_tl": "¿", "answer": "a", "answer_en": None}]
    rows.append({"prompt_en": "!", "prompt_tl": "¡", "answer": None, "answer_en": "b"})
    assert [row.answers for row in read(rows)] == [["a"], ["b"]]  # columns that only some rows have


@settings(max_examples=25)
@given(
    st.lists(st.lists(st.sampled_from("ABCDabcd0123xyz"), min_size=4, max_size=4, unique=True), min_size=1, max_size=6),
    st.data(),
)
def test_letters_numbers_and_texts_name_the_same_option(options, data):
    """An answer is never read as something else than it is in the rest of its file."""
    right = [data.draw(st.integers(0, 3)) for _ in options]
    expected = [one[i] for one, i in zip(options, right, strict=True)]
    for style in ("text", "letter", "number"):
        answers = {"text": expected, "letter": ["ABCD"[i] for i in right], "number": right}[style]
        rows = [{"question": "?", "options": o, "answer": a} for o, a in zip(options, answers, strict=True)]
        ambiguous = all(str(a) in o for o, a in zip(options, answers, strict=True))
        as_texts = [str(answer) for answer in answers]
        if style == "number" and ambiguous and as_texts != expected:
            with pytest.raises(UserError, match="is the text of an option and the number of another"):
                read(rows)
        elif style != "text" or all(a not in "0123" or o[int(a)] == a for o, a in zip(options, answers, strict=True)):
            assert [row.options[0] for row in read(rows)] == (as_texts if ambiguous else expected)


def test_numbers_are_counted_from_one_where_that_is_the_only_way():
    rows = [{"question": "?", "options": ["x", "y", "z"], "answer": answer} for answer in (1, 3)]
    assert [row.options[0] for row in read(rows)] == ["x", "z"]
    assert [row.options[0] for row in read(rows[:1])] == ["y"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"answer": "E"}, r"row 2: the answer 'E' is not the text of an option .*, nor a key \(A, B\), nor a number"),
        ({"answer": None}, "row 2: the answer None"),
        ({"options": ["a"]}, "row 2: there must be two options or more"),
        ({"options": ["a", ""]}, "row 2: an option is empty"),
        ({"options": None}, "row 2: the options must be a list of texts, not null"),
        ({"question": None}, "row 2: the question is no text: null"),
        (
            {"options": {"text": ["a", "b"], "label": ["A", "B", "C"]}},
            "row 2: there must be a label for each of the 2 options",
        ),
    ],
)
def test_a_bad_row_is_named(change, message, jsonl, tmp_path):
    row = {"question": "?", "options": ["a", "b"], "answer": "A"}
    with pytest.raises(UserError, match=f"benchmark mine, {message}"):
        load_benchmark(f"mine={jsonl([row, {**row, **change}])}", tmp_path)


def test_rows_with_other_columns_and_other_numbers_of_options(tmp_path):
    (tmp_path / "mine.csv").write_text("question,option1,option2,option3,answer\nx?,a,b,c,C\ny?,a,b,,B\n")
    questions = load_benchmark(f"mine={tmp_path / 'mine.csv'}", tmp_path).questions
    assert [question.options for question in questions] == [["c", "a", "b"], ["b", "a"]]
    two = {**PACUTE, "prompts": [*PACUTE["prompts"], *PACUTE["prompts"]]}
    with pytest.raises(UserError, match="row 2: the question is no text"):
        read_question_rows("mine", datasets.Dataset.from_list([PACUTE, two]))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (
            {"questoin": "?", "options": ["a", "b"]},
            "no column of questions; did you mean 'questoin'.*there are questoin",
        ),
        ({"question": "?", "answer": "a"}, "no column of options.*--evaluator generation"),
    ],
)
def test_missing_columns_are_named(row, message, jsonl, tmp_path):
    with pytest.raises(UserError, match=f"benchmark mine: there is {message}"):
        load_benchmark(f"mine={jsonl([row])}", tmp_path)


def test_answers_without_options():
    rows = [{"question": "1+1=", "answer": 2}, {"question": "2+2=", "answer": 4}]
    assert [row.answers for row in read(rows)] == [["2"], ["4"]]
    assert read([{"question": "?", "answers": ["a", "b"]}])[0].answers == ["a", "b"]
    with pytest.raises(UserError, match="row 1: the answer is empty"):
        read([{"question": "?", "answer": " "}])
    with pytest.raises(UserError, match="no column of answers; .*answer, answers, label"):
        read([{"question": "?"}])


def test_a_dataset_on_the_hub_and_a_split_of_a_folder(hub_server, tmp_path):
    card = "---\nconfigs:\n- config_name: default\n  data_files:\n  - {split: dev, path: rows.jsonl}\n---\n"
    files = {"README.md": card.encode(), "rows.jsonl": json.dumps(LANGGAME).encode()}
    hub_server.add_dataset("someone/questions", files)
    expected = [Question(LANGGAME["question"], LANGGAME["options"], 1)]
    assert load_benchmark("mine=someone/questions:dev", tmp_path).questions == expected
    rows = datasets.Dataset.from_list([LANGGAME])
    datasets.DatasetDict(one=rows, two=rows).save_to_disk(tmp_path / "rows")
    assert load_benchmark(f"mine={tmp_path / 'rows'}:two", tmp_path).questions == expected
    with pytest.raises(UserError, match=r"no split 'test' \(there are: one, two\)"):
        load_benchmark(f"mine={tmp_path / 'rows'}", tmp_path)
    with pytest.raises(UserError, match=r"absent.jsonl does not exist"):
        load_benchmark("mine=some/absent.jsonl", tmp_path)
    with pytest.raises(UserError, match="can't be the name of a benchmark"):
        load_benchmark(f"a/b={tmp_path / 'rows'}:two", tmp_path)


def test_kinds_of_ones_own_questions(vocabulary, jsonl, tmp_path):
    evaluator = MultipleChoice((f"mine={jsonl([PACUTE])}",), by_kind=True)
    evaluator.check()
    [loaded] = evaluator.load(vocabulary, 200, tmp_path, no_progress)
    assert loaded.sample_counts == {"mcq/mine": 1, "mcq/mine/affix_inflection_prefix": 1}
    some = MultipleChoice((f"mine={jsonl([{**LANGGAME, 'kind': 'start'}, LANGGAME])}",), by_kind=True)
    with pytest.warns(Notice, match=r"^mine: 1 question has no kind and is in no part of --by-kind$"):
        some.load(vocabulary, 200, tmp_path, no_progress)
    without = MultipleChoice((f"mine={jsonl([LANGGAME])}",), by_kind=True)
    with pytest.raises(UserError, match="--by-kind: mine=.* have no kinds of question"):
        without.load(vocabulary, 200, tmp_path, no_progress)
    with pytest.raises(UserError, match="can have leaked; drop --contamination .in trainer.eval: contam"):
        MultipleChoice((f"mine={jsonl([LANGGAME])}",), contamination=True).load(vocabulary, 200, tmp_path, no_progress)


@pytest.mark.parametrize(
    ("options", "answers", "right"),
    [
        (["no", "yes"], ["a", "b"], ["no", "yes"]),
        (["no", "yes"], [False, True], ["no", "yes"]),
        (["True", "False"], ["true", "false"], ["True", "False"]),
        (["x", "y"], [0.0, 1.0], ["x", "y"]),
        (["x", "y"], ["0.0", "1.0"], ["x", "y"]),
        (["1", "2"], [2.0, 1.0], ["2", "1"]),
    ],
)
def test_answers_as_other_programs_write_them(options, answers, right):
    rows = [{"question": "?", "options": options, "answer": answer} for answer in answers]
    assert [row.options[0] for row in read(rows)] == right


def test_a_whole_float_that_is_a_text_and_another_number_is_refused():
    with pytest.raises(UserError, match="the answer 1.0 is the text of an option and the number of another"):
        read([{"question": "?", "options": ["1", "2"], "answer": 1.0}])


def test_a_small_letter_beside_texts_is_a_mistake():
    rows = [{"question": "?", "options": ["b", "a"], "answer": "a"}, {"question": "?", "options": ["x", "y"]}]
    with pytest.raises(UserError, match="row 2: the answer 'b'"):
        read([rows[0], {**rows[1], "answer": "b"}])
