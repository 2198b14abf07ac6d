"""Questions that a model answers in its own words: prompts, examples, where answers end, and which are right."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch.nn.functional as F
import transformers

from stochastok_cli.data.recipes.addition import make_addition
from stochastok_cli.data.recipes.langgame import make_langgame
from stochastok_cli.errors import Notice, UserError
from stochastok_cli.evaluation.benchmarks import load_benchmark
from stochastok_cli.evaluation.cute_prompts import ALL_TASKS
from stochastok_cli.evaluation.evaluators.generation import Generation
from stochastok_cli.evaluation.evaluators.math_generation import evaluate_addition, load_addition
from stochastok_cli.evaluation.generation_benchmarks import load_generation_benchmark
from stochastok_cli.evaluation.run import evaluate, load_evaluators, run_evaluators
from stochastok_cli.evaluation.scoring import LM
from stochastok_cli.tokenization.expansion import StochasTok
from stochastok_cli.tokenization.loaders import load_vocabulary
from tests.data.chat_tokenizers import save_tokenizer, template
from tests.evaluation.test_addition import Speaker

QUESTIONS = {
    "Spell cat.": ("c a t", "spell"),
    "Spell dog.": ("d o g", "spell"),
    "Say yes.": ("Yes", "say"),
    "Say 5.": ("five", "say"),
}
ROWS = [{"question": q, "answer": a, "kind": kind} for q, (a, kind) in QUESTIONS.items()]


class Writer(Speaker):
    """Writes the answer of the last question that it has read, and then end-of-text; keeps the prompts."""

    def __init__(self, vocabulary, answers, context_window=400):
        super().__init__(vocabulary, lambda text: "")
        self.answers, self.context_window, self.prompts = answers, context_window, set()

    def _next(self, read):
        text = self.vocabulary.decode(read)
        question = max(self.answers, key=text.rfind)
        start = text.rfind(question)
        if start < 0:
            return self.vocabulary.end_of_text
        written = text[start + len(question) :]
        if not written:
            self.prompts.add(text)
        left = self.answers[question][len(written) :]
        return self.vocabulary.encode(left[0])[0] if left else self.vocabulary.end_of_text


def run(vocabulary, answers, *, data_dir=Path("data"), context_window=400, **options):
    """The metrics, the outputs and the prompts of a model that answers so."""
    evaluators = load_evaluators([Generation(**options)], data_dir, vocabulary, context_window)
    writer = Writer(vocabulary, answers, context_window)
    output = run_evaluators(LM(writer, vocabulary), evaluators)
    return output.values, output, sorted(writer.prompts)


def test_answers_are_compared_and_counted(vocabulary, jsonl):
    file = jsonl(ROWS)
    written = {"Spell cat.": " c a t", "Spell dog.": " d o g s", "Say yes.": " yes\nmore", "Say 5.": "\n five"}
    values, output, prompts = run(vocabulary, written, benchmarks=(f"mine={file}",), by_kind=True)
    assert values == {
        "generation/mine/exact_match": 0.25,
        "generation/mine/prefix_match": 0.5,
        "generation/mine/say/exact_match": 0.0,
        "generation/mine/spell/exact_match": 0.5,
    }
    [answers] = output.answers
    assert answers.answers == ["c a t", "d o g s", "yes", ""]
    assert answers.is_correct == [True, False, False, False]
    assert answers.options == [[row["answer"]] for row in ROWS]
    assert prompts == sorted(QUESTIONS)
    of_whole = next(metric for metric in output.metrics if metric.part == "")
    assert of_whole.outcomes.tolist() == [1, 0, 0, 0]
    values, *_ = run(vocabulary, written, benchmarks=(f"mine={file}",), ignore_case=True, until=("s",))
    assert values["generation/mine/exact_match"] == 0.75  # "d o g", "five" after a line break; "ye" is cut
    values, output, _ = run(vocabulary, written, benchmarks=(f"mine={file}",), by_kind=True, match="prefix_match")
    assert values["generation/mine/spell/prefix_match"] == 1.0
    assert output.answers[0].is_correct == [True, True, False, False]
    values, *_ = run(vocabulary, written, benchmarks=(f"mine={file}",), regexes_to_ignore=("s$", "^[a-z]"))
    assert values["generation/mine/exact_match"] == 0.5


def test_the_end_of_an_answer(vocabulary, jsonl):
    """At a text in the middle of tokens, and after as many tokens as the longest right answer may need."""
    file = jsonl([{"question": "Go on.", "answer": "x" * 20}])
    written = {"Go on.": "ab" * 40}
    for options, answer in [
        ({}, "ab" * 40),
        ({"until": ("ba", "bb")}, "a"),
        ({"max_new_tokens": 3}, "aba"),
        ({"until": ("\\n",)}, "ab" * 40),
    ]:
        _, output, _ = run(vocabulary, written, benchmarks=(f"mine={file}",), **options)
        expected = answer if options.get("max_new_tokens") or "ba" in options.get("until", ()) else answer[:21]
        assert output.answers[0].answers == [expected]


def test_answers_of_which_nothing_is_left_are_counted(vocabulary, jsonl):
    file = jsonl([{"question": "1+1=", "answer": 2}, {"question": "Who?", "answer": "me 2"}])
    with pytest.warns(Notice, match=r"benchmark mine: right answers .*left to compare: 1 \(the first .* row 1\)"):
        values, *_ = run(vocabulary, {"Who?": " 3 me"}, benchmarks=(f"mine={file}",), ignore_numbers=True)
    assert values["generation/mine/exact_match"] == 1.0
    with pytest.raises(UserError, match="'a/b' can't be the name of a benchmark"):
        load_generation_benchmark(f"a/b={file}", file)


def test_ids_that_the_tokenizer_lacks_are_not_written(vocabulary, jsonl):
    """Also where the model finds one of them likelier, as it may with padded embeddings."""
    file = jsonl([{"question": "Who?", "answer": "me"}])
    loaded = load_evaluators([Generation((f"mine={file}",), max_new_tokens=4)], Path("data"), vocabulary, 48)

    class Padded(Writer):
        def logits(self, hidden):
            return F.pad(super().logits(hidden), (0, 64), value=100.0)

    [answers] = run_evaluators(LM(Padded(vocabulary, {"Who?": " me"}, 48), vocabulary), loaded).answers
    assert answers.answers == ["me"]


def test_examples_come_before_each_question(vocabulary, jsonl, tmp_path):
    rows = [{"question": f"What is {i}?", "answer": f"it is {i}", "kind": "ab"[i % 2]} for i in range(12)]
    benchmark = load_generation_benchmark(f"mine={jsonl(rows)}", tmp_path, num_fewshot=3)
    for i, question in enumerate(benchmark.questions):
        *examples, last = question.prompt.split("\n\n")
        assert last == question.question == rows[i]["question"]
        numbers = [int(text.removeprefix("What is ").split("?")[0]) for text in examples]
        assert examples == [f"What is {n}? it is {n}" for n in numbers]
        assert len(set(numbers)) == 3
        assert all(n % 2 == i % 2 and n != i for n in numbers)
    assert len({question.examples for question in benchmark.questions}) > 6
    sample = load_generation_benchmark(f"mine={jsonl(rows)}", tmp_path, 4, num_fewshot=3).questions
    assert len(sample) == 4
    assert set(sample) < set(benchmark.questions)  # a question has the same examples in a sample
    most = load_generation_benchmark(f"mine={jsonl(rows)}", tmp_path, num_fewshot=5).questions
    assert {question.examples.count("What") for question in most} == {5}
    with pytest.raises(UserError, match="--num-fewshot 6: benchmark mine has 5 other questions of the kind a"):
        load_generation_benchmark(f"mine={jsonl(rows)}", tmp_path, num_fewshot=6)


def test_examples_from_another_split(hub_server, tmp_path):
    rows = {split: [{"question": f"{split} {i}", "answer": str(i)} for i in range(3)] for split in ("test", "train")}
    files = {f"{split}.jsonl": "".join(json.dumps(row) + "\n" for row in of).encode() for split, of in rows.items()}
    hub_server.add_dataset("someone/sums", files)
    for name, content in files.items():
        (tmp_path / "sums").mkdir(exist_ok=True)
        (tmp_path / "sums" / name).write_bytes(content)
    for source in ("someone/sums", "someone/sums:test", tmp_path / "sums", f"{tmp_path / 'sums'}:test"):
        [question, *_] = load_generation_benchmark(
            f"mine={source}", tmp_path, num_fewshot=2, fewshot_split="train"
        ).questions
        assert question.question == "test 0"
        assert question.examples.count("train") == 2
    with pytest.raises(UserError, match="the file .*train.jsonl has no split 'train'; give a folder of splits"):
        load_generation_benchmark(
            f"mine={tmp_path / 'sums' / 'train.jsonl'}", tmp_path, num_fewshot=2, fewshot_split="train"
        )


def test_a_prompt_that_is_too_long_is_cut_and_counted(vocabulary, jsonl):
    rows = [{"question": f"{'word ' * n}end?", "answer": "yes"} for n in (1, 60)]
    file = jsonl(rows)
    values, _, prompts = run(vocabulary, {"end?": " yes"}, context_window=48, benchmarks=(f"mine={file}",))
    assert values["generation/mine/truncated"] == 1
    assert values["generation/mine/exact_match"] == 1
    assert max(len(vocabulary.encode(prompt)) for prompt in prompts) == 48 + 1 - 16  # the last new id is not read
    with pytest.raises(
        UserError, match="an answer of 49 tokens leaves no room .*window of 48; give a smaller --max-new"
    ):
        run(vocabulary, {}, context_window=48, benchmarks=(f"mine={file}",), max_new_tokens=49)


def test_other_tokenizations_of_the_prompts(vocabulary, jsonl):
    """A model that is right only where it reads the canonical ids."""
    file = jsonl([{"question": question, "answer": answer} for question, (answer, _) in QUESTIONS.items()])

    class Brittle(Writer):
        def _next(self, read):
            prompt = self.vocabulary.decode(read)
            question = next(q for q in self.answers if prompt.startswith(q))
            n = len(vocabulary.encode(question))
            is_canonical = read[:n] == vocabulary.encode(question)
            return super()._next(read) if is_canonical else self.vocabulary.end_of_text

    rows = list(QUESTIONS)
    evaluator = Generation((f"mine={file}",), tokenization="uniform:0.5", samples=3)
    [loaded] = load_evaluators([evaluator], Path("data"), vocabulary, 400)
    assert loaded.sample_counts == {"generation/mine": 4, "generation/mine/uniform0.5": 4}
    answers = {question: f" {answer}" for question, (answer, _) in QUESTIONS.items()}
    robust = run_evaluators(LM(Writer(vocabulary, answers), vocabulary), [loaded])
    brittle = run_evaluators(LM(Brittle(vocabulary, answers), vocabulary), [loaded])
    part = "generation/mine/uniform0.5/"
    assert {robust.values[part + name] for name in ("exact_match", "worst_case", "any_case", "worst_sample")} == {1.0}
    assert brittle.values["generation/mine/exact_match"] == 1.0
    ids = [vocabulary.encode(question) for question in QUESTIONS]
    draws = [StochasTok(vocabulary, 0.5, "uniform", seed=sample) for sample in range(3)]
    unchanged = [[expand(one, i).tolist() == one for i, one in enumerate(ids)] for expand in draws]
    assert brittle.values[part + "exact_match"] == np.mean(unchanged) < 1
    assert brittle.values[part + "worst_case"] == np.all(unchanged, axis=0).mean()
    assert brittle.values[part + "any_case"] == np.any(unchanged, axis=0).mean()
    assert brittle.values[part + "edit_distance"] == robust.values[part + "edit_distance"] > 0.2
    [changed] = brittle.changed_answers
    assert (changed.num_right, changed.num_changed) == (4, 4 - int(np.all(unchanged, axis=0).sum()))
    assert robust.changed_answers[0].num_changed == 0
    for example in changed.examples:
        assert ("".join(token.text for token in example.other), example.answer) == (rows[example.row - 1], "")
        assert example.other != example.canonical
    [curve] = brittle.curves
    assert curve.key == "generation/mine/uniform0.5"
    assert sum(point["n"] for point in curve.points) == 12
    of_fixed_rule = run(vocabulary, answers, benchmarks=(f"mine={file}",), tokenization="character")[0]
    assert of_fixed_rule["generation/mine/character/exact_match"] == 1.0


def test_prompts_in_the_chat_template_of_each_checkpoint(jsonl, tmp_path, monkeypatch):
    """Two checkpoints of equal vocabularies; a model whose ids go beyond those of its tokenizer."""
    prompts = []
    greedy = LM.generate_greedy
    monkeypatch.setattr(LM, "generate_greedy", lambda self, *more: prompts.append(more[0]) or greedy(self, *more))
    config = transformers.GPT2Config(vocab_size=2112, n_embd=16, n_layer=1, n_head=2, n_positions=64, eos_token_id=7)
    for name in ("chatml", "llama3"):
        transformers.GPT2LMHeadModel(config).save_pretrained(tmp_path / name)
        save_tokenizer(tmp_path / name, template(name))
    file = jsonl([{"question": "Is it?", "answer": "yes"}])
    options = {"evaluator": "generation", "benchmarks": [f"mine={file}"], "max_new_tokens": 8}
    evaluate([tmp_path / "chatml", tmp_path / "llama3"], [{**options, "chat": True}])
    for name, (ids,) in zip(("chatml", "llama3"), prompts, strict=True):
        tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / name)
        messages = [{"role": "user", "content": "Is it?"}]
        expected = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
        assert ids == expected
    assert prompts[0] != prompts[1]


# ------------------------------------------------------------------------------------------- benchmarks by name


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    vocabulary = load_vocabulary("sample2k")
    make_addition(vocabulary, folder, name="sums", num_digits=1)
    make_langgame(vocabulary, folder, train_size=30, val_size=12)
    return folder


def test_addition_equals_math_generation_on_canonical_questions(vocabulary, model, data_dir):
    """The same prompts, the same ends of answers, the same matches."""
    for split in ("train", "val"):
        [base] = [q for q in load_addition(data_dir, vocabulary, name="sums") if (q.split, q.form) == (split, "base")]
        lm = LM(model, vocabulary)
        [loaded] = load_evaluators([Generation((f"sums-{split}",), max_new_tokens=6)], data_dir, vocabulary, 48)
        ours = run_evaluators(lm, [loaded])
        theirs = evaluate_addition(lm, base)
        answers = dict(zip(ours.answers[0].questions, ours.answers[0].answers, strict=True))
        assert answers == dict(zip(theirs.answers[0].questions, map(str.strip, theirs.answers[0].answers), strict=True))
        assert any(answers.values())
    examples = load_generation_benchmark("sums-val", data_dir, num_fewshot=2).questions[0].examples
    assert all(sum(map(int, text[1:].split("=")[0].split("+"))) >= 0 for text in examples.split())
    assert examples.endswith("\n\n")


def test_langgame_by_generation(vocabulary, data_dir):
    benchmark = load_generation_benchmark("langgame-val", data_dir, num_fewshot=1)
    assert benchmark.trained_on == "langgame"
    trained_on = {one.prefix: one.options[0] for one in load_benchmark("langgame-train", data_dir).questions}
    for question in benchmark.questions:
        [example] = [text for text in trained_on if question.examples.startswith(text)]
        assert question.examples == f"{example}{trained_on[example]}\n\n"
    answers = {one.question: f" {one.answers[0]}" for one in benchmark.questions}
    values, output, _ = run(
        vocabulary, answers, data_dir=data_dir, benchmarks=("langgame-val",), contamination=True, by_kind=True
    )
    assert values["generation/langgame-val/exact_match"] == 1.0
    assert output.answers[0].is_correct == [True] * 12
    assert any(key.endswith("unseen_question/exact_match") for key in values)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("langame-val", "'langame-val' is unknown; did you mean 'langgame-val'.*NAME=FILE"),
        ("arc", "'arc' is scored by its options only: see --evaluator mcq"),
        ("addition-val", "there is no .*multi_digit_addition; run stochastok make-addition first"),
    ],
)
def test_names_that_can_not_be_answered(name, message, data_dir):
    with pytest.raises(UserError, match=message):
        load_generation_benchmark(name, data_dir)


# ------------------------------------------------------------------------------------------- CUTE

PROMPT = 'Spell, as in:\n1. Spell "ab". Answer: "a b"\n\nQuestion: Spell "{}".'


@pytest.fixture
def cute(tmp_path) -> Path:
    """A folder as the authors' repository has it, with three of the tasks."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "spell.tsv").write_text("input1\tlabel\ncat\tc a t\nnull\tn u l l\n")
    (tmp_path / "data" / "del_word.tsv").write_text("input1\tinput2\tlabel\nThe\tThe cat.\tcat.\n")
    (tmp_path / "data" / "swap_char.tsv").write_text("input1\tinput2\tinput3\tlabel\na\tc\tcat\tact\n")
    prompts = {"spell": PROMPT, "del_word": 'Delete "{}" in "{}".', "swap_char": 'Swap "{}" and "{}" in "{}".'}
    (tmp_path / "prompts.py").write_text(f"import os\nPROMPTS = {prompts!r}\n")
    return tmp_path


