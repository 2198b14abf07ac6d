"""Answers of the evaluator `generation` against those of lm-evaluation-harness, of models of several kinds."""

import json
import random

import pytest

pytestmark = pytest.mark.slow
lm_eval = pytest.importorskip("lm_eval", reason="the extra lm-eval is not installed")

import transformers  # noqa: E402
from lm_eval.tasks import TaskManager  # noqa: E402

from stochastok_cli.evaluation.run import evaluate  # noqa: E402
from tests.integrations.harness_tasks import WORDS, write_model  # noqa: E402

TASK = """
task: tiny_answers
dataset_path: json
test_split: test
output_type: generate_until
doc_to_text: "{{question}}"
doc_to_target: "{{answer}}"
generation_kwargs: {until: ["\\n", " e"], max_gen_toks: 8, do_sample: false}
metric_list:
- {metric: exact_match, aggregation: mean, higher_is_better: true, ignore_case: true, ignore_punctuation: true}
"""


@pytest.mark.parametrize(
    ("kind", "chat"), [("own", False), ("gpt2", False), ("llama", False), ("llama", True), ("gemma", False)]
)
def test_answers_are_those_of_the_harness(kind, chat, tmp_path):
    """Also where the tokenizer puts a token before every text. Half of the right answers are what the model writes."""
    draw = random.Random(1)
    checkpoint = write_model(kind, tmp_path / kind)
    if chat:  # the harness puts a beginning-of-text before a conversation that has none, unlike apply_chat_template
        tokenizer = transformers.AutoTokenizer.from_pretrained(checkpoint)
        tokenizer.chat_template = "{{ bos_token }}" + tokenizer.chat_template
        tokenizer.save_pretrained(checkpoint)
    file = tmp_path / "rows.jsonl"
    questions = [" ".join(draw.choices(WORDS, k=n)) for n in (3, 5, 4, 6, 2, 7, 3, 4)]

    def ask(answers):
        rows = [{"question": q, "answer": a} for q, a in zip(questions, answers, strict=True)]
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        (tmp_path / "tasks").mkdir(exist_ok=True)
        data = f"dataset_kwargs: {{data_files: {{test: {json.dumps(str(file))}}}}}\n"
        (tmp_path / "tasks" / "tiny_answers.yaml").write_text(TASK + data)
        theirs = lm_eval.simple_evaluate(
            "hf",
            model_args=f"pretrained={checkpoint},dtype=float32",
            device="cpu",
            tasks=["tiny_answers"],
            task_manager=TaskManager(include_path=str(tmp_path / "tasks"), include_defaults=False),
            apply_chat_template=chat,
            bootstrap_iters=0,
        )
        [ours] = evaluate(
            checkpoint,
            {
                "evaluator": "generation",
                "benchmarks": [f"mine={file}"],
                "until": ["\n", " e"],
                "max_new_tokens": 8,
                "ignore_case": True,
                "ignore_punctuation": True,
                "chat": chat,
            },
            device="cpu",
        )
        samples = sorted(theirs["samples"]["tiny_answers"], key=lambda sample: sample["doc_id"])
        written = [sample["resps"][0][0] for sample in samples]
        assert ours.answers[0].answers == [text.strip() for text in written]
        score = theirs["results"]["tiny_answers"]["exact_match,none"]
        return written, ours.values["generation/mine/exact_match"], score

    written, *_ = ask(["never"] * len(questions))
    assert len(set(written)) > 3
    answers = [text.upper() if i % 2 and text.strip() else "never" for i, text in enumerate(written)]
    _, ours, theirs = ask(answers)
    assert ours == theirs == sum(answer != "never" for answer in answers) / len(answers) > 0
