"""The page to play with: its tables, its laws against the package's own, that it stands alone, and its file."""

import base64
import hashlib
import html
import json
import os
import re
import shutil
import subprocess
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from preloaded_python import run_stochastok
from scipy.stats import chisquare
from tokenization.tiny_tokenizers import unigram, wordpiece, write

from stochastok_cli import StochasTok, UserError, load_vocabulary
from stochastok_cli.report import segmentation_page
from stochastok_cli.report.plots import COLORS
from stochastok_cli.report.segmentation_page import segmentation_page as make_page
from stochastok_cli.report.segmentation_page import write_page
from stochastok_cli.report.segmentation_tables import MAX_BYTES, page_data
from stochastok_cli.tokenization.loaders import BUNDLED
from stochastok_cli.tokenization.split_table import split_table

TEXT = (
    "An unbelievable strawberry milkshake, naïve 🤷🏽‍♀️ in 1997!\n\n  שלום עולם, " + "walking and talking about it " * 3
)
HOSTILE = "</script><script>alert(1)</script><!-- <img src=x onerror=alert(2)> \"'& \u202e שלום\u2028 🤷🏽‍♀️ @@DATA@@"
ASSETS = Path(segmentation_page.__file__).parents[1] / "assets" / "segmentation_page"
NUM_SCRIPTS = len(segmentation_page.LAWS + segmentation_page.VIEWS)
NODE, CHROMIUM = shutil.which("node"), shutil.which("chromium") or shutil.which("google-chrome")
PIECES = [
    ("<pad>", 0.0),
    ("</s>", 0.0),
    ("<unk>", 0.0),
    ("▁", -4.0),
    *((c, -3.0 - i / 4) for i, c in enumerate("hugs")),
]
PIECES += [("▁hugs", -1.5), ("▁hug", -2.0), ("hu", -2.5), ("ug", -2.2), ("gs", -3.1), ("▁h", -3.3)]
PIECES += [(f"<0x{byte:02X}>", 0.0) for byte in range(256)]
WORDS = ["[UNK]", "[SEP]", "a", "##b", "##c", "ab", "##bc", "abc", "##cb", "b", "c", "-", "##bcb", "abcb"]


def dump_dom(page: Path, width: int = 1400, *options: str) -> str:
    """The document that Chromium makes of a page, and what its scripts print, in one text."""
    if CHROMIUM is None:
        pytest.skip("there is no Chromium here")
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", *options]
    command += [
        f"--window-size={width},900",
        "--virtual-time-budget=8000",
        f"--user-data-dir={page.parent / 'profile'}",
    ]
    done = subprocess.run([*command, "--dump-dom", page.as_uri()], capture_output=True, text=True, timeout=120)
    errors = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    assert errors == []
    return done.stdout


def evaluate(data: dict, expression: str, folder: Path):
    """The value of a JavaScript expression beside the laws and tables of a page, by Node or Chromium."""
    laws = "".join((ASSETS / name).read_text() for name in segmentation_page.LAWS)
    code = f"{laws}\nconst data = {json.dumps(data)}, tables = readTables(data);\n"
    if NODE is not None:
        file = folder / "laws.js"
        file.write_text(f"{code}console.log(JSON.stringify({expression}));")
        return json.loads(subprocess.run([NODE, file], capture_output=True, text=True, check=True).stdout)
    page = folder / "laws.html"
    code = code.replace("</", "<\\/")
    page.write_text(
        f"<meta charset=utf-8><pre></pre><script>{code}\ndocument.querySelector('pre').textContent = "
        f"JSON.stringify({expression});</script>"
    )
    found = re.search("<pre>(.*?)</pre>", dump_dom(page), re.DOTALL)
    return json.loads(html.unescape(found[1]))