def test_cute_as_its_authors_score_it(vocabulary, cute):
    written = {
        'Spell "cat". Answer: "': 'c a t". I hope this helps!',
        'Spell "null". Answer: "': "n u l",
        'Delete "The" in "The cat.". Answer: "': 'Cat."',
        'Swap "a" and "c" in "cat". Answer: "': 'tac". Or, better, Answer: "act"',
    }
    white_space = {**written, 'Spell "cat". Answer: "': ' c a t"'}
    with pytest.warns(Notice, match="benchmark cute: not in .*: spell_inverse, contains_char.*swap_word"):
        values, output, prompts = run(vocabulary, written, benchmarks=(f"cute={cute}",), by_kind=True)
    assert output.answers[0].answers == ["c a t", "n u l", "act", "Cat."]
    assert values["generation/cute/exact_match"] == 0.75
    assert values["generation/cute/spell/exact_match"] == 0.5
    assert values["generation/cute/del_word/exact_match"] == 1.0  # capitals do not count in tasks on words
    assert PROMPT.format("cat") + ' Answer: "' in prompts
    with pytest.warns(Notice):
        values, *_ = run(vocabulary, white_space, benchmarks=(f"cute={cute}",))
    assert values["generation/cute/exact_match"] == 0.5
    assert load_benchmark(f"cute-spell={cute}", cute).questions[0].prefix.endswith("cat. Answer:")  # multiple choice
    one = load_generation_benchmark(f"cute-spell={cute / 'data'}", cute)
    assert [question.answers for question in one.questions] == [("c a t",), ("n u l l",)]
    assert (one.max_new_tokens, one.until) == (100, ())
    with pytest.raises(UserError, match="the prompts of cute-spell have four examples already; drop it"):
        load_generation_benchmark(f"cute-spell={cute}", cute, num_fewshot=4)


