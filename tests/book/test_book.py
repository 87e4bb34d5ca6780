"""The rendered book as a reader meets it: every page of _build/html, opened in Chromium from the disk."""

import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urldefrag, urljoin, urlparse
from urllib.request import url2pathname

import axe_playwright_python
import pytest
from browser import DESK, PHONE, absent, opened
from playwright.sync_api import BrowserContext, Error, Page

pytestmark = pytest.mark.slow

HTML = Path(__file__).parents[2] / "_build" / "html"
EXPLORER = HTML / "notebooks" / "08_explorer.html"
HEAVY = 8_000_000  # bytes of a page with everything it loads
AXE = Path(axe_playwright_python.__file__).parent / "axe.min.js"  # axe-core comes with this package
OF_THE_THEME = {"aria-deprecated-role", "aria-required-children", "aria-input-field-name"}  # bibliography entries, handles of sliders
HEAVIEST = 10_000_000  # bytes of a page with all that it loads

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
            ...(prose?.textContent.match(/.{0,30}(\$\$|\$[^$\n]{1,80}\$|\\\(|\\\[|\\begin\{|\|-{2,}\|).{0,30}/g) ?? [])
                .map(text => 'raw: ' + text),
        ],
        images: all('img').flatMap(element => [
            ...(element.naturalWidth > 0 ? [] : ['does not load: ' + element.getAttribute('src')]),
            ...(element.alt.trim() && !/\.(png|svg|jpe?g)$/.test(element.alt) ? [] : ['has no alt text: ' + element.getAttribute('src')]),
        ]),
        outputs: all('.cell_output').flatMap(element =>
            element.textContent.match(/.{0,60}(Warning:|WARNING|Traceback \(most recent call last\)).{0,60}/g) ?? []),
    };
}"""
# What the explorer shows: by tile the picture, its words and whether it is seen; the line of scores; the bar that is pressed.
SHOWN = """() => {
    const root = document.querySelector('.prom-explorer');
    const tiles = [...root.querySelectorAll('[data-part]')].map(tile => {
        const image = tile.querySelector('img');
        return [tile.dataset.part, [image.src, image.alt, tile.offsetParent !== null]];
    });
    const pressed = [...root.querySelectorAll('button[aria-pressed=true] span')].map(span => span.textContent);
    return {tiles: Object.fromEntries(tiles), scores: root.querySelector('[role=status]').textContent, pressed};
}"""
# Colours do not depend on the width, and nothing else on the colours. Contrast takes most of the time, and depends on how a text looks and
# on what is painted behind it alone: of the thousands of names in code that look alike, on all pages, one is examined.
ACCESSIBILITY = """async ([contrast, seen]) => {
    const levels = ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa'];
    const known = new Set(seen), grounds = new Map([[null, '']]), examples = new Map();
    const ground = element => {
        if (!grounds.has(element)) {
            const {backgroundColor, backgroundImage, opacity, filter} = getComputedStyle(element), below = ground(element.parentElement);
            const painted = [backgroundColor, backgroundImage, opacity, filter].join();
            grounds.set(element, painted == 'rgba(0, 0, 0, 0),none,1,none' ? below : `${painted};${below}`);
        }
        return grounds.get(element);
    };
    for (const element of contrast ? document.body.querySelectorAll(':not(mjx-container *, script, style)') : []) {
        if (element.getClientRects().length && [...element.childNodes].some(node => node.nodeType == 3 && node.data.trim())) {
            const {color, fontSize, fontWeight, textShadow, position} = getComputedStyle(element);
            const look = [color, fontSize, fontWeight, textShadow, position, ground(element)].join();
            if (!known.has(look)) examples.set(look, examples.get(look) ?? element);
        }
    }
    // What axe visits although nothing is asked about it there: the strokes of formulas, and the names in code, but for their colours.
    const plain = ':is(pre, code, .sig-param):not(:has(:is([id], [href], [role], [tabindex])))';
    const idle = [...document.querySelectorAll(contrast ? 'mjx-container' : `mjx-container, ${plain}:not(${plain} *)`)];
    const held = idle.map(element => [...element.childNodes]);
    idle.forEach(element => element.replaceChildren(...element.matches('mjx-container') ? [] : [element.textContent]));
    const found = contrast && !examples.size ? {violations: []} : await axe.run({
        include: contrast ? [...examples.values()] : [document], exclude: ['mjx-container'],
    }, {
        resultTypes: ['violations'],
        preload: false, // would read style sheets anew, which a browser forbids on the disk
        ...contrast ? {runOnly: ['color-contrast']} : {runOnly: levels, rules: {'color-contrast': {enabled: false}}},
    });
    idle.forEach((element, index) => element.replaceChildren(...held[index]));
    return [found.violations.map(({id, nodes}) => [id, nodes.map(node => node.html.slice(0, 100))]), [...examples.keys()]];
}"""
DIMMED = """() => [...document.querySelectorAll('article img')].filter(image => getComputedStyle(image).filter != 'none')
    .map(image => 'dims ' + image.getAttribute('src'))"""
# Formulas of which a part is out of sight and out of the scroll bar's reach, or that begin to the left of where one starts to read.
CUT = """() => [...document.querySelectorAll('.math')].filter(box => {
    const drawn = box.querySelector('svg')?.getBoundingClientRect(), place = box.getBoundingClientRect();
    const hidden = box.scrollWidth > box.clientWidth + 1 && getComputedStyle(box).overflowX == 'hidden';
    return drawn && drawn.width && (hidden || drawn.left < place.left - 1);
}).map(box => 'cuts off ' + (box.querySelector('mjx-assistive-mml') ?? box).textContent.trim().slice(0, 60))"""
# Code and output of chapters of which a part is out of sight until the reader scrolls sideways.
SCROLLS = """() => [...document.querySelectorAll('article .cell pre')].filter(box => box.scrollWidth > box.clientWidth + 1)
    .map(box => 'is cut off: ' + box.textContent.trim().split('\\n').reduce((a, b) => b.length > a.length ? b : a).slice(0, 100))"""
PIXEL = "data:image/gif;base64,R0lGODlhAQABAAAAACwAAAAAAQABAAACAkQBADs="  # an image that loads
FAULTS = ("accessibility", "dark mode", "errors", "foreign requests", "formulas", "images", "links", "outputs", "width")


@pytest.fixture(scope="module")
def context() -> Iterator[BrowserContext]:
    with opened() as context:
        yield context


def visit(context: BrowserContext, path: Path, looks: set[str]) -> dict[str, list[str]]:
    """Everything wrong with one page by itself, by kind; and its ids and links, for the check across pages.

    ``looks``: those of which an example has been examined, to which this page adds its own, as long as nothing is wrong with them.
    """
    page = context.new_page()
    errors, foreign, loaded, accessibility = [], [], set(), []
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("requestfailed", lambda request: errors.append(f"failed: {request.url}") if request.url.startswith("file:") else None)
    page.on("requestfinished", lambda request: loaded.add(request.url))
    page.on("websocket", lambda socket: foreign.append(socket.url))

    def refuse(route) -> None:
        foreign.append(route.request.url)
        route.abort()

    def examine(state: str, contrast: bool) -> None:
        violations, examined = page.evaluate(ACCESSIBILITY, [contrast, list(looks)])
        looks.update(() if violations else examined)
        for rule, places in violations:
            if rule not in OF_THE_THEME:
                accessibility.append(f"{state}: {rule}: {len(places)} times, {places[0]}")

    page.route(re.compile("^(https?|ftp):"), refuse)
    try:
        page.goto(path.as_uri())
        if 'http-equiv="refresh"' in path.read_text(encoding="utf-8").lower():
            page.wait_for_url(lambda url: url != path.as_uri())
        page.wait_for_function(SETTLED, timeout=20_000)
        found = page.evaluate(INSPECT)
        weight = sum(path.stat().st_size for path in map(path_of, loaded) if path.is_file())
        scrolls = page.evaluate(SCROLLS)
        page.add_script_tag(path=AXE)
        examine("wide, light", contrast=False)
        examine("wide, light", contrast=True)
        page.emulate_media(color_scheme="dark")
        page.wait_for_function("document.documentElement.dataset.theme != 'light'")
        dark = page.evaluate(DIMMED)
        examine("wide, dark", contrast=True)
        page.set_viewport_size(PHONE)
        page.wait_for_timeout(600)  # the theme waits 300 ms before it looks what has to scroll now
        examine("phone", contrast=False)
        cut = page.evaluate(CUT)
        needed, given = page.evaluate("[document.documentElement.scrollWidth, document.documentElement.clientWidth]")
        return {
            **found,
            "url": page.url,
            "weight": weight,
            "accessibility": accessibility,
            "dark mode": dark,
            "errors": [error for error in errors if not any(url in error for url in foreign) and "ERR_FAILED" not in error],
            "foreign requests": foreign,
            "width": [*scrolls, *cut, *([f"{needed} px wide on a screen of {given} px"] if needed > given else [])],
        }
    except Error as error:
        return {kind: [] for kind in (*FAULTS, "ids")} | {"url": page.url, "weight": 0, "errors": [str(error), *errors]}
    finally:
        page.close()


def path_of(url: str) -> Path:
    return Path(url2pathname(unquote(urlparse(url).path)))


def check_links(pages: dict[Path, dict]) -> None:
    """Turn each page's links into those that lead nowhere. Links to other sites are for a link checker, not for a test without network."""
    for page in pages.values():
        broken = set()
        for link in page["links"]:
            target, fragment = urldefrag(urljoin(page["url"], link))
            if urlparse(target).scheme != "file":
                continue
            path = path_of(target)
            if not path.is_file() or (fragment and path in pages and unquote(fragment) not in pages[path]["ids"]):
                broken.add(link)
        page["links"] = sorted(broken)