def samples_of_page(data: dict, p: float, count: int, folder: Path) -> dict[str, list[list[int]]]:
    """The ids of the first samples of every method, drawn by the scripts of the page."""
    draw = f"drawSample(tables, m, {p}, data.seed, i).map((part) => part[2])"
    expression = (
        f"Object.fromEntries(data.methods.map((m) => [m.name, Array.from({{length: {count}}}, (_, i) => {draw})]))"
    )
    return evaluate(data, expression, folder)


@pytest.fixture(scope="module")
def sample2k():
    return load_vocabulary("sample2k")


def vocabulary_of(kind: str, folder: Path):
    """A bundled vocabulary, or a tiny one of the kind."""
    if kind in BUNDLED:
        return load_vocabulary(kind)
    content = (
        unigram(byte_tokens=True, vocab=PIECES)
        if kind == "unigram"
        else wordpiece(vocab={entry: i for i, entry in enumerate(WORDS)})
    )
    return load_vocabulary(write(folder, content))


METHODS = {
    "sample2k": ["stochastok", "grampa:temperature=5,min_length=2", "grampa:temperature=-0.7"],
    "unigram": ["unigram:alpha=0.5", "unigram:alpha=0.2,nbest=3", "uniform"],
    "wordpiece": ["maxmatch-dropout"],
}
METHODS["gpt2"] = METHODS["sample2k"]
TEXTS = {
    "gpt2": TEXT,
    "sample2k": TEXT,
    "unigram": "hugs hug hugs shug é hugs",
    "wordpiece": "abcb abc-abcb ab abcbc q abcb",
}


@pytest.mark.parametrize(
    ("kind", "p", "options"),
    [
        ("sample2k", 0.4, {}),
        ("unigram", 0.4, {}),
        ("wordpiece", 0.4, {}),
        *(pytest.param(kind, 1.0, {"keep": "a"}, marks=pytest.mark.slow) for kind in METHODS),
        pytest.param("gpt2", 0.07, {}, marks=pytest.mark.slow),
    ],
)
def test_samples_of_the_page_are_those_of_the_package(kind, p, options, tmp_path):
    vocabulary = vocabulary_of(kind, tmp_path)
    data = page_data(TEXTS[kind], METHODS[kind], vocabulary, p=p, seed=5, **options)
    ids = vocabulary.encode(TEXTS[kind])
    drawn = samples_of_page(data, p, 5, tmp_path)
    live = {method["name"] for method in data["methods"]}
    assert {*METHODS[kind], "uniform", "uniform-k", "stochastok-uni", "character", "longest-first"} <= live
    assert ("bpe-dropout" in live) == (kind in BUNDLED)
    for method in data["methods"]:
        expand = StochasTok(vocabulary, p if method["takes_p"] else None, method["name"], seed=5, **options)
        assert drawn[method["name"]] == [expand(ids, i).tolist() for i in range(5)], method["name"]


def test_most_splits_limit_the_page(sample2k, tmp_path):
    data = page_data(TEXT, ["uniform-k"], sample2k, p=1.0, max_splits=3)
    assert {"uniform", "bpe-dropout", "character"} <= {entry["name"] for entry in data["left_out"]}
    for name, rows in samples_of_page(data, 1.0, 3, tmp_path).items():
        expand = StochasTok(sample2k, 1.0, name, max_splits=3)
        assert rows == [expand(sample2k.encode(TEXT), i).tolist() for i in range(3)]