def test_cute_on_the_hub_and_in_one_file(hub_server, jsonl, tmp_path):
    card = "---\nconfigs:\n- config_name: default\n  data_files:\n  - {split: spell, path: rows.jsonl}\n---\n"
    prompt = PROMPT.format(" cat ")
    row = json.dumps({"prompt": prompt, "answer": '" c a t "'})
    hub_server.add_dataset("leukas/cute", {"README.md": card.encode(), "rows.jsonl": row.encode()})
    [question] = load_generation_benchmark("cute-spell", tmp_path).questions
    assert (question.prompt, question.answers, question.kind) == (prompt, ("c a t",), "spell")
    rows = [{"question": prompt, "answer": "c a t", "task_type": task} for task in ("spell", "sem")]
    assert len(load_generation_benchmark(f"cute={jsonl(rows)}", tmp_path).questions) == 2
    assert len(load_generation_benchmark(f"cute-sem={jsonl(rows)}", tmp_path).questions) == 1
    with pytest.raises(UserError, match="benchmark cute: 'x' is no task of CUTE; .*task_type names it: spell, "):
        load_generation_benchmark(f"cute={jsonl([{**rows[0], 'task_type': 'x'}])}", tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "there is no prompts.py in .*clone of github.com/Leukas/CUTE"),
        ("PROMPTS = dict(a=1)", "has no dictionary PROMPTS of texts"),
        ("PROMPTS = {'spell': 1}", "has no dictionary PROMPTS of texts"),
        ("PROMPTS = {", "can't be read"),
        ("PROMPTS = {'sem': 'x'}", "the authors' prompts.py has no prompt for spell"),
    ],
)
def test_prompts_of_cute_that_can_not_be_read(content, message, cute):
    file = cute / "prompts.py"
    file.unlink() if content is None else file.write_text(content)
    with pytest.raises(UserError, match=message):
        load_generation_benchmark(f"cute-spell={cute}", cute)


def test_all_tasks_have_a_benchmark():
    assert len(ALL_TASKS) == 14
    with pytest.raises(UserError, match=r"cute-swap_word, langgame-train.*addition-val"):
        load_generation_benchmark("nothing", Path("data"))


def test_options_that_do_not_fit(jsonl):
    for options, message in [
        ({"samples": 2}, "--samples says nothing without --tokenization"),
        ({"until": ("",)}, "--until is empty"),
        ({"language": "tl"}, "--benchmarks has none"),
        ({"regexes_to_ignore": ("[",)}, "is no regular expression"),
        (
            {"match": "prefix"},
            "--match prefix is unknown.*give exact_match or prefix_match",
        ),
        ({"fewshot_split": "train"}, "--fewshot-split goes with --num-fewshot and NAME=FOLDER"),
        ({"max_new_tokens": 0}, "--max-new-tokens = 0 must be at least 1"),
    ]:
        with pytest.raises(UserError, match=message):
            Generation(("cute",), **options).check()
    with pytest.raises(UserError, match="needs --benchmarks; there are: cute, .*questions of your own"):
        Generation().check()