def inspect(context: BrowserContext, root: Path) -> dict[Path, dict]:
    paths = [path for path in sorted(root.rglob("*.html")) if "_static" not in path.relative_to(root).parts]
    looks: set[str] = set()
    pages = {path: visit(context, path, looks) for path in paths}
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


def test_no_page_is_heavy(pages, capsys):
    weights = {str(path.relative_to(HTML)): page["weight"] for path, page in pages.items()}
    with capsys.disabled():
        print("\nA page with all that it loads, MB:", *(f"{weight / 1e6:6.2f} {name}" for name, weight in weights.items()), sep="\n")
    assert min(weights.values()) > 0 and max(weights.values()) < HEAVIEST


def test_search_works_from_the_disk(context, pages):
    page = context.new_page()
    page.goto((HTML / "search.html").as_uri() + "?q=projection")
    page.wait_for_selector("#search-results li a", timeout=20_000)
    found = page.eval_on_selector_all("#search-results li a", "links => links.map(link => link.href)")
    page.close()
    assert any("02_projection_proof.html" in link for link in found)


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("accessibility", "<a href='page.html'></a>"),
        ("accessibility", "<p style='color: #999'>pale words</p>"),
        ("accessibility", "<style>@media (prefers-color-scheme: dark) { p { color: #ccc } }</style><p>pale words</p>"),
        ("accessibility", "<style>@media (max-width: 400px) { a span { display: none } }</style><a href='page.html'><span>x</span></a>"),
        (
            "dark mode",
            "<style>@media (prefers-color-scheme: dark) { img { filter: blur(1px) } }</style><article><img alt='x'></article>",
        ),
        ("errors", "<script>console.error('x')</script>"),
        ("errors", "<script>throw new Error('x')</script>"),
        ("errors", "<link rel='stylesheet' href='missing.css'>"),
        ("foreign requests", "<script src='https://example.org/x.js'></script>"),
        ("formulas", "<span class='math'>\\(x\\)</span>"),
        ("formulas", "<article>so $$x$$</article>"),
        ("formulas", "<article>so $x$</article>"),
        ("formulas", "<article>| a | b | |---|---| | 1 | 2 |</article>"),
        ("images", "<img src='missing.png' alt='A line'>"),
        ("images", f"<img src='{PIXEL}' alt=' '>"),
        ("links", "<a href='missing.html'>x</a>"),
        ("links", "<a href='#missing'>x</a>"),
        ("outputs", "<div class='cell_output'>UserWarning: x</div>"),
        ("width", "<div style='width: 500px'>x</div>"),
        ("width", "<article><div class='cell'><pre style='overflow: auto; width: 50px'>a line of code</pre></div></article>"),
        ("width", "<div class='math' style='overflow: hidden; width: 50px'><mjx-container><svg width='90'></svg></mjx-container></div>"),
        (
            "width",
            "<div class='math' style='display: flex; flex-direction: row-reverse; overflow: auto; width: 50px'>"
            "<mjx-container><svg width='90'></svg></mjx-container></div>",
        ),
    ],
)
def test_a_fault_is_noticed(kind, body, context, tmp_path):
    """A check that cannot fail proves nothing: one page with one fault each, and the same without it."""
    head = "<!doctype html><html lang=en><title>x</title><meta name=viewport content='width=device-width'><body>"
    (tmp_path / "page.html").write_text(f"{head}<main><h1>x</h1>{body}</main>", encoding="utf-8")
    [page] = inspect(context, tmp_path).values()
    assert page[kind]
    (tmp_path / "page.html").write_text(f"{head}<main><h1>x</h1><img src='{PIXEL}' alt='A dot'></main>", encoding="utf-8")
    [page] = inspect(context, tmp_path).values()
    assert not page[kind]


