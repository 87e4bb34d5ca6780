"""The chapters as tests: nbval compares what every cell shows with what is committed.

Nbval itself would run each chapter once more. Here a chapter's outputs come from the
cache that the book is rendered from; a chapter that is not in it is run now.

Another processor changes the last bits, and a number close to the middle between two
printed ones is then rounded to the other: a number with decimals may differ by one in
its last place. Whole numbers and words may not differ.
"""

from __future__ import annotations

import re
from decimal import Decimal
from pathlib import Path
from queue import Empty

import nbformat
import pytest
from nbval.plugin import IPyNbFile
from run_all import CHAPTERS, code_cells, executed

TIMED = ("03_gpu_optimization",)  # measures times


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> Chapter | None:
    if file_path in CHAPTERS and not parent.config.option.nbval:
        return Chapter.from_parent(parent, path=file_path)
    return None


class Chapter(IPyNbFile):
    """A chapter as nbval collects it, with outputs of this machine from the cache."""

    def setup(self) -> None:
        committed = code_cells(nbformat.read(self.path, 4))
        cells = zip(code_cells(executed(self.path)), committed, strict=True)
        self.kernel = Replay(
            [rounded_as(now.outputs, old.outputs) for now, old in cells]
        )
        self.setup_sanitize_files()
        if self.path.stem not in TIMED:  # there, times are those of a scan: results
            self.sanitize_patterns = {
                pattern: word
                for pattern, word in self.sanitize_patterns.items()
                if word != "DURATION"
            }


NUMBER = re.compile(r"[-+]?\d+\.\d+")


def rounded_as(outputs: list[dict], committed: list[dict]) -> list[dict]:
    """Outputs of this machine, texts as committed where they differ by rounding."""
    for now, old in zip(outputs, committed, strict=False):
        for texts, before in ((now, old), (now.get("data", {}), old.get("data", {}))):
            for kind in ("text", "text/plain", "text/html", "text/markdown"):
                if close(texts.get(kind), before.get(kind)):
                    texts[kind] = before[kind]
    return outputs


def close(text: str | None, committed: str | None) -> bool:
    """Whether two texts are the same but for one in the last place of numbers."""
    if not text or not committed or NUMBER.sub("#", text) != NUMBER.sub("#", committed):
        return False
    pairs = zip(NUMBER.findall(text), NUMBER.findall(committed), strict=True)
    return all(
        a.partition(".")[2].isdecimal()
        and len(a.partition(".")[2]) == len(b.partition(".")[2])
        and abs(Decimal(a) - Decimal(b)) <= Decimal(1).scaleb(-len(a.partition(".")[2]))
        for a, b in pairs
    )


class Replay:
    """What nbval asks of a kernel, answered with the outputs of cells that have run."""

    def __init__(self, outputs: list[list[dict]]) -> None:
        self.outputs, self.failed, self.messages = iter(outputs), False, []

    def is_alive(self) -> bool:
        return True

    def stop(self) -> None:
        pass

    def await_reply(self, cell: str, timeout: float) -> None:
        pass

    def await_idle(self, cell: str, timeout: float) -> None:
        pass

    def execute_cell_input(self, source: str, allow_stdin: bool) -> str:
        if self.failed:
            pytest.skip("an earlier cell of the chapter failed")
        for output in next(self.outputs):
            self.failed |= output["output_type"] == "error"
            self.messages.append(message(output["output_type"], output))
        self.messages.append(message("status", {"execution_state": "idle"}))
        return "cell"

    def get_message(self, stream: str, timeout: float) -> dict:
        if not self.messages:
            raise Empty
        return self.messages.pop(0)


def message(kind: str, content: dict) -> dict:
    """A message of Jupyter's protocol."""
    return {"msg_type": kind, "content": content, "parent_header": {"msg_id": "cell"}}
