"""The rendered book as a reader meets it: every page of _build/html, opened in Chromium from the disk."""

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urldefrag, urljoin, urlparse
from urllib.request import url2pathname

import pytest
from playwright.sync_api import BrowserContext, Error, sync_playwright

HTML = Path(__file__).parents[1] / "_build" / "html"
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
OPTIONS = ["--headless=new", "--no-sandbox", "--disable-background-networking", "--disable-component-update", "--disable-gpu"]
PHONE, DESK = {"width": 390, "height": 844}, {"width": 1280, "height": 900}

# Run in the page: true once every formula is set and every image is there or has failed.
SETTLED = """() => {
    if (document.querySelector('script[src*="tex-svg"]') && !window.mathIsSet) {
        window.MathJax?.startup?.promise?.then(() => { window.mathIsSet = true; });
        return false;
    }
    return [...document.images].every(image => { image.loading = 'eager'; return image.complete; });
}"""
INSPECT = r"""() => {
    const all = selector => [...document.querySelectorAll(selector)];
    const short = element => element.textContent.trim().slice(0, 60);
    const prose = document.querySelector('article')?.cloneNode(true);
    prose?.querySelectorAll('pre, code, script, mjx-container').forEach(element => element.remove());
    return {
        ids: all('[id], a[name]').map(element => element.id || element.name),
        links: all('a[href]').map(element => element.href),
        formulas: [
            ...all('.math').filter(element => !element.querySelector('mjx-container')).map(element => 'not rendered: ' + short(element)),
            ...all('mjx-container [data-mjx-error]').map(element => element.getAttribute('data-mjx-error')),
            ...(prose?.textContent.match(/.{0,30}(\$\$|\\\(|\\\[|\\begin\{).{0,30}/g) ?? []).map(text => 'raw: ' + text),
        ],
        images: all('img').flatMap(element => [
            ...(element.naturalWidth > 0 ? [] : ['does not load: ' + element.getAttribute('src')]),
            ...(element.alt.trim() && !/\.(png|svg|jpe?g)$/.test(element.alt) ? [] : ['has no alt text: ' + element.getAttribute('src')]),
        ]),
        outputs: all('.cell_output').flatMap(element =>
            element.textContent.match(/.{0,60}(Warning:|WARNING|Traceback \(most recent call last\)).{0,60}/g) ?? []),
    };
}"""
FAULTS = ("errors", "foreign requests", "formulas", "images", "links", "outputs", "width")


def find_browser(play) -> str | None:
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    candidates = (found, "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome", play.chromium.executable_path)
    return next((path for path in candidates if path and Path(path).exists()), None)


def absent(reason: str) -> None:
    """Skip, or fail where the environment says that a browser and a book must be there."""
    if os.environ.get("PROM_REQUIRE_BROWSER") == "1":
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="module")
def context() -> Iterator[BrowserContext]:
    with sync_playwright() as play:
        path = find_browser(play)
        if path is None:
            absent(f"no Chromium found (looked for {', '.join(BROWSERS)})")
        browser = play.chromium.launch(executable_path=path, args=OPTIONS)
        yield browser.new_context(viewport=DESK, reduced_motion="reduce")
        browser.close()


def visit(context: BrowserContext, path: Path) -> dict[str, list[str]]:
    """Everything wrong with one page by itself, by kind; and its ids and links, for the check across pages."""
    page = context.new_page()
    errors, foreign = [], []
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("requestfailed", lambda request: errors.append(f"failed: {request.url}") if request.url.startswith("file:") else None)
    page.on("websocket", lambda socket: foreign.append(socket.url))

    def refuse(route) -> None:
        foreign.append(route.request.url)
        route.abort()

    page.route(re.compile("^(https?|ftp):"), refuse)
    try:
        page.goto(path.as_uri())
        if 'http-equiv="refresh"' in path.read_text(encoding="utf-8").lower():
            page.wait_for_url(lambda url: url != path.as_uri())
        page.wait_for_function(SETTLED, timeout=20_000)
        found = page.evaluate(INSPECT)
        page.set_viewport_size(PHONE)
        page.wait_for_timeout(100)
        needed, given = page.evaluate("[document.documentElement.scrollWidth, document.documentElement.clientWidth]")
        return {
            **found,
            "url": page.url,
            "errors": [error for error in errors if not any(url in error for url in foreign) and "ERR_FAILED" not in error],
            "foreign requests": foreign,
            "width": [f"{needed} px wide on a screen of {given} px"] if needed > given else [],
        }
    except Error as error:
        return {kind: [] for kind in (*FAULTS, "ids")} | {"url": page.url, "errors": [str(error), *errors]}
    finally:
        page.close()


def check_links(pages: dict[Path, dict]) -> None:
    """Turn each page's links into those that lead nowhere. Links to other sites are for a link checker, not for a test without network."""
    for page in pages.values():
        broken = set()
        for link in page["links"]:
            target, fragment = urldefrag(urljoin(page["url"], link))
            if urlparse(target).scheme != "file":
                continue
            path = Path(url2pathname(unquote(urlparse(target).path)))
            if not path.is_file() or (fragment and path in pages and unquote(fragment) not in pages[path]["ids"]):
                broken.add(link)
        page["links"] = sorted(broken)


def inspect(context: BrowserContext, root: Path) -> dict[Path, dict]:
    paths = [path for path in sorted(root.rglob("*.html")) if "_static" not in path.relative_to(root).parts]
    pages = {path: visit(context, path) for path in paths}
    check_links(pages)
    return pages


@pytest.fixture(scope="module")
def pages(context) -> dict[Path, dict]:
    if not (HTML / "index.html").is_file():
        absent("the book is not built: run `make book` first")
    return inspect(context, HTML)


@pytest.mark.parametrize("kind", FAULTS)
def test_no_page_has(kind, pages):
    assert {str(path.relative_to(HTML)): page[kind] for path, page in pages.items() if page[kind]} == {}


def test_the_front_door_opens_the_introduction(pages):
    assert pages[HTML / "index.html"]["url"] == (HTML / "book" / "intro.html").as_uri()


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("errors", "<script>console.error('x')</script>"),
        ("errors", "<script>throw new Error('x')</script>"),
        ("errors", "<link rel='stylesheet' href='missing.css'>"),
        ("foreign requests", "<script src='https://example.org/x.js'></script>"),
        ("formulas", "<span class='math'>\\(x\\)</span>"),
        ("formulas", "<article>so $$x$$</article>"),
        ("images", "<img src='missing.png' alt='A line'>"),
        ("images", "<img src='data:image/gif;base64,R0lGODlhAQABAAAAACw=' alt=' '>"),
        ("links", "<a href='missing.html'>x</a>"),
        ("links", "<a href='#missing'>x</a>"),
        ("outputs", "<div class='cell_output'>UserWarning: x</div>"),
        ("width", "<div style='width: 500px'>x</div>"),
    ],
)
def test_a_fault_is_noticed(kind, body, context, tmp_path):
    """A check that cannot fail proves nothing: one page with one fault each."""
    (tmp_path / "page.html").write_text(f"<!doctype html><meta name=viewport content='width=device-width'><body>{body}", encoding="utf-8")
    [page] = inspect(context, tmp_path).values()
    assert page[kind]