@pytest.fixture
def explorer(context) -> Iterator[Page]:
    """The explorer's page, opened from the disk; at the end it must have raised no error and asked for nothing but files of the book."""
    if not EXPLORER.is_file():
        absent("the book is not built: run `make book` first")
    page = context.new_page()
    faults, files = [], []
    page.on("console", lambda message: faults.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("request", lambda request: (files if request.url.startswith("file:") else faults).append(request.url))
    page.goto(EXPLORER.as_uri())
    page.wait_for_function(SETTLED, timeout=20_000)
    page.loaded = files
    yield page
    page.close()
    assert [fault for fault in faults if not fault.startswith("data:")] == []


def options(page: Page, name: str) -> list[str]:
    return page.locator(f".prom-explorer select[name={name}] option").all_inner_texts()


def radios(page: Page, name: str) -> list[str]:
    return page.locator(f".prom-explorer input[name={name}]").evaluate_all("inputs => inputs.map(input => input.value)")


def test_the_explorer_follows_every_choice(explorer):
    """Every image, method and acceleration has pictures of its own, and words that name it."""
    select = {name: explorer.locator(f".prom-explorer select[name={name}]") for name in ("picture", "method")}
    seen = {}
    for picture in options(explorer, "picture"):
        select["picture"].select_option(picture)
        for acceleration in radios(explorer, "acceleration"):
            explorer.locator(f".prom-explorer label:has(input[name=acceleration][value='{acceleration}'])").click()
            for method in options(explorer, "method"):
                select["method"].select_option(method)
                shown = explorer.evaluate(SHOWN)
                assert shown["pressed"] == [method]
                for part in ("image", "error"):
                    words = shown["tiles"][part][1]
                    assert picture in words and f"{method} at x{acceleration}" in words and "PSNR" in words and "SSIM" in words
                assert f"{method} at x{acceleration}" in shown["tiles"]["mask"][1]
                quality = re.search(r"PSNR [-.0-9]+ dB, SSIM [-.0-9]+", shown["scores"])[0]
                assert quality in shown["tiles"]["image"][1] and "true acceleration x" in shown["scores"]
                seen[picture, acceleration, method] = tuple(source for source, _, _ in list(shown["tiles"].values())[:5])
    assert len(seen) >= 2 * 4 * 8
    for one, two in itertools.combinations(seen, 2):
        polished = {one[2], two[2]} == {"polished ProM", "ProM for the network"}  # where polishing found nothing, they are one mask
        if not polished or one[1] != two[1]:
            assert seen[one] != seen[two], (one, two)


def test_the_explorer_shows_regions_where_there_are_any(explorer):
    parts = ("truth", "regions", "wrong")
    task = {name: explorer.locator(f".prom-explorer input[name=task][value={name}]") for name in ("image", "segmentation")}
    assert not any(explorer.evaluate(SHOWN)["tiles"][part][2] for part in parts)
    by_image = explorer.locator(".prom-ranking").inner_text()
    task["segmentation"].check()
    shown = explorer.evaluate(SHOWN)
    assert all(shown["tiles"][part][2] for part in parts) and "Dice" in shown["tiles"]["regions"][1] and "Dice" in shown["scores"]
    assert explorer.locator(".prom-ranking").inner_text() != by_image
    explorer.locator(".prom-ranking button", has_text="energy oracle").click()
    for part in ("regions", "wrong"):
        assert explorer.evaluate(SHOWN)["tiles"][part][0] != shown["tiles"][part][0]
    explorer.locator(".prom-explorer select[name=picture]").select_option("Shepp-Logan phantom")  # has no regions
    assert task["segmentation"].is_disabled() and task["image"].is_checked()
    assert not any(explorer.evaluate(SHOWN)["tiles"][part][2] for part in parts)


def test_the_explorer_works_by_keyboard(explorer):
    """From the first list on, with Tab, arrows and Enter alone."""
    explorer.locator(".prom-explorer select[name=picture]").focus()
    keys = explorer.keyboard
    for name, key in {"picture": "ArrowDown", "method": "ArrowDown", "acceleration": "ArrowRight", "task": "ArrowRight"}.items():
        assert explorer.evaluate("document.activeElement.name") == name
        before = explorer.evaluate(SHOWN)
        keys.press(key)
        after = explorer.evaluate(SHOWN)
        assert before["tiles"] != after["tiles"], name
        keys.press("Tab")
    assert explorer.evaluate("document.activeElement.tagName") == "BUTTON"
    for _ in range(3):
        keys.press("Tab")
    keys.press("Enter")
    [pressed] = explorer.evaluate(SHOWN)["pressed"]
    assert pressed == options(explorer, "method")[3]
    assert explorer.locator(".prom-explorer select[name=method]").input_value() == pressed


def test_the_explorer_is_light_and_fits_a_phone(explorer):
    files = {url2pathname(unquote(urlparse(urldefrag(url)[0]).path)) for url in explorer.loaded}
    assert EXPLORER.stat().st_size < sum(Path(file).stat().st_size for file in files) < HEAVY
    explorer.set_viewport_size(PHONE)
    explorer.locator(".prom-explorer input[name=task][value=segmentation]").check()
    explorer.wait_for_timeout(100)
    assert explorer.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    assert explorer.evaluate("(e => e.scrollWidth <= e.clientWidth)(document.querySelector('.prom-explorer'))")


def test_the_explorer_shows_pictures_without_scripts(context):
    if not EXPLORER.is_file():
        absent("the book is not built: run `make book` first")
    plain = context.browser.new_context(viewport=DESK, java_script_enabled=False)
    page = plain.new_page()
    page.goto(EXPLORER.as_uri())
    assert page.locator(".prom-explorer select, .prom-explorer input").count() == 0
    assert [image.is_visible() for image in page.locator(".prom-explorer [data-part] img").all()][:5] == [True] * 5
    plain.close()
