"""The prose of the book, the README, the change log and the help texts has plain words, short paragraphs and short tables."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from prom.cli import cli

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
BOOK = [*NOTEBOOKS, *sorted((ROOT / "book").rglob("*.md"))]
PAGES = [*BOOK, ROOT / "README.md", ROOT / "CHANGELOG.md"]

LONGEST_PARAGRAPH = 90  # words
LONGEST_TABLE = 12  # rows that a reader sees without unfolding anything
FOLDED = {"hide-output", "hide-cell", "remove-output", "remove-cell"}

# Each of these is never needed, wherever it stands: what a native writer would put instead is in the message of the test.
WORDS = {
    r"of which": "a new sentence, or 'whose'",
    r"(?<![,;] )\bbut for": "'except for'",  # after a comma it is a contrast: "not for the eye, but for the network"
    r"besides": "'also', or 'as well'",
    r"anew": "'again'",
    r"at work": "say what is done",
    r"next to nothing": "'almost none'",
    r"that is no(?! (longer|more|less)\b)": "'that is not', or 'without'",
    r"another one than": "'differs from'",
    r"gone on with": "'resumed'",
    r"data (that )?(say|says|tell|tells)": "'the data show'",
}
NUMBER = r"(?<![\w.\])}/*-])\.\d"  # .853 for 0.853
TWO_SENTENCES = r"(?:[a-z]{3}|[\w.]\d|\))[.!?] +[A-Z][a-z]"
# A heading, a row of a table, an option of a block, and "At a glance" of every chapter.
ONE_LINE = r"\s*(#|\||:[\w-]+:|\*\*(Question|Before it|Time)\.\*\*)"
# Blocks whose content is prose; that of other fences is code.
PROSE = {"admonition", "note", "tip", "warning", "figure", "glossary", "grid", "grid-item-card", "dropdown"}


def pieces(page: Path) -> Iterator[tuple[str, str]]:
    """The texts of a page, each with the place that it stands at: a Markdown cell, a caption, an alt text, or the whole page."""
    if page.suffix == ".md":
        yield page.name, page.read_text(encoding="utf-8")
        return
    for number, cell in enumerate(json.loads(page.read_text(encoding="utf-8"))["cells"]):
        if cell["cell_type"] == "markdown":
            yield f"{page.name}, cell {number}", "".join(cell["source"])
        shown = cell["metadata"].get("mystnb", {})
        for kind, field in (("figure", "caption"), ("image", "alt")):
            if field in shown.get(kind, {}):
                yield f"{page.name}, {field} of cell {number}", shown[kind][field]


def prose(text: str) -> str:
    """A text with its lines, without code, formulas, roles and addresses: each becomes one word.

    >>> prose("Run `make book`. It is at https://example.org, see {doc}`api`; $x = .5$.")
    'Run code. It is at address see role; formula.'
    """
    lines, blocks = [], []  # of every open block its fence, and whether it is prose
    for line in text.splitlines():
        if fence := re.match(r"\s*(`{3,}|:{3,})\s*(?:\{([\w-]+)\})?", line):
            if blocks and line.strip() == blocks[-1][0]:
                blocks.pop()
            else:
                blocks.append((fence[1], fence[2] in PROSE))
            line = ""
        lines.append(line if all(prose for _, prose in blocks) else "")
    text = "\n".join(lines)
    for pattern, word in (
        (r"<!--.*?-->", ""),
        (r"\$\$.*?\$\$", "\n"),
        (r"\{[\w:]+\}`[^`]*`", "role"),
        (r"``?[^`]+``?", "code"),
        (r"\$[^$\n][^$]*\$", "formula"),
        (r"\]\([^)\s]*\)", "]"),
        (r"(https?://|doi:)\S+", "address"),
    ):
        text = re.sub(pattern, word, text, flags=re.DOTALL)
    return text


def paragraphs(text: str) -> Iterator[str]:
    """The paragraphs and items of lists of a text, without its headings, tables and the options of its blocks."""
    held = []
    for line in [*prose(text).splitlines(), ""]:
        begins = re.match(r"\s*([-*]|\d+\.) ", line)
        outside = not line.strip() or re.match(r"\s*(#|\||:[\w-]+:|\([\w-]+\)=)", line)
        if held and (begins or outside or held[-1].endswith("\\")):
            yield " ".join(held)
            held = []
        if not outside:
            held.append(re.sub(r"^\s*([-*]|\d+\.) +", "", line).strip())


def words_to_replace(text: str) -> list[str]:
    """What a text has of the words to avoid, with a few letters around and what to write instead."""
    flat = " ".join(prose(text).split())
    found = []
    for pattern, instead in WORDS.items():
        for match in re.finditer(rf"\b(?:{pattern})\b", flat, re.IGNORECASE):
            found.append(f"...{flat[max(0, match.start() - 40) : match.end() + 30]}... (instead: {instead})")
    found += [f"...{flat[max(0, m.start() - 40) : m.end() + 10]}... (a zero before the point)" for m in re.finditer(NUMBER, flat)]
    return found


def commands(command: click.Command, name: str) -> Iterator[tuple[str, str]]:
    """The help of a command and of all below it."""
    context = click.Context(command, info_name=name)
    yield name, command.get_help(context)
    for below, child in getattr(command, "commands", {}).items():
        yield from commands(child, f"{name} {below}")


def rows(output: dict) -> int:
    """The rows of the longest table in an output, without its head."""
    data = {kind: "".join(content) for kind, content in output.get("data", {}).items() if kind.startswith("text/")}
    bodies = re.findall(r"<tbody>.*?</tbody>", data.get("text/html", ""), re.DOTALL)
    lines = re.findall(r"(?:^\|.*\n?)+", data.get("text/markdown", ""), re.MULTILINE)
    return max([0, *(body.count("<tr") for body in bodies), *(len(table.splitlines()) - 2 for table in lines)])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_words_are_plain(page):
    found = [f"{where}: {what}" for where, text in pieces(page) for what in words_to_replace(text)]
    assert not found, "\n".join(found)


def test_the_words_of_the_help_are_plain():
    texts = dict(commands(cli, "prom"))
    assert len(texts) > 10
    found = [f"{name} --help: {what}" for name, text in texts.items() for what in words_to_replace(text)]
    assert not found, "\n".join(found)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_paragraphs_are_short(page):
    long = [
        f"{where}: {count} words, from '{paragraph[:60]}'"
        for where, text in pieces(page)
        for paragraph in paragraphs(text)
        if (count := sum(bool(re.search("[A-Za-z]", word)) for word in paragraph.split())) > LONGEST_PARAGRAPH
    ]
    assert not long, "\n".join(long)


@pytest.mark.parametrize("page", BOOK, ids=lambda page: page.name)
def test_a_line_has_one_sentence(page):
    """So that a change of one sentence is a change of one line. Captions and alt texts have no lines of their own."""
    found = [
        f"{where}: '{line.strip()[:100]}'"
        for where, text in pieces(page)
        if "caption of" not in where and "alt of" not in where
        for line in prose(text).splitlines()
        if not re.match(ONE_LINE, line) and re.search(TWO_SENTENCES, re.sub(r"^\s*\d+\. ", "", line))
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize("page", NOTEBOOKS, ids=lambda page: page.name)
def test_long_tables_are_folded(page):
    cells = json.loads(page.read_text(encoding="utf-8"))["cells"]
    long = {
        number: longest
        for number, cell in enumerate(cells)
        if not FOLDED & set(cell["metadata"].get("tags", []))
        and (longest := max(map(rows, cell.get("outputs", [])), default=0)) > LONGEST_TABLE
    }
    assert not long, f"{page.name}: rows of the tables of these cells, which lack the tag hide-output: {long}"


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("The best one, of which there are ten.", 1),
        ("A map that is dark but for\na ring, besides SSIM .853.", 3),
        ("Best not for the eye, but for the network; 0.853 [.5, 1) of $.5$, `a.b .5`, that is no longer so", 1),
        ("```\nof which\n```\n{doc}`anew <of-which>` and https://example.org/anew", 0),
        ("```{admonition} Note\nWritten anew.\n```", 1),
    ],
)
def test_words_are_found_in_prose_alone(text, count):
    assert len(words_to_replace(text)) == count


def test_paragraphs_are_counted_as_they_are_read():
    text = "# A heading\n\nOne two\nthree.\n\n- four\n  five\n- six\n\n| a | table |\n\n```python\ncode = 1\n```\n\n$$\nx = y\n$$\nseven"
    assert list(paragraphs(text)) == ["One two three.", "four five", "six", "seven"]


@pytest.mark.parametrize(
    ("line", "two"),
    [
        ("The end. Then more.", True),
        ("It ran (twice). Then not.", True),
        ("At x8. Then", True),
        ("As of et al. Then", False),
        ("**Lead.** Then", False),
        ("**3. One step**", False),
        ("e.g. Then", False),
    ],
)
def test_two_sentences_differ_from_one(line, two):
    assert bool(re.search(TWO_SENTENCES, line)) == two
