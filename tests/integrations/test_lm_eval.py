"""The model `stochastok` of lm-evaluation-harness, and the evaluator `lm_eval`, against the harness itself."""

import json
import logging
import math
import re
from collections import Counter

import pytest

pytestmark = pytest.mark.slow
lm_eval = pytest.importorskip("lm_eval", reason="the extra lm-eval is not installed")

import numpy as np  # noqa: E402
import torch  # noqa: E402
from lm_eval.api.instance import Instance  # noqa: E402
from lm_eval.models.huggingface import HFLM  # noqa: E402
from lm_eval.tasks import TaskManager  # noqa: E402
from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: E402

from stochastok_cli.errors import UserError  # noqa: E402
from stochastok_cli.evaluation.run import evaluate  # noqa: E402
from stochastok_cli.integrations import lm_eval as integration  # noqa: E402
from stochastok_cli.integrations.lm_eval import RetokenizingLM  # noqa: E402
from tests.integrations.harness_tasks import TASKS, write_model, write_tasks  # noqa: E402
from tests.preloaded_python import run_stochastok  # noqa: E402

KINDS = ("own", "gpt2", "llama", "gemma")
TEXTS = [
    ("Question: the old house?\nAnswer:", " tall trees"),
    ("wind moved", " through"),
    ("the 1234567 café", " near"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("harness")


@pytest.fixture(scope="module")
def tasks(folder):
    (folder / "tasks").mkdir()
    return write_tasks(folder / "tasks")


@pytest.fixture(scope="module")
def checkpoint(folder):
    """The folder of a model by its kind, which is made once."""
    return lambda kind: folder / kind if (folder / kind).exists() else write_model(kind, folder / kind)


@pytest.fixture(scope="module")
def ask(tasks):
    """The harness's results for a model."""
    manager = TaskManager(include_path=str(tasks), include_defaults=False)
    return lambda lm, *names, **more: lm_eval.simple_evaluate(
        lm, tasks=list(names or TASKS), task_manager=manager, bootstrap_iters=0, **more
    )


def opened(folder, **arguments):
    return RetokenizingLM(str(folder), device="cpu", **{"batch_size": 4, **arguments})


def requests(kind, arguments):
    return [Instance(kind, {}, one, 0, ("task", i, 1)) for i, one in enumerate(arguments)]


@pytest.fixture
def inputs(request):
    """Has what a model reads written down: `read = inputs(lm)`, a list of the ids of each sequence."""
    handles = []

    def record(lm):
        read = []
        keep = lambda module, args, kwargs: read.extend(kwargs.get("input_ids", args[0] if args else None).tolist())  # noqa: E731
        handles.append(lm.model.register_forward_pre_hook(keep, with_kwargs=True))
        return read

    yield record
    for handle in handles:
        handle.remove()


# ------------------------------------------------------------------------------------------------ equal to the harness


@pytest.mark.parametrize(("kind", "fewshot"), [*((kind, 0) for kind in KINDS), ("llama", 2)])
def test_canonical_results_are_those_of_hf(kind, fewshot, checkpoint, ask):
    """Every log-likelihood and every text, on each type of request; also as `p` = 0."""
    theirs = ask(HFLM(str(checkpoint(kind)), device="cpu", batch_size=4), num_fewshot=fewshot or None)
    assert set(theirs["samples"]) == {"tiny_choices", "tiny_sentences", "tiny_texts", "tiny_answers"}
    for tokenization in ("canonical", "uniform:0"):
        lm = opened(checkpoint(kind), tokenization=tokenization, retokenize="both")
        ours = ask(lm, num_fewshot=fewshot or None)
        assert ours["results"] == theirs["results"]
        for task, rows in theirs["samples"].items():
            assert [row["resps"] for row in ours["samples"][task]] == [row["resps"] for row in rows]


@pytest.fixture
def harness_log():
    """Takes away what the harness's command line adds to its log, which would write to a stream of a test."""
    log = logging.getLogger("lm_eval")
    handlers = log.handlers[:]
    yield
    log.handlers[:] = handlers


def test_the_command_line_of_the_harness(tasks, checkpoint, ask, harness_log, monkeypatch, capsys, tmp_path):
    def run(arguments):
        arguments = f"pretrained={checkpoint('llama')},{arguments}"
        command = ["lm_eval", "--model", "stochastok", "--model_args", arguments, "--include_path", str(tasks)]
        command += ["--tasks", "tiny_choices", "--device", "cpu", "--output_path", str(tmp_path / "results.json")]
        monkeypatch.setattr("sys.argv", command)
        integration.main()
        [file] = tmp_path.glob("results_*.json")
        return json.loads(file.read_text())

    ours = run("tokenization=uniform:0.5,seed=3,retokenize=both")
    chosen = {"method": "uniform", "p": 0.5, "retokenize": "both", "tokenization_seed": 3, "sample": 0, "samples": 1}
    assert chosen.items() <= ours["config"].items()
    lm = opened(checkpoint("llama"), batch_size=1, tokenization="uniform:0.5", seed=3, retokenize="both")
    again = ask(lm, "tiny_choices")["results"]["tiny_choices"]
    assert ours["results"]["tiny_choices"]["acc_norm,none"] == again["acc_norm,none"]
    capsys.readouterr()
    with pytest.raises(SystemExit) as stopped:
        run("tokenization=unifrom:0.5")
    assert stopped.value.code == 2
    assert "error: unknown method 'unifrom'; did you mean 'uniform'" in capsys.readouterr().err


# ------------------------------------------------------------------------------------------------ other tokenizations


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("parts", ["context", "continuation", "both"])
def test_what_a_model_reads_in_another_tokenization(kind, parts, checkpoint, inputs):
    """The same text, the tokenizer's special tokens once, and the part that is not asked for as the harness has it."""
    lm = opened(checkpoint(kind), tokenization="uniform:0.5", retokenize=parts, batch_size=1, logits_cache=False)
    read = inputs(lm)
    likelihoods = lm.loglikelihood(requests("loglikelihood", TEXTS), disable_tqdm=True)
    sequences = {lm.tokenizer.decode(ids): ids for ids in read}
    assert len(read) == len(sequences) == len(TEXTS)
    changed = Counter()
    for (context, continuation), (likelihood, _) in zip(TEXTS, likelihoods, strict=True):
        before, after = lm.tok_encode(context), lm.tok_encode(context + continuation)
        rest = after[len(before) :]
        [ids] = [s for text, s in sequences.items() if text.startswith(lm.tokenizer.decode(before))]
        special = [i for i in ids if i in lm.tokenizer.all_special_ids]
        assert special == [i for i in after if i in lm.tokenizer.all_special_ids]
        assert len(special) == (kind in ("llama", "gemma")) and special == ids[: len(special)]
        # The last token is predicted and never read: it ends the text that was asked for.
        ends = range(len(lm.tokenizer)) if parts != "context" else rest[-1:]
        ends = [i for i in ends if lm.tokenizer.decode([*ids, i]) == lm.tokenizer.decode(after)]
        read_text = [lm.tokenizer.decode(ids[:n]) for n in range(len(ids) + 1)]
        cut = read_text.index(lm.tokenizer.decode(before))
        new_before, new_rests = ids[:cut], [[*ids[cut:], end] for end in ends]  # a byte may end it, too
        changed.update(context=new_before != before, continuation=rest not in new_rests)
        assert parts in ("context", "both") or new_before == before
        assert parts in ("continuation", "both") or new_rests == [rest]
        with torch.no_grad():
            logits = lm.model(torch.tensor([ids])).logits[0].log_softmax(-1)
        sums = [sum(logits[cut - 1 + i, token].item() for i, token in enumerate(one)) for one in new_rests]
        assert min(abs(likelihood - one) for one in sums) < 1e-3
    assert (changed["context"] > 0) == (parts != "continuation")
    assert (changed["continuation"] > 0) == (parts != "context")


@pytest.mark.parametrize("kind", ["own", "gemma"])
def test_a_token_that_spans_context_and_continuation(kind, checkpoint, inputs):
    """The continuation is what the harness takes for it, whatever the tokens of the context."""
    pair = ("the old ho", "use near tall trees while children played")
    theirs = HFLM(str(checkpoint(kind)), device="cpu", batch_size=1)
    context, continuation = theirs._encode_pair(*pair)
    assert [*context, *continuation] != theirs.tok_encode("".join(pair)) and len(continuation) > 1
    asked = requests("loglikelihood", [pair])
    assert opened(checkpoint(kind), batch_size=1).loglikelihood(asked) == theirs.loglikelihood(asked)
    lm = opened(checkpoint(kind), tokenization="character", batch_size=1)
    read = inputs(lm)
    assert lm.loglikelihood(asked) != theirs.loglikelihood(asked)
    [ids] = read
    rest = len(continuation) - 1
    assert ids[-rest:] == continuation[:-1] and ids[:-rest] != context
    assert lm.tokenizer.decode(ids[:-rest]) == lm.tokenizer.decode(context)


def test_continuations_that_the_harness_can_not_score(checkpoint):
    lm = opened(checkpoint("gemma"))
    with pytest.raises(UserError, match="'use near' of a request of task has 0 tokens of its own"):
        lm.loglikelihood(requests("loglikelihood", [("the old ho", "use near")]))
    with pytest.raises(UserError, match="tokens of its own, and the context window is 64"):
        lm.loglikelihood(requests("loglikelihood", [("the", " old house near" * 40)]))


@pytest.mark.parametrize("kind", KINDS)
def test_draws_depend_neither_on_batches_nor_on_the_order(kind, checkpoint):
    likely = requests("loglikelihood", [*TEXTS, *((f"{a}, {a}", b) for a, b in TEXTS), ("", "the old house")])
    texts = requests("generate_until", [(a, {"until": ["\n"], "max_gen_toks": 6}) for a, _ in TEXTS])
    rolling = requests("loglikelihood_rolling", [(f"{a}{b}",) for a, b in TEXTS])
    for arguments in ({"tokenization": "uniform:0.5"}, {"tokenization": "uniform:0.5", "seed": 1, "sample": 2}):
        lm = opened(checkpoint(kind), retokenize="both", batch_size=1, **arguments)
        first = [lm.loglikelihood(likely), lm.generate_until(texts), lm.loglikelihood_rolling(rolling)]
        lm = opened(checkpoint(kind), retokenize="both", batch_size=5, **arguments)
        again = [
            lm.loglikelihood_rolling(rolling[::-1]),
            lm.loglikelihood(likely[::-1]),
            lm.generate_until(texts[::-1]),
        ]
        np.testing.assert_allclose(first[0], again[1][::-1], atol=1e-3)
        np.testing.assert_allclose(first[2], again[0][::-1], atol=1e-3)
        assert first[1] == again[2][::-1]


def test_seeds_and_samples_differ_and_options_share_the_context(checkpoint, inputs):
    def contexts(**arguments):
        lm = opened(checkpoint("llama"), tokenization="uniform:0.5", batch_size=1, logits_cache=False, **arguments)
        read = inputs(lm)
        lm.loglikelihood(requests("loglikelihood", [(TEXTS[0][0], " old"), (TEXTS[0][0], " near")]))
        assert read[0][:-1] == read[1][:-1] or len(read[0]) != len(read[1])
        return tuple(read[0])

    assert len({contexts(), contexts(seed=1), contexts(sample=1), contexts(seed=1, sample=1)}) == 4
    assert contexts() == contexts()


def test_tokens_of_a_chat_template_stay_whole(checkpoint, ask, inputs):
    """Also those that are no special tokens, and none of them is added or lost."""
    lm = opened(checkpoint("llama"), tokenization="character", batch_size=1, max_length=300)
    read = inputs(lm)
    results = ask(lm, "tiny_choices", apply_chat_template=True, limit=3)
    whole = [lm.tokenizer.convert_tokens_to_ids(token) for token in ("<|begin|>", "<|turn|>", "<think>")]
    assert len(results["samples"]["tiny_choices"]) == 3 and len(read) > 3
    assert {tuple(ids.count(token) for token in whole) for ids in read} == {(1, 2, 1)}
    text = lm.tokenizer.decode(read[0])
    assert "<|turn|>user\n<think>Question: " in text
    assert all(len(lm.tokenizer.decode([i])) == 1 for i in read[0][:20] if i not in whole)


def test_several_samples_of_one_request(checkpoint):
    """The mean of the likelihoods, and the most frequent text."""
    likely, rolling = requests("loglikelihood", TEXTS), requests("loglikelihood_rolling", [(TEXTS[0][0],)])
    texts = requests("generate_until", [(a, {"until": ["\n"], "max_gen_toks": 2}) for a, _ in TEXTS])
    arguments = {"tokenization": "uniform:0.5", "retokenize": "both"}
    each = [opened(checkpoint("gpt2"), sample=sample, **arguments) for sample in range(3)]
    together = opened(checkpoint("gpt2"), samples=3, **arguments)
    expected = np.mean([np.exp([score for score, _ in lm.loglikelihood(likely)]) for lm in each], axis=0)
    np.testing.assert_allclose(np.exp([score for score, _ in together.loglikelihood(likely)]), expected, rtol=1e-6)
    expected = math.log(np.mean([math.exp(lm.loglikelihood_rolling(rolling)[0]) for lm in each]))
    assert together.loglikelihood_rolling(rolling) == [pytest.approx(expected, rel=1e-6)]
    answers = list(zip(*(lm.generate_until(texts) for lm in each), strict=True))
    assert together.generate_until(texts) == [max(same, key=same.count) for same in answers]
    assert together.counts["task"]["requests"] == 3 * (len(TEXTS) + 1 + len(TEXTS))


@pytest.mark.parametrize("kind", ["gpt2", "gemma"])
def test_what_is_lost_is_counted(kind, checkpoint, inputs, caplog):
    """Requests that no longer fit lose their beginning, and a continuation that no longer fits stays canonical."""
    lm = opened(checkpoint(kind), tokenization="character", retokenize="both", batch_size=1, logits_cache=False)
    words = "the old house near trees "
    per_line = len(lm.tok_encode(words))
    fits = words * (55 // per_line)
    read = inputs(lm)
    lm.loglikelihood(requests("loglikelihood", [(fits, " a"), ("the", f" {fits.strip()}"), ("the", " a")]))
    counts = lm.counts["task"]
    assert (counts["requests"], counts["truncated"], counts["canonical"]) == (3, 1, 1)
    assert max(map(len, read)) == 64
    assert "task: of 3 requests 1 lost their beginning" in caplog.text
    assert "1 kept their canonical continuation" in caplog.text
    lm.generate_until(requests("generate_until", [(fits, {"max_gen_toks": 8}), ("the old", {"max_gen_toks": 8})]))
    assert (lm.counts["task"]["truncated"], lm.counts["task"]["requests"]) == (2, 5)
    lm.loglikelihood_rolling(requests("loglikelihood_rolling", [(fits * 2,)]))  # in windows: nothing is lost
    assert lm.counts["task"]["truncated"] == 2 and lm.counts["task"]["changed"] == 6
    caplog.clear()
    lm = opened(checkpoint(kind), tokenization="character")
    twice = requests("loglikelihood", [("the", " a"), ("the", " a")])
    twice[1].task_name = "other"
    lm.loglikelihood(twice)
    assert {task: counts["requests"] for task, counts in lm.counts.items()} == {"task": 1, "other": 1}
    lm.loglikelihood(requests("loglikelihood", [("", "the old house")]))
    assert "task: of 1 requests none was changed by the tokenization" in caplog.text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"tokenization": "uniform:2"}, "it is a probability"),
        ({"tokenization": "uniform"}, "is not METHOD:P"),
        ({"tokenization": "uniform:0.5", "retokenize": "contxt"}, "did you mean 'context'"),
        ({"tokenization": "uniform:0.5", "samples": 0}, "samples is 0; it must be at least 1"),
        ({"tokenization": "uniform:0.5", "seed": "x"}, "seed is 'x'; it must be a whole number"),
        ({"tokenization": "digits:right3", "samples": 2}, "is a fixed rule"),
        ({"samples": 2}, "the canonical tokenization is one"),
        ({"tokenization": "bpe-dropout:0.1"}, "bpe-dropout"),
    ],
)
def test_arguments_that_are_not_possible(arguments, message, checkpoint):
    with pytest.raises(UserError, match=message):
        opened(checkpoint("gemma"), **arguments)


