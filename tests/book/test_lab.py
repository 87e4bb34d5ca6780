"""The chapters as a reader reruns them: `make lab` with copies of two chapters, in a browser."""

from __future__ import annotations

import json
import os
import re
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlparse
from urllib.request import urlopen

import nbformat
import pytest
from browser import opened
from papermill.iorw import load_notebook_node
from papermill.parameterize import parameterize_notebook
from playwright.sync_api import BrowserContext, Page, Route
from test_chapters import OTHER, folder  # noqa: F401

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
TOKEN = "of-this-test"
LOCAL = ("127.0.0.1", "localhost", "::1")
# Read by every Python that the server starts, itself and the kernels among them: writes down each host that is called.
LISTENER = f"""
import os, sys

def listen(event, arguments):
    if event == "socket.getaddrinfo":
        host = arguments[0]
    elif event == "socket.connect" and isinstance(arguments[1], tuple):
        host = arguments[1][0]
    else:
        return
    host = host.decode() if isinstance(host, bytes) else host
    if host and host not in {LOCAL}:
        with open(os.environ["PROM_CALLED"], "a") as file:
            file.write(host + chr(10))

sys.addaudithook(listen)
"""
# The notebook on the screen as it would be saved. JupyterLab shows its insides where it is told to.
NOTEBOOK = "window.jupyterapp.shell.currentWidget.model.toJSON()"
READY = """path => {
    const widget = window.jupyterapp.shell.currentWidget;
    return widget?.context?.path == path && widget.sessionContext.session?.kernel?.status == 'idle';
}"""
DONE = f"""() => {{
    const cells = {NOTEBOOK}.cells.filter(cell => cell.cell_type == 'code');
    return cells.every(cell => cell.execution_count) || cells.some(cell => cell.outputs.some(output => output.output_type == 'error'));
}}"""
LIVE = ".jupyter-widgets.widget-vbox"
SHOWN = f"""() => {{
    const box = document.querySelector('{LIVE}');
    const pictures = [...box.querySelectorAll('.prom-explorer [data-part]')].map(tile => {{
        const image = tile.querySelector('img');
        return [tile.dataset.part, image.complete && image.naturalWidth > 0 ? image.src : ''];
    }});
    return {{pictures: Object.fromEntries(pictures), scores: box.querySelector('[role=status]')?.textContent ?? ''}};
}}"""


def copy_of(chapter: str, target: Path, **parameters: object) -> None:
    """A chapter that nobody has run, with other parameters."""
    notebook = parameterize_notebook(load_notebook_node(str(ROOT / "notebooks" / f"{chapter}.ipynb")), parameters)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    if chapter == "08_explorer":
        notebook.cells.append(nbformat.v4.new_code_cell("live"))  # as the chapter tells the reader to
    nbformat.write(notebook, target / f"{chapter}.ipynb")


def recipe_of(target: str) -> list[str]:
    """The commands of a target of the Makefile, with their variables' names as they stand there."""
    recipe = re.search(rf"^{target}:.*\n((?:\t.*\n)+)", MAKEFILE, re.MULTILINE)[1]
    return [line.lstrip("\t@") for line in recipe.replace("\\\n\t", "").splitlines()]


def until(condition: Callable[[], object], seconds: float, what: Callable[[], str]) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, what()
        time.sleep(0.1)


@pytest.fixture(scope="module")
def context() -> Iterator[BrowserContext]:
    with opened() as context:
        yield context


@pytest.fixture(scope="module")
def listening(tmp_path_factory) -> tuple[dict[str, str], Path]:
    """Environment in which a Python writes down whom it calls, and the file that it writes to."""
    place = tmp_path_factory.mktemp("listener")
    (place / "sitecustomize.py").write_text(LISTENER)
    called = place / "called.txt"
    called.touch()
    return {**os.environ, "PYTHONPATH": str(place), "PROM_CALLED": str(called)}, called


@pytest.fixture(scope="module")
def lab(folder, listening, context, tmp_path_factory) -> Iterator[str]:  # noqa: F811
    """The address of a server that `make lab` would start, in a folder with copies of chapters."""
    place = tmp_path_factory.mktemp("project")
    (place / "notebooks").mkdir()
    (place / ".venv").symlink_to(sys.prefix)
    (place / "data").symlink_to(ROOT / "data")
    for chapter in ("01_theory", "08_explorer"):
        copy_of(chapter, place / "notebooks", dataset=str(folder / "bright"), **OTHER[chapter])
    cells = [nbformat.v4.new_code_cell(source) for source in ("1 / 0", "1")]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3"}}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=kernel), place / "notebooks" / "fault.ipynb")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    own = {f"JUPYTER_{name}_DIR": str(place / name) for name in ("CONFIG", "DATA", "RUNTIME")}
    own |= {"JUPYTER_TOKEN": TOKEN, "IPYTHONDIR": str(place / "ipython"), "JUPYTERLAB_SETTINGS_DIR": str(place / "settings")}
    own |= {"JUPYTERLAB_WORKSPACES_DIR": str(place / "workspaces")}
    here = ["--no-browser", "--allow-root", "--ip=127.0.0.1", f"--port={port}", "--port-retries=0", "--LabApp.expose_app_in_browser=True"]
    log = place / "server.log"
    *before, start = recipe_of("lab")
    for command in before:
        subprocess.run(command, shell=True, cwd=place, check=True)
    with log.open("w") as output:
        server = subprocess.Popen([*shlex.split(start), *here], cwd=place, env=listening[0] | own, stdout=output, stderr=output)
    address = f"http://127.0.0.1:{port}"

    def answers() -> bool:
        try:
            return urlopen(f"{address}/api?token={TOKEN}", timeout=5).status == 200
        except OSError:
            assert server.poll() is None, log.read_text()
            return False

    until(answers, 60, log.read_text)
    yield address
    server.terminate()  # and the kernels with it
    server.wait(30)