def test_tables_of_a_text(sample2k, tmp_path):
    data = page_data(" example, 🍓", ["stochastok"], sample2k)
    content = " example, 🍓".encode()
    entries = {piece: i for i, piece in enumerate(sample2k.pieces) if i != sample2k.end_of_text}
    spans = [(data["starts"][a], data["starts"][b]) for a, b in zip(data["words"], data["words"][1:], strict=False)]
    assert [content[a:b] for a, b in spans] == [b" example", b",", " 🍓".encode()]
    expected = {
        (i, j, entries[content[i:j]])
        for a, b in spans
        for i in range(a, b)
        for j in range(i + 1, b + 1)
        if content[i:j] in entries
    }
    assert {*map(tuple, data["arcs"])} == expected
    assert len(data["arcs"]) == len(expected)
    pairs = evaluate(
        data, "canonical(tables).map((part) => pairSplits(tables, part).map((pair) => pair.map((p) => p[2])))", tmp_path
    )
    assert [[tuple(pair) for pair in some] for some in pairs] == [split_table(sample2k).of(i) for i in data["ids"]]
    assert sum(map(len, pairs)) > 2
    ranks = {(sample2k.pieces.index(a), sample2k.pieces.index(b)): i for i, (a, b) in enumerate(sample2k.merges[:5000])}
    known = {(left, right): rank for left, right, rank, _ in data["merges"] if rank < 5000}
    assert len(known) > 5
    assert known.items() <= ranks.items()
    emoji = sample2k.encode(" 🍓")
    assert "".join(data["not_utf8"].get(i, data["texts"][i]) for i in emoji) == " f09f8d93"


def test_methods_without_a_law_in_the_page_have_samples(sample2k):
    data = page_data("An unbelievable text", ["mix:uniform=0.5", "patok"], sample2k, p=0.25)
    mix, patok = ({m["name"]: m for m in data["methods"]}[name] for name in ("mix:uniform=0.5", "patok"))
    assert 0.25 in mix["grid"] and max(mix["grid"]) == 1
    assert mix["max_p"] == patok["max_p"] == 1  # the field for p shows no p of which there are no samples
    ids = sample2k.encode("An unbelievable text")
    expand = StochasTok(sample2k, 0.25, "patok")
    assert patok["samples"][patok["grid"].index(0.25)][:3] == [expand(ids, i).tolist() for i in range(3)]
    assert data["methods"][0]["name"] == "mix:uniform=0.5"


class Elements(HTMLParser):
    """The start tags of a page, and the contents of its scripts and styles."""

    def __init__(self, text: str):
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.contents: list[tuple[str, dict, str]] = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data):
        if self.tags and self.tags[-1][0] in ("script", "style", "title") and data.strip():
            self.contents.append((*self.tags[-1], data))


@pytest.mark.parametrize("text", [HOSTILE, "An example"])
def test_the_page_stands_alone_whatever_its_text_is(text, sample2k):
    page = make_page(text, ["stochastok", "mix:uniform=0.5"], sample2k)
    elements = Elements(page)
    scripts = [(attributes, content) for tag, attributes, content in elements.contents if tag == "script"]
    assert [attributes for attributes, _ in scripts] == [
        {"id": "data", "type": "application/json"},
        *[{}] * NUM_SCRIPTS,
    ]
    data = json.loads(scripts[0][1])
    assert data["text"] == text
    assert [data["texts"][str(i)] for i in data["ids"]] == [sample2k.token_text(i) for i in sample2k.encode(text)]
    [policy] = [a["content"] for tag, a in elements.tags if a.get("http-equiv") == "Content-Security-Policy"]
    style = next(content for tag, _, content in elements.contents if tag == "style")
    code = [style, *(content for _, content in scripts[1:])]
    for content in code:
        assert f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'" in policy
    assert policy.startswith("default-src 'none'; script-src 'sha256-") and "unsafe" not in policy
    assert not [a for _, a in elements.tags if {"src", "href", "srcset", "onerror", "onload", "action", "style"} & {*a}]
    code = "".join(code)
    assert {*re.findall(r"\w+://[\w./]+", code)} == {"http://www.w3.org/2000/svg"}  # the name of SVG, never fetched
    assert not re.search(r"fetch|XMLHttp|WebSocket|@import|url\(|innerHTML|insertAdjacent|document\.write|eval\(", code)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "1 to 4,000 bytes, and --text has 0"),
        ("x " * MAX_BYTES, "1 to 4,000 bytes, and --text has 8,000"),
        ("a", "p up to 20, not 21"),
        (f"a {'x' * 400}", "words of at most 300 bytes, and --text has one of 401"),
    ],
)
def test_texts_that_no_page_can_show(text, message, sample2k):
    with pytest.raises(UserError, match=message):
        page_data(text, ["stochastok"], sample2k, p=21 if text == "a" else None)


