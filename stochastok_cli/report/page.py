"""A report as one HTML page that loads nothing and runs no script."""

import html
import re
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import assert_never

from stochastok_cli.errors import count_of
from stochastok_cli.evaluation.answers import ChangedAnswer, ShownToken
from stochastok_cli.report.page_svg import with_unique_ids
from stochastok_cli.report.plots import LINE_STYLES, WIDTH, color_name, line_style
from stochastok_cli.report.questions import ExampleQuestion, ModelAnswer, QuestionExamples, counts_text, kind_text
from stochastok_cli.report.rendering import to_html
from stochastok_cli.report.sections import Block, ChangedExamples, Curves, Document, Drawing, SampledTexts, Section
from stochastok_cli.report.stylesheet import CSS
from stochastok_cli.report.tables import Table

POLICY = "default-src 'none'; style-src 'unsafe-inline'"
"""What the page may load, as a browser enforces it: its own style and nothing else."""
_WIDTH = re.compile(r'<svg[^>]*? width="([\d.]+)pt"')
LONGEST_QUESTION = 700
"""Characters of a question that are shown; the end of a longer one."""


def to_page(document: Document) -> str:
    """The whole page."""
    sections = [section for section in document.sections if section.blocks]
    links = "".join(f'<li><a href="#s{i}">{html.escape(one.title)}</a></li>' for i, one in enumerate(sections))
    return "\n".join(
        [
            "<!DOCTYPE html>",
            '<html lang="en"><head><meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{html.escape(document.title)}</title><style>{CSS}</style></head><body>",
            f"<header><h1>{html.escape(document.title)}</h1>",
            f'<p class="soft">Made by <code>{html.escape(document.command)}</code> '
            f"({html.escape(document.version)}).</p>",
            f"<nav><ul>{links}</ul></nav></header><main>",
            *(line for i, section in enumerate(sections) for line in _section(section, f"s{i}")),
            "</main></body></html>",
            "",
        ]
    )


def _section(section: Section, name: str) -> Iterator[str]:
    yield f'<section><h2 id="{name}">{html.escape(section.title)}</h2>'
    for is_drawing, blocks in groupby(section.blocks, lambda block: isinstance(block, Drawing)):
        texts = list(map(_block, blocks))
        yield f'<div class="columns">{"".join(texts)}</div>' if is_drawing and len(texts) > 1 else "\n".join(texts)
    yield "</section>"


def _block(block: Block) -> str:
    match block:
        case str():
            return f"<p>{html.escape(block)}</p>"
        case Table():
            heading = f"<h3>{html.escape(block.title)}</h3>" if block.title else ""
            return heading + to_html(block)
        case Drawing():
            return _figure(block, " ".join([block.caption, *block.notes]))
        case Curves():
            return _curves(block)
        case QuestionExamples():
            return _questions(block)
        case ChangedExamples():
            return _changed(block)
        case SampledTexts():
            return _texts(block)
        case _:
            assert_never(block)


def _figure(drawing: Drawing, caption: str, prefix: str = "") -> str:
    svg = with_unique_ids(drawing.svg, f"{prefix}{drawing.name}")
    svg = svg.replace("<svg", f'<svg role="img" aria-label="{html.escape(drawing.name)}"', 1)
    if float(_WIDTH.findall(svg)[0]) > WIDTH * 72:  # text of its own beside the axes, which a narrow page scrolls
        svg = f'<div class="wide">{svg}</div>'
    text = f"<figcaption>{html.escape(caption)}</figcaption>" if caption else ""
    return f"<figure>{svg}{text}</figure>"


def _curves(curves: Curves) -> str:
    """Curves over one axis at a time; radio buttons choose it, by style alone."""
    parts = [_legend(curves.labels)] if len(curves.labels) > 1 else []
    parts.append('<div class="curves">')
    for i, x_axis in enumerate(curves.drawings):
        checked = "" if i else " checked"
        text = {"iteration": "over iterations", "tokens": "over tokens", "time": "over training time"}[x_axis]
        parts.append(
            f'<input type="radio" name="x-axis" id="x-{x_axis}" class="x-{x_axis}"{checked}>'
            f'<label for="x-{x_axis}">{text}</label>'
        )
    for x_axis, drawings in curves.drawings.items():
        figures = "".join(_figure(drawing, drawing.caption, f"{x_axis}-") for drawing in drawings)
        parts.append(f'<div class="grid of-{x_axis}">{figures}</div>')
    parts.append("</div>")
    notes = dict.fromkeys(note for drawings in curves.drawings.values() for one in drawings for note in one.notes)
    return "".join([*parts, *(f'<p class="note">{html.escape(note)}</p>' for note in notes)])