@pytest.fixture
def page(lab, listening, context) -> Iterator[Page]:
    """A tab in which no page is open yet. At the end nothing has called another machine."""
    page, foreign = context.new_page(), []

    def refuse(route: Route) -> None:
        foreign.append(route.request.url)
        route.abort()

    page.route(lambda url: urlparse(url).hostname not in LOCAL and url.startswith("http"), refuse)
    page.on("websocket", lambda ws: foreign.append(ws.url) if urlparse(ws.url).hostname not in LOCAL else None)
    yield page
    asked = page.get_by_text("official Jupyter news").count()
    page.close()
    assert not asked and foreign == [] and listening[1].read_text() == ""


def run_all(page: Page, lab: str, chapter: str) -> dict:
    """Open a chapter, choose Run All Cells from the menu, wait; the notebook as it then is."""
    page.goto(f"{lab}/lab/workspaces/{chapter}/tree/{chapter}.ipynb?token={TOKEN}")  # a workspace of its own: no other tab
    page.wait_for_selector(".jp-NotebookPanel .jp-Notebook .jp-Cell", timeout=60_000)
    page.wait_for_function(READY, arg=f"{chapter}.ipynb", timeout=60_000)  # before, Run All Cells would do nothing
    page.locator(".lm-MenuBar-item", has_text=re.compile("^Run$")).click()
    page.locator(".lm-Menu-itemLabel", has_text=re.compile("^Run All Cells$")).click()
    page.wait_for_function(DONE, timeout=240_000, polling=500)
    return page.evaluate(NOTEBOOK)


def faults(notebook: dict) -> list[str]:
    """Errors, and what was written to the error stream."""
    outputs = [output for cell in notebook["cells"] if cell["cell_type"] == "code" for output in cell["outputs"]]
    return [json.dumps(output)[:2000] for output in outputs if output["output_type"] == "error" or output.get("name") == "stderr"]


def test_run_all_runs_chapter_1(page, lab):
    notebook = run_all(page, lab, "01_theory")
    assert faults(notebook) == []
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    drawn = sum("image/png" in output.get("data", ()) for cell in code for output in cell["outputs"])
    committed = nbformat.read(ROOT / "notebooks" / "01_theory.ipynb", 4)
    figures = sum("image/png" in output.get("data", ()) for cell in committed.cells for output in cell.get("outputs", ()))
    assert drawn == figures > 3
    assert page.locator(".jp-Notebook img").first.is_visible()


def test_the_live_explorer_follows_every_choice(page, lab):
    assert faults(run_all(page, lab, "08_explorer")) == []
    box = page.locator(LIVE)
    box.wait_for(timeout=20_000)
    box.scroll_into_view_if_needed()
    lists, sliders = box.locator("select"), box.locator(".noUi-handle")

    def shown() -> dict:
        return page.evaluate(SHOWN)

    def changes(choose: Callable[[], object], *parts: str) -> None:
        before = shown()
        choose()
        until(
            lambda: (
                (now := shown())["scores"].count("PSNR") == 1
                and all(now["pictures"][part] not in ("", before["pictures"][part]) for part in parts)
            ),
            20,
            lambda: f"{parts}: before {before['scores']}, now {shown()['scores']}",
        )

    until(lambda: all(shown()["pictures"].values()) and len(shown()["pictures"]) == 5, 20, lambda: str(shown()))
    made_anew = ("mask", "spread", "image", "error")
    changes(lambda: lists.nth(1).select_option("points"), *made_anew)
    changes(lambda: lists.nth(0).select_option("Poisson disc"), *made_anew)
    changes(lambda: sliders.nth(0).press("ArrowRight"), *made_anew)
    changes(lambda: sliders.nth(1).press("ArrowRight"), "target", "image", "error")
    lists.nth(1).select_option("rows")  # a Poisson disc has none
    until(lambda: "Poisson disc has points" in box.inner_text(), 20, box.inner_text)
    assert shown()["pictures"] == {}


def test_an_error_is_noticed(page, lab):
    """A check that cannot fail proves nothing."""
    [fault] = faults(run_all(page, lab, "fault"))
    assert "ZeroDivisionError" in fault


def test_a_call_of_another_machine_is_noticed(listening):
    environment, called = listening
    call = "import socket\ntry: socket.create_connection(('name.invalid', 80), 1)\nexcept OSError: pass"
    subprocess.run([sys.executable, "-c", call], env=environment, check=True)
    assert called.read_text() == "name.invalid\n"
    called.write_text("")