def test_colors_of_the_page_are_those_of_plots():
    hues = re.findall(r"--hue\d: (#\w+)", (ASSETS / "style.css").read_text())
    assert hues == [color.lower() for color in COLORS[:6]]


def test_an_existing_file_is_never_lost(tmp_path):
    file = tmp_path / "new" / "page.html"
    assert write_page(file, "one")
    assert not write_page(file, "one")
    with pytest.raises(UserError, match="exists and has another content; give another name, or --force"):
        write_page(file, "two")
    assert file.read_text() == "one"
    assert write_page(file, "two", force=True)
    assert file.read_text() == "two"
    assert [*file.parent.iterdir()] == [file]
    with pytest.raises(UserError, match="is a folder"):
        write_page(tmp_path, "one")
    with pytest.raises(UserError, match=r"page\.html is a file; name a file in a folder"):
        write_page(file / "below" / "page.html", "one")


@pytest.mark.parametrize("force", [False, True])
def test_only_regular_files_are_read_or_replaced(force, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("pipe")
    for file in (Path("/dev/full"), tmp_path / "pipe", tmp_path / "link"):
        with pytest.raises(UserError, match="is a device or a pipe; name a file"):
            write_page(file, "one", force=force)
    assert (tmp_path / "pipe").is_fifo()


def test_a_link_to_a_page_stays(tmp_path):
    (tmp_path / "page.html").write_text("one")
    (tmp_path / "link").symlink_to("page.html")
    write_page(tmp_path / "link", "two", force=True)
    assert (tmp_path / "link").is_symlink() and (tmp_path / "page.html").read_text() == "two"


def test_the_command(tmp_path):
    file = tmp_path / "new" / "page.html"
    arguments = ("expand", "--text", "An example", "--html", file, "--tokenizer", "sample2k")
    done = run_stochastok(*arguments, "--method", "uniform", "-p", "0.3")
    assert (done.returncode, done.stdout) == (0, f"{file}\n"), done.stderr
    assert f"made {file}, which any browser opens\n" in done.stderr
    data = json.loads(re.search(r'application/json">(.*?)</script>', file.read_text(), re.DOTALL)[1])
    assert (data["methods"][0]["name"], data["p"], data["options"]) == ("uniform", 0.3, ["--tokenizer", "sample2k"])
    done = run_stochastok(*arguments)
    assert (done.returncode, done.stdout) == (2, "") and "--force" in done.stderr
    done = run_stochastok(*arguments, "--force", "--json")
    assert json.loads(done.stdout) == {"path": str(file), "made": True}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--html", "page.html"], "--html goes with --text"),
        (["corpus", "--html", "page.html"], "--html goes with --text"),
        (["--text", "a", "--html", "page.html", "--method", "bpe-dropout", "-p", "3"], "it is a probability"),
        (["--text", "a", "--report", "--html", "page.html"], "--report would have no effect"),
    ],
)
def test_wrong_use(arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = run_stochastok("expand", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr and len(done.stderr.splitlines()) == 1
    assert [*tmp_path.iterdir()] == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "text", "p"),
    [("gpt2", " walked in", 0.6), ("gpt2", " talked", 2.0), ("unigram", "hugs hug", 0.6), ("wordpiece", "abcb", 0.4)],
)
def test_exact_laws_of_the_page(kind, text, p, tmp_path):
    """Each law that the page calls exact against 20,000 draws of the package, by chi-square."""
    n = 20_000
    vocabulary = vocabulary_of(kind, tmp_path)
    data = page_data(text, METHODS[kind] if p <= 1 else ["stochastok"], vocabulary, p=p)
    laws = evaluate(
        data, f"data.methods.map((m) => exactLaw(tables, m, Math.min({p}, m.max_p), tables.words[0]))", tmp_path
    )
    ids = vocabulary.encode(text)
    width = data["starts"][data["words"][1]]
    checked = 0
    for method, law in zip(data["methods"], laws, strict=True):
        expand = StochasTok(vocabulary, min(p, method["max_p"]) if method["takes_p"] else None, method["name"], seed=1)
        out, lengths = expand.documents(np.tile(ids, n), np.full(n, len(ids)))
        seen: Counter = Counter()
        for document in np.split(out, np.cumsum(lengths)[:-1]):
            ends = np.cumsum(vocabulary.widths[document])
            seen[tuple(document[ends <= width].tolist())] += 1
        expected = {tuple(part[2] for part in parts): q for parts, q in law}
        assert sum(expected.values()) == pytest.approx(1)
        assert {*seen} <= {*expected}, method["name"]
        common = [parts for parts in expected if n * expected[parts] >= 5]
        observed = np.array([seen[parts] for parts in common])
        if len(common) > 1:
            weights = np.array([expected[parts] for parts in common])
            assert chisquare(observed, weights / weights.sum() * observed.sum()).pvalue > 1e-4, method["name"]
            assert n - observed.sum() <= 5 * len(expected)
            checked += 1
    assert checked >= 3


