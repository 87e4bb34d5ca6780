"""The browser that tests open pages with."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import BrowserContext, Playwright, sync_playwright

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
OPTIONS = ["--headless=new", "--no-sandbox", "--disable-background-networking", "--disable-component-update", "--disable-gpu"]
PHONE, DESK = {"width": 390, "height": 844}, {"width": 1280, "height": 900}


def find_browser(play: Playwright) -> str | None:
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    candidates = (found, "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome", play.chromium.executable_path)
    return next((path for path in candidates if path and Path(path).exists()), None)


def absent(reason: str) -> None:
    """Skip, or fail where the environment says that a browser and a book must be there."""
    if os.environ.get("PROM_REQUIRE_BROWSER") == "1":
        pytest.fail(reason)
    pytest.skip(reason)


@contextmanager
def opened() -> Iterator[BrowserContext]:
    """A context of a browser without window; where no browser is found, see :func:`absent`."""
    with sync_playwright() as play:
        path = find_browser(play)
        if path is None:
            absent(f"no Chromium found (looked for {', '.join(BROWSERS)})")
        browser = play.chromium.launch(executable_path=path, args=OPTIONS)
        yield browser.new_context(viewport=DESK, reduced_motion="reduce")
        browser.close()
