"""The chapters as tests: nbval compares what every cell shows with what is committed.

Nbval itself would run each chapter once more. Here a chapter's outputs come from the
cache that the book is rendered from; a chapter that is not in it is run now.
"""

from __future__ import annotations

from pathlib import Path
from queue import Empty

import pytest
from nbval.plugin import IPyNbFile
from run_all import CHAPTERS, code_cells, executed


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> Chapter | None:
    if file_path in CHAPTERS and not parent.config.option.nbval:
        return Chapter.from_parent(parent, path=file_path)
    return None


class Chapter(IPyNbFile):
    """A chapter as nbval collects it, with outputs of this machine from the cache."""

    def setup(self) -> None:
        self.kernel = Replay([cell.outputs for cell in code_cells(executed(self.path))])
        self.setup_sanitize_files()


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