def in_browser(page: str, script: str, file: Path, width: int = 1400) -> list:
    """What a script returns behind those of a page, whose policy would not let it run and is taken out."""
    page = re.sub('<meta http-equiv="Content-Security-Policy"[^>]*>', "", page)
    file.write_text(f"{page}<script>document.title = JSON.stringify((() => {{ {script} }})());</script>")
    return json.loads(html.unescape(re.search("<title>(.*?)</title>", dump_dom(file, width))[1]))


def test_no_field_keeps_the_form_from_being_sent(sample2k):
    """A p between the steps of its field, and a negative seed, are fine."""
    tags = Elements(make_page("An example", ["stochastok"], sample2k, p=0.075, seed=-1)).tags
    assert any(tag == "form" and "novalidate" in attributes for tag, attributes in tags)


@pytest.mark.slow
def test_the_page_in_a_browser(sample2k, tmp_path):
    text = f"{HOSTILE} unbelievable strawberry {'x' * 100}"
    page, file = make_page(text, ["stochastok", "patok"], sample2k, samples=4), tmp_path / "page.html"
    file.write_text(page)
    document = dump_dom(file)  # with its policy; what it would forbid is an error on the console
    elements = Elements(document)
    assert sum(tag == "script" for tag, _ in elements.tags) == 1 + NUM_SCRIPTS
    assert not [tag for tag, _ in elements.tags if tag == "img"]
    assert document.count('class="label"') == 5 and "sample 4" in document
    assert len(re.findall('role="option"', document)) > 10 and 'class="curve' in document
    for method in ("stochastok-uni", "uniform-k", "grampa", "bpe-dropout", "patok", "reversed-merges"):
        assert f"</svg>{method}</button>" in document
    measure = "return [document.documentElement.scrollWidth, innerWidth];"
    for width in (400, 1100, 1400):
        needed, available = in_browser(page, measure, file, width)
        assert needed <= available <= max(width, 500)


@pytest.mark.slow
def test_estimates_are_of_as_many_samples_whatever_the_time(sample2k, tmp_path):
    """At first and in the end; with a clock that stands, and one that passes 2 ms at each sample."""
    page = make_page("walking and talking", ["bpe-dropout"], sample2k, p=0.5, seed=3)
    wait = """
      const badge = (id) => document.getElementById(id).textContent;
      const first = [badge("lattice-badge"), samples().length];
      performance.now = ((now) => () => (now += SPEED))(0);
      const show = () => document.title = JSON.stringify([first, badge("lattice-badge"), badge("mean")]);
      const timer = setInterval(() => samples().length === 2000 && (clearInterval(timer), show()), 20);
    """
    fast, slow = (in_browser(page, wait.replace("SPEED", str(ms)), tmp_path / "page.html") for ms in (0, 2))
    assert fast == slow
    assert fast[0] == ["shares in the first 200 of 2,000 samples, ± 6.9 points", 200]
    assert fast[1] == "shares in 2,000 samples, ± 2.2 points"
    ids = sample2k.encode("walking and talking")
    expand = StochasTok(sample2k, 0.5, "bpe-dropout", seed=3)
    lengths = [len(expand(ids, i)) for i in range(2000)]
    interval = 1.96 * np.std(lengths, ddof=1) / 2000**0.5
    assert fast[2].startswith(f"{np.mean(lengths):.2f} ± {interval:.2f} tokens on average")


