"""What is said in several places of the project is said alike: the version, the tools' versions, the commands of the workflows."""

import json
import re
import sys
import tomllib
from pathlib import Path
from types import ModuleType

import pytest
import yaml

ROOT = Path(__file__).parents[2]
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
CHAPTERS = sorted((ROOT / "notebooks").glob("*.ipynb"))
SPEAKING = [*WORKFLOWS, ROOT / "CONTRIBUTING.md", ROOT / "README.md", ROOT / ".ci" / "run"]


def read(path: Path) -> dict:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def test_the_citation_has_the_version_of_the_package():
    assert read(ROOT / "CITATION.cff")["version"] == VERSION


def test_the_change_log_names_the_version():
    assert re.search(rf"\b{re.escape(VERSION)}\b", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"))


def test_hooks_use_the_pinned_ruff():
    pins = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    hooks = [hook for repository in read(ROOT / ".pre-commit-config.yaml")["repos"] for hook in repository["hooks"]]
    used = {need for hook in hooks for need in hook["additional_dependencies"] if need.startswith("ruff")}
    assert len(used) == 1 and used <= set(pins)


@pytest.mark.parametrize(
    "path", [*WORKFLOWS, ROOT / "CONTRIBUTING.md", ROOT / "README.md", ROOT / ".ci" / "run"], ids=lambda path: path.name
)
def test_commands_exist(path):
    """Every `make target` that a workflow or a page asks for is one, and every script is there and may be run."""
    text = path.read_text(encoding="utf-8")
    for target in re.findall(r"^\s*(?:- run: )?(?:[A-Z_]+=\S+ )?make (\S+)", text, re.MULTILINE):
        assert re.search(rf"^{re.escape(target)}:", MAKEFILE, re.MULTILINE), target
    for script in re.findall(r"^\s*- run: (\.?\S*/\S+)$", text, re.MULTILINE):
        assert (ROOT / script).stat().st_mode & 0o111, script


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_workflows_may_do_no_more_than_they_need(path):
    workflow = read(path)
    assert workflow["permissions"] == {"contents": "read"}
    writing = {job for job, steps in workflow["jobs"].items() if "write" in str(steps.get("permissions"))}
    assert writing <= {"deploy", "publish"}


@pytest.mark.parametrize("path", sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("[!c]*.yml")), ids=lambda path: path.name)
def test_issue_forms_have_what_github_demands(path):
    form = read(path)
    assert {"name", "description", "body"} <= set(form)
    fields = [field for field in form["body"] if field["type"] != "markdown"]
    assert all(field["attributes"]["label"] for field in fields)
    assert len({field["id"] for field in fields}) == len(fields) > 0


def test_every_module_is_in_the_api_reference():
    """But the command line, which explains itself, and what readers of files share."""
    shared = {"acquisitions", "arrays", "dicom", "formats", "matlab", "raw", "reading", "roles", "signatures", "splits", "subjects", "twix"}
    readers = {f"prom.datasets.{name}" for name in shared}
    commands = {f"prom.cli.{name}" for name in ("exporting", "reconstructing", "segmenting", "sweeping")}
    within = {"prom.cli", *commands, *readers}
    files = [path.relative_to(ROOT).with_suffix("") for path in (ROOT / "prom").rglob("*.py") if path.stem != "__main__"]
    modules = {".".join(path.parts).removesuffix(".__init__") for path in files} - {"prom"}
    pages = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "book" / "api").glob("*.md"))
    named = re.findall(r"automodule:: (\S+)", pages)
    assert sorted(named) == sorted(modules - within)


def test_equations_have_the_numbers_of_the_paper():
    """The target of Eq. 7 is the formula tagged 7, and what links to it says 7. That targets exist is the build's business."""
    text = "\n".join("".join(cell["source"]) for path in CHAPTERS for cell in json.loads(path.read_text(encoding="utf-8"))["cells"])
    formulas = re.findall(r"\(eq-paper-(\d+)\)=\s*\$\$(.*?)\$\$", text, re.DOTALL)
    assert {number for number, _ in formulas} >= {str(number) for number in range(1, 9)}
    assert [number for number, formula in formulas if f"\\tag{{{number}}}" not in formula] == []
    links = re.findall(r"\{ref\}`([^`]*)<eq-paper-(\d+)>`", text)
    assert links and [link for link in links if not re.search(rf"\b{link[1]}\b", link[0])] == []