def test_the_cache_of_the_harness_is_refused(checkpoint, ask, tmp_path):
    with pytest.raises(UserError, match="would mix tokenizations"):
        ask(opened(checkpoint("gpt2"), tokenization="uniform:0.5"), "tiny_choices", use_cache=str(tmp_path / "cache"))


# ------------------------------------------------------------------------------------------------ the evaluator


@pytest.mark.parametrize("kind", ["own", "llama"])
def test_the_evaluator_shows_what_the_harness_reports(kind, checkpoint, ask, tasks):
    options = {"evaluator": "lm_eval", "tasks": list(TASKS), "include_path": str(tasks)}
    options |= {"tokenization": "uniform:0.5", "samples": 2, "retokenize": "both"}
    [result] = evaluate(checkpoint(kind), options, device="cpu")
    theirs = ask(HFLM(str(checkpoint(kind)), device="cpu", batch_size=64))
    for task, values in theirs["results"].items():
        for key, value in values.items():
            if key.endswith(",none") and not isinstance(value, str):
                assert result.values[f"lm_eval/{task}/{key.removesuffix(',none')}"] == value
    metrics = {metric.key: metric for metric in result.metrics}
    norms = []
    for sample in range(2):  # each is one that the harness can be asked for
        lm = opened(checkpoint(kind), tokenization="uniform:0.5", sample=sample, retokenize="both", batch_size=64)
        norms.append(ask(lm, "tiny_choices")["results"]["tiny_choices"]["acc_norm,none"])
    assert metrics["lm_eval/tiny_choices/uniform0.5-both/acc_norm"].value == pytest.approx(np.mean(norms))
    assert metrics["lm_eval/tiny_choices/uniform0.5-both/acc_norm_worst_sample"].value == min(norms)
    outcomes = metrics["lm_eval/tiny_choices/uniform0.5-both/acc"].outcomes
    assert len(outcomes) == 6 and set(outcomes) <= {0, 0.5, 1}
    assert metrics["lm_eval/tiny_answers/uniform0.5-both/token_growth"].value > 1
    assert metrics["lm_eval/tiny_choices/uniform0.5-both/truncated"].value >= 2 * 3  # one question is too long
    assert result.sample_counts["lm_eval/tiny_group/uniform0.5-both"] == 12
    answers = {one.benchmark: one for one in result.answers if one.is_canonical}
    assert np.mean(answers["tiny_choices"].is_correct) == metrics["lm_eval/tiny_choices/acc"].value
    assert set(answers) == {"tiny_choices", "tiny_sentences", "tiny_answers"}
    assert len(result.changed_answers) == 3
    for one in result.changed_answers:
        name = "exact_match_worst_case" if one.benchmark == "tiny_answers" else "acc_worst_case"
        stay_right = (
            metrics[f"lm_eval/{one.benchmark}/uniform0.5-both/{name}"].outcomes * answers[one.benchmark].is_correct
        )
        assert one.num_right == sum(answers[one.benchmark].is_correct)
        assert one.num_changed == one.num_right - stay_right.sum() >= len(one.examples)