@pytest.mark.slow
def test_what_a_user_does_with_the_page(sample2k, tmp_path):
    page = make_page("walking and talking, walking and", ["stochastok"], sample2k, samples=3, seed=4)
    script = """
      const idOf = (chip) => Number(chip.title.split(/[ ,]/)[1]);
      const shown = () => [...document.querySelectorAll("#rows > li")].map((row) =>
        [row.querySelector(".label").textContent, [...row.querySelectorAll(".chip")].map(idOf)]);
      const set = (id, value, event) => {
        const input = document.getElementById(id);
        input.value = value;
        input.dispatchEvent(new Event(event, { bubbles: true }));
      };
      const press = (key) => document.getElementById("words").dispatchEvent(new KeyboardEvent("keydown", { key }));
      const selected = () => [...document.querySelectorAll(".word")].findIndex((word) => word.ariaSelected === "true");
      set("method", data.methods.findIndex((m) => m.name === "grampa"), "change");
      set("p", 1, "change");
      const temperature = document.querySelector("#arguments input");
      temperature.value = 4;
      temperature.dispatchEvent(new Event("change"));
      set("seed", 11, "change");
      const first = shown();
      document.getElementById("again").click();
      const second = shown(), command = document.getElementById("command").textContent;
      set("seed", 1.5, "change");
      set("p", 2, "change");
      const refused = document.querySelectorAll("input.invalid").length, same = shown();
      const form = document.getElementById("controls");
      set("p", 0.075, "change");
      set("seed", -5, "change");
      const negative = shown();
      form.requestSubmit();
      const next = shown();
      set("p", 1, "change");
      set("seed", 11, "change");
      form.requestSubmit();
      press("Home");
      const places = [selected()];
      press("ArrowRight");
      places.push(selected());
      press("ArrowDown");
      const arc = document.getElementById("readout").textContent;
      return { first, second, same, refused, negative, next, command, places, arc, address: location.hash };
    """
    seen = in_browser(page, script, tmp_path / "page.html")
    ids = sample2k.encode("walking and talking, walking and")
    expand = StochasTok(sample2k, 1.0, "grampa:temperature=4", seed=11)
    assert seen["first"] == [["canonical", ids], *([f"sample {i + 1}", expand(ids, i).tolist()] for i in range(3))]
    assert seen["second"][1:] == [[f"sample {i + 1}", expand(ids, i).tolist()] for i in range(3, 6)]
    assert (seen["same"], seen["refused"], seen["places"]) == (seen["second"], 2, [0, 1])
    negative = StochasTok(sample2k, 0.075, "grampa:temperature=4", seed=-5)
    drawn = [[f"sample {i + 1}", negative(ids, i).tolist()] for i in range(6)]
    assert (seen["negative"][1:], seen["next"][1:]) == (drawn[:3], drawn[3:])
    assert "taken in" in seen["arc"] and "canonical" in seen["arc"]
    assert seen["command"] == (
        "stochastok expand --tokenizer sample2k --method grampa:temperature=4 -p 1 --seed 11 --samples 6 "
        "'--text=walking and talking, walking and'"
    )
    assert seen["address"] == "#method=grampa%3Atemperature%3D4&p=1&seed=11&first=3&word=1"