def cells(path: Path) -> list[dict]:
    return [cell | {"source": "".join(cell["source"])} for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]]


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_a_chapter_says_what_it_asks_needs_takes_and_taught(path):
    text = "\n".join(cell["source"] for cell in cells(path) if cell["cell_type"] == "markdown")
    for part in ("**Question.**", "**Before it.**", "**Time.**", "## Exercises", "## What was learnt"):
        assert text.count(part) == 1, part
    assert re.search(r"\d+ minutes to read; .*minutes? to run", text)


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_code_and_output_can_be_read_on_the_page(path):
    """The page shows 88 characters of a line; a cell that is longer than 40 lines holds more than one idea."""
    code = [cell for cell in cells(path) if cell["cell_type"] == "code"]
    assert [cell["id"] for cell in code if cell["source"].count("\n") >= 40] == []
    assert [line for cell in code for line in cell["source"].splitlines() if len(line) > 88] == []
    printed = ["".join(output["text"]) for cell in code for output in cell["outputs"] if output["output_type"] == "stream"]
    assert [line for text in printed for line in text.splitlines() if len(line) > 88] == []


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_exercises_have_folded_solutions_that_ran(path):
    here = cells(path)
    exercises = [i for i, cell in enumerate(here) if "```{admonition} Exercise" in cell["source"]]
    assert 2 <= len(exercises) <= 4
    for number, i in enumerate(exercises, 1):
        assert f"{{admonition}} Exercise {number}: " in here[i]["source"]
        solution = here[i + 1]
        assert solution["cell_type"] == "code" and "hide-cell" in solution["metadata"]["tags"]
        assert solution["metadata"]["mystnb"]["code_prompt_show"] == f"Solution of exercise {number}"
        assert solution["execution_count"] and solution["outputs"]
        assert all(output.get("name") != "stderr" for output in solution["outputs"])


def test_the_first_cell_for_colab_fetches_package_and_data(tmp_path, monkeypatch):
    """The same in every chapter; it does nothing elsewhere, and on Colab ends beside the chapters, with the package in reach."""
    first = {next(cell["source"] for cell in cells(path) if cell["cell_type"] == "code") for path in CHAPTERS}
    assert len(first) == 1
    source, ran = first.pop(), []

    def run(command: list[str], check: bool) -> None:
        ran.append(command)
        if command[0] == "git":
            (tmp_path / command[-1] / "notebooks").mkdir(parents=True)

    monkeypatch.setattr("subprocess.run", run)
    monkeypatch.setattr("sys.path", list(sys.path))
    monkeypatch.chdir(tmp_path)
    exec(source, {})
    assert not ran
    monkeypatch.setitem(sys.modules, "google.colab", ModuleType("google.colab"))
    monkeypatch.setenv("PROM_REPOSITORY", "https://example.org/book")
    for _ in range(2):  # the second time there is nothing left to do
        exec(source, {})
    assert [command[0] for command in ran] == ["git", sys.executable] and "https://example.org/book" in ran[0]
    assert Path.cwd() == tmp_path / ran[0][-1] / "notebooks" and sys.path[0] == str(Path.cwd().parent)


def test_every_table_and_figure_of_the_paper_has_its_row():
    page = (ROOT / "book" / "reproduce.md").read_text(encoding="utf-8")
    rows = [row for row in (line.split("|")[1:-1] for line in page.splitlines()) if len(row) == 5 and re.match(" (Table|Figure) ", row[0])]
    assert {row[0].strip().split(",")[0] for row in rows} == {"Table 1", "Table 2", *(f"Figure {i}" for i in range(1, 11))}
    commands = re.findall(r"^([A-G])  \.venv/bin/", page, re.MULTILINE)
    for name, where, needs, takes, outcome in rows:
        assert set(re.findall(r"\b([A-G])\b", where.split(":")[-1])) <= set(commands) and needs.strip() and takes.strip(), name
        assert re.search("reproduced|better|not run|drawn", outcome), name