def test_a_model_that_is_loaded_already(checkpoint, tasks):
    options = {"evaluator": "lm_eval", "tasks": ["tiny_group", "tiny_t*"], "include_path": str(tasks)}
    [theirs] = evaluate(checkpoint("llama"), options, device="cpu")
    model = AutoModelForCausalLM.from_pretrained(checkpoint("llama"))
    [ours] = evaluate(model, options, tokenizer=AutoTokenizer.from_pretrained(checkpoint("llama")), device="cpu")
    assert ours.unlogged == ["tiny_texts"] and {one.benchmark for one in ours.answers} == {
        "tiny_choices",
        "tiny_sentences",
    }
    assert ours.values == theirs.values and {"lm_eval/tiny_group/acc", "lm_eval/tiny_texts/bits_per_byte"} <= {
        *ours.values
    }


def test_on_the_command_line(checkpoint, tasks, tmp_path):
    command = ("eval", checkpoint("gpt2"), checkpoint("own"), "--evaluator", "lm_eval", "--include-path", tasks)
    command += ("--tasks", "tiny_choices,tiny_sentences", "--tokenization", "uniform:0.5", "--samples", "2")
    file = tmp_path / "samples.jsonl"
    done = run_stochastok(
        *command, "--paired", "--report", tmp_path / "report", "--num-samples", 5, "--log-samples", file
    )
    assert done.returncode == 0, done.stderr
    assert "tiny_choices (5 questions)" in done.stdout and "acc norm worst sample" in done.stdout
    assert "Paired" in done.stdout and "it/s" not in done.stderr + done.stdout
    assert "### tiny_choices, other tokenizations" in (tmp_path / "report" / "report.md").read_text()
    assert "lost their beginning" in done.stderr
    assert "tiny_sentences, uniform:0.5: no request was changed by the tokenization; see --retokenize" in done.stderr
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    assert Counter((row["benchmark"], row["sample"]) for row in rows) == {
        (task, sample): 10 for task in ("tiny_choices", "tiny_sentences") for sample in (None, 0, 1)
    }
    assert f"samples: {file} (60 answers)" in done.stderr and "has no answers" not in done.stderr


