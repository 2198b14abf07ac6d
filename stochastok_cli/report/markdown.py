"""A report as Markdown, with links to the files of its plots."""

from collections.abc import Iterator
from typing import assert_never

from stochastok_cli.errors import count_of
from stochastok_cli.report.questions import QuestionExamples, counts_text
from stochastok_cli.report.rendering import code_span, escape_markdown, to_markdown
from stochastok_cli.report.sections import Block, ChangedExamples, Curves, Document, Drawing, SampledTexts
from stochastok_cli.report.tables import Table


def to_document(document: Document) -> str:
    """The whole file."""
    made = f"Made by {code_span(document.command)} ({escape_markdown(document.version)})."
    lines = [f"# {escape_markdown(document.title)}", "", made, ""]
    for section in document.sections:
        lines += [f"## {escape_markdown(section.title)}", ""] if section.blocks else []
        for block in section.blocks:
            lines += _block(block)
    return "\n".join(lines)


def _block(block: Block) -> Iterator[str]:
    match block:
        case str():
            yield from (escape_markdown(block), "")
        case Table():
            yield from (f"### {escape_markdown(block.title)}", "") if block.title else ()
            yield from (to_markdown(block), "")
        case Drawing():
            yield from _drawing(block)
        case Curves():
            for drawing in next(iter(block.drawings.values()), ()):
                yield from _drawing(drawing)
        case QuestionExamples():
            yield from _questions(block)
        case ChangedExamples():
            yield from _changed(block)
        case SampledTexts():
            yield from (f"### {escape_markdown(block.label)}", "")
            for one in block.texts:
                yield from (f"> {code_span(one.text.strip())}", "")
        case _:
            assert_never(block)


def _drawing(drawing: Drawing) -> Iterator[str]:
    caption = " ".join(filter(None, [drawing.caption, *drawing.notes]))
    yield from (f"![{drawing.name}](plots/{drawing.name}.svg)", "", escape_markdown(caption), "")


def _questions(examples: QuestionExamples) -> Iterator[str]:
    yield from (f"### {escape_markdown(examples.title)}", "", counts_text(examples), "")
    for one in examples.examples:
        yield from (f"Question {one.row:,}: {code_span(one.question.strip() or '(none)')}", "")
        for i, option in enumerate(one.options):
            names = [
                f"{escape_markdown(answer.label)} {'✓' if answer.is_correct else '✗'}"
                for answer in one.answers
                if answer.option == i
            ]
            mark = " (right answer)" if i == 0 else ""
            chosen = f": {', '.join(names)}" if names else ""
            yield f"- {code_span(option.strip() or '(nothing)')}{mark}{chosen}"
        yield ""


def _changed(block: ChangedExamples) -> Iterator[str]:
    yield from (f"### {escape_markdown(block.title)}", "", block.counts, "")
    for one in block.changed.examples:
        yield from (f"Question {one.row:,}:", "")
        for tokens, answer, mark in ((one.canonical, one.right, "✓"), (one.other, one.answer, "✗")):
            text = code_span("|".join(token.text for token in tokens))
            yield f"- {text} {count_of(len(tokens), 'token')}, {code_span(answer.strip() or '(nothing)')} {mark}"
        yield ""