def _legend(labels: Sequence[tuple[int, str]]) -> str:
    entries = "".join(f"<li>{_key(k)}{html.escape(label)}</li>" for k, label in labels)
    return f'<ul class="legend">{entries}</ul>'


def _key(k: int) -> str:
    """A piece of the line of run or model k."""
    style = line_style(k)
    dashes = "" if style == LINE_STYLES[0] else f' stroke-dasharray="{" ".join(str(3 * one) for one in style[1])}"'
    line = f'<line x1="0" y1="5" x2="24" y2="5" style="stroke: {color_name(k)}" stroke-width="3"{dashes}/>'
    return f'<svg width="24" height="10" viewBox="0 0 24 10" aria-hidden="true">{line}</svg>'


def _questions(examples: QuestionExamples) -> str:
    cards = "".join(map(_question, examples.examples))
    return (
        f'<h3>{html.escape(examples.title)}</h3><p class="note">{html.escape(counts_text(examples))}</p>'
        f'<div class="grid">{cards}</div>'
    )


def _question(example: ExampleQuestion) -> str:
    """A card with a line for each option, with the models that chose it."""
    text = example.question.strip()
    if len(text) > LONGEST_QUESTION:
        text = f"… {text[-LONGEST_QUESTION:]}"
    parts = [f'<article class="question"><p class="soft">Question {example.row:,}, {kind_text(example)}</p>']
    parts += [f'<p class="ask" dir="auto">{html.escape(text)}</p>'] if text else []
    parts.append("<ul>")
    for i, option in enumerate(example.options):
        shown = html.escape(option.strip()) or '<span class="soft">nothing</span>'
        names = "".join(_who(answer) for answer in example.answers if answer.option == i)
        kind, mark = (' class="key"', ' <span class="soft">(right answer)</span>') if i == 0 else ("", "")
        parts.append(f'<li{kind}><span class="option" dir="auto">{shown}</span>{mark}{names}</li>')
    return "".join([*parts, "</ul></article>"])


def _who(answer: ModelAnswer) -> str:
    """The name of a model beside its answer."""
    kind, sign = ("right", "✓") if answer.is_correct else ("wrong", "✗")
    probability = "" if answer.probability is None else f" {answer.probability:.2f}"
    return f'<span class="who {kind}">{_key(answer.model)}{sign}{probability} {html.escape(answer.label)}</span>'


def _changed(block: ChangedExamples) -> str:
    cards = "".join(map(_changed_answer, block.changed.examples))
    return (
        f'<h3>{html.escape(block.title)}</h3><p class="note">{html.escape(block.counts)}</p>'
        f'<div class="grid">{cards}</div>'
    )


def _changed_answer(one: ChangedAnswer) -> str:
    """A card with both tokenizations, each token in a box, and the answers to them."""
    parts = [f'<article class="question"><p class="soft">Question {one.row:,}</p><ul>']
    for tokens, answer, kind, mark in (
        (one.canonical, one.right, "right", "✓"),
        (one.other, one.answer, "wrong", "✗"),
    ):
        count = f'<span class="soft">{count_of(len(tokens), "token")}</span>'
        chosen = f'<span class="option" dir="auto">{html.escape(answer.strip())}</span>'
        parts.append(f'<li><div class="tokens" dir="auto">{_tokens(tokens)}</div>')
        parts.append(f'{count} <span class="{kind}">{mark} {chosen}</span></li>')
    return "".join([*parts, "</ul></article>"])


def _tokens(tokens: Sequence[ShownToken]) -> str:
    """The last tokens of a text, with those marked that the other tokenization does not have."""
    left, shown = LONGEST_QUESTION, []
    for token in reversed(tokens):
        left -= len(token.text)
        if left < 0:
            shown.append("… ")
            break
        text = html.escape(token.text).replace("\n", "↵\n")
        shown.append(f"<span>{text}</span>" if token.is_shared else f"<mark>{text}</mark>")
    return "".join(reversed(shown))


def _texts(sampled: SampledTexts) -> str:
    texts = []
    for one in sampled.texts:
        end = "" if one.finish_reason == "stop" else ' <span class="soft">…</span>'
        texts.append(f'<div class="sample" dir="auto">{html.escape(one.text.strip())}{end}</div>')
    return f"<h3>{html.escape(sampled.label)}</h3>{''.join(texts)}"
