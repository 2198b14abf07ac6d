"""The page of a report in a real browser: it fits its window, runs no script and loads nothing."""

import html
import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from stochastok_cli.evaluation.answers import Answers, ChangedAnswer, ChangedAnswers, ShownToken
from stochastok_cli.evaluation.comparison import compare_paired
from stochastok_cli.evaluation.generated_texts import GeneratedText, SamplePrompt
from stochastok_cli.evaluation.results import EvalResult, Metric
from stochastok_cli.report.html import write_report
from stochastok_cli.report.runs import read_reported_run
from tests.training.test_runs import write_run

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
ATTACK = "<script>document.title='run'</script><img src=https://example.org/a.png>"
NAMES = ("canonical", f"long_{'n' * 60}", ATTACK)
MEASURE = """
<script>
onload = () => setTimeout(() => {
  const frames = [...document.querySelectorAll("iframe")].map(frame => {
    const page = frame.contentDocument, view = frame.contentWindow;
    const shown = name => view.getComputedStyle(page.querySelector(".of-" + name)).display !== "none";
    const before = [shown("iteration"), shown("tokens"), shown("time")];
    page.getElementById("x-tokens").checked = true;
    const text = [...page.querySelectorAll("figure svg text")].filter(one => one.getBoundingClientRect().width > 0);
    return {
      width: page.documentElement.scrollWidth, height: page.documentElement.scrollHeight, title: page.title,
      scripts: page.scripts.length, images: page.images.length,
      requests: view.performance.getEntriesByType("resource").map(one => one.name),
      scrolling: [...page.querySelectorAll("div.wide")].filter(one => one.scrollWidth > one.clientWidth + 1)
        .map(one => one.firstChild.ariaLabel),
      labels: [...page.querySelectorAll("td[data-column]")].map(one => view.getComputedStyle(one, "::before").content),
      columns: [...page.querySelectorAll("td[data-column]")].map(one => one.dataset.column),
      ofForest: Math.min(...[...page.querySelectorAll("svg[aria-label=paired] text")].map(one =>
        one.getBoundingClientRect().height)),
      smallest: Math.min(...text.map(one => one.getBoundingClientRect().height)),
      before, after: [shown("iteration"), shown("tokens"), shown("time")],
      heads: [...page.querySelectorAll("table.text thead")].map(one => one.innerText),
      body: page.body.innerText,
    };
  });
  document.body.textContent = JSON.stringify(frames);
}, 0);
</script>
"""


def result(name: str, seed: int) -> EvalResult:
    right = np.random.default_rng(seed).random(30) < 0.5
    options = [[f"right {i}", f"{ATTACK} {i}", "w" * 90] for i in range(30)]
    answers = [texts[0] if is_right else texts[1] for texts, is_right in zip(options, right, strict=True)]
    outcomes = right.astype(float)
    accuracy = Metric("mcq", "langgame-val", "", "accuracy", outcomes.mean(), 30, outcomes, chance=1 / 3)
    questions = [f"{ATTACK} question {i}?\nAnswer:" for i in range(30)]
    shown = Answers("mcq", "langgame-val", "", questions, options, answers, right.tolist(), [0.5] * 30)
    canonical, other = ([ShownToken(f"{ATTACK}\n", True), ShownToken(text, False)] for text in ("right", "w" * 90))
    changed = ChangedAnswers(
        "mcq", "langgame-val", "adversarial", 9, 4, [ChangedAnswer(7, canonical, other, f"right {ATTACK}", ATTACK)]
    )
    prompt = SamplePrompt("canonical", 0, [0], [""])
    text = GeneratedText(prompt, 0, [1], f"Once upon {ATTACK} {'a' * 200}", "length")
    return EvalResult(
        f"runs/{name}",
        name,
        8,
        [accuracy],
        answers=[shown],
        changed_answers=[changed],
        texts=[text],
        num_parameters=10**6,
    )


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    records = [
        {"iteration": i, "train/loss": 5 - i / 8, "train/bits_per_byte": 2.5 - i / 16, "train/gradient_norm": 1.0 + i}
        | {"train/learning_rate": 1e-3, "train/tokens_per_second": 1000.0}
        for i in range(1, 9)
    ]
    runs = [
        read_reported_run(write_run(folder / str(i), f"general.seed={i}", records=records, done=8), name)
        for i, name in enumerate(NAMES)
    ]
    results = [result(name, i) for i, name in enumerate(NAMES)]
    comparisons = [compare_paired(results[0], second) for second in results[1:]]
    return write_report(folder / "report", results, runs, command=f"stochastok eval {ATTACK}", comparisons=comparisons)


@pytest.mark.slow  # drawing takes seconds, and so does the start of a browser
@pytest.mark.skipif(BROWSER is None, reason="no Chromium is installed")
def test_the_page_in_a_browser(page, tmp_path):
    frame = '<iframe src="{}" width="{}" height="900" frameborder="0"></iframe>'
    frames = "".join(frame.format(page.as_uri(), width) for width in (1100, 400))
    harness = tmp_path / "harness.html"
    harness.write_text(f"<!DOCTYPE html><body>{frames}{MEASURE}</body>")
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--allow-file-access-from-files"]
    command = [BROWSER, *flags, f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", harness.as_uri()]
    dump = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    assert "<script" not in page.read_text()
    wide, narrow = json.loads(html.unescape(dump[dump.index("[") : dump.rindex("]") + 1]))
    assert (wide["width"], narrow["width"]) == (1100, 400)  # nothing stands out of the window
    assert wide["scrolling"] == [] and {*wide["labels"]} == {"none"}  # no table scrolls sideways either
    assert narrow["scrolling"] == ["paired"] and narrow["ofForest"] > 9  # a plot with numbers beside its axes does
    assert {"accuracy", "first better", "second - first"} <= {*narrow["columns"]}
    for column, label in zip(narrow["columns"], narrow["labels"], strict=True):
        assert column in label.replace('\\"', '"')  # each value stands beside the heading of its column
    assert wide["smallest"] > 10 and narrow["smallest"] > 6  # pixels of the text of plots
    for one in (wide, narrow):
        assert (one["scripts"], one["images"], one["requests"], one["title"]) == (0, 0, [], "Evaluation")
        assert one["height"] > 3000
        assert (one["before"], one["after"]) == ([True, False, False], [False, True, False])
        assert len(one["heads"]) == 3  # the models, the cards of their runs, and where these differ
        assert all(name in head for name in NAMES for head in one["heads"])
        for text in (*NAMES, "Question", "Once upon", "right answer", "1,000,000", "bits_per_byte"):
            assert text in one["body"]