def test_files_that_the_harness_passes_over_are_named(checkpoint, tasks, tmp_path):
    task = (tasks / "tiny_choices.yaml").read_text().replace("tiny_choices", "hollow")
    (tmp_path / "hollow.yaml").write_text(re.sub(r"/[^\s\"]+\.jsonl", str(tmp_path / "rows.jsonl"), task))
    (tmp_path / "rows.jsonl").touch()
    options = {"evaluator": "lm_eval", "include_path": str(tmp_path), "tasks": ["hollow"]}
    with pytest.raises(UserError, match="can't load hollow: a file of its data has no rows"):
        evaluate(checkpoint("gpt2"), options, device="cpu")
    with pytest.raises(UserError, match="no task 'zzz', and .* adds none of that name; `lm_eval"):
        evaluate(checkpoint("gpt2"), {**options, "tasks": ["zzz"]}, device="cpu")
    (tmp_path / "broken.yaml").write_text("task: broken\noutput_type: [\n")
    with pytest.raises(UserError, match=r"--include-path: .*broken.yaml, line 3 is no valid YAML"):
        evaluate(checkpoint("gpt2"), {**options, "tasks": ["broken"]}, device="cpu")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"tasks": ["tiny_choises"]},
            "no task 'tiny_choises', and .* adds none of that name; did you mean 'tiny_choices'",
        ),
        ({"tasks": ["tiny_texts"]}, "tiny_texts scores whole texts, which have no context"),
        ({"tasks": ["tiny_answers"], "retokenize": "continuation"}, "tiny_answers has the model write its answers"),
        ({"tasks": ["tiny_choices"], "apply_chat_template": True}, "has no chat template"),
    ],
)
def test_tasks_that_do_not_fit_are_refused(options, message, checkpoint, tasks):
    options = {"evaluator": "lm_eval", "include_path": str(tasks), "tokenization": "uniform:0.5", **options}
    with pytest.raises(UserError, match=message):
        evaluate(checkpoint("gpt2"), options, device="cpu")
