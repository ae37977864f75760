"""The page in a browser, with the shipped model. Needs playwright's Python package and a chromium:

pip install playwright; apt-get install chromium
SHOTS=DIR python -m pytest -m slow tests/page/test_browser.py    # leaves screenshots in DIR
"""

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from commands import environment
from PIL import Image

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parent.parent.parent
PATIENCE = 300_000  # ms: each first request compiles


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    pytest.importorskip("gradio")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    folder = tmp_path_factory.mktemp("app")
    command = [sys.executable, "-m", "janus_jax.app", "--port", str(port)]
    env = environment(folder) | {"PYTHONPATH": str(ROOT)}
    cached = {name: value for name, value in os.environ.items() if name == "JAX_COMPILATION_CACHE_DIR"}
    with open(folder / "log", "w") as log:
        server = subprocess.Popen(command, cwd=folder, env=env | cached, stdout=log, stderr=subprocess.STDOUT)
    address = f"http://127.0.0.1:{port}/"
    for _ in range(240):
        try:
            urllib.request.urlopen(address).close()
            break
        except OSError:
            assert server.poll() is None, (folder / "log").read_text()
            time.sleep(0.5)
    yield address
    server.terminate()
    server.wait(30)
    assert "Traceback" not in (folder / "log").read_text()


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if not chromium:
        pytest.skip("there is no chromium")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def page(browser, address):
    """The page, which may ask nothing of another host, and say no error to the console."""
    page = browser.new_page(viewport={"width": 1200, "height": 900})
    asked, said = [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: said.append(message.text) if message.type == "error" else None)
    page.goto(address)
    page.get_by_role("tab", name="Draw").wait_for()
    yield page
    page.close()
    assert not [url for url in asked if not url.startswith((address, "data:", "blob:"))]
    assert not said


# What the rows say, each time that the page changes.
WATCH = """() => {
    window.seen = [];
    const look = () => window.seen.push(document.querySelector(".rows")?.innerText ?? "");
    new MutationObserver(look).observe(document.body, {subtree: true, childList: true, characterData: true});
}"""


def shot(page, name):
    if folder := os.environ.get("SHOTS"):
        page.screenshot(path=f"{folder}/{name}.png", full_page=True)


def opened(page, tab):
    """The tab's part of the page."""
    page.get_by_role("tab", name=tab).click()
    return page.get_by_role("tabpanel").filter(has=page.get_by_role("button", name=tab, exact=True))


def done(part):
    part.get_by_text("Done").wait_for(timeout=PATIENCE)
    return part.locator(".rows")


@pytest.fixture(scope="module")
def circle(tmp_path_factory):
    """Two red circles and what is no picture."""
    from janus_jax.shapes import render, scene

    items = [scene.Item("circle", "red", x, 0.5, 0.3) for x in (0.25, 0.75)]
    path = tmp_path_factory.mktemp("pictures") / "circles.png"
    Image.fromarray(render.render(scene.Scene(tuple(items)), 96)).save(path)
    (path.parent / "text.png").write_text("no picture")
    return path


def test_drawing(page):
    part = opened(page, "Draw")
    part.get_by_role("button", name="three blue squares").click()
    part.get_by_text("How to draw").click()
    part.get_by_label("number input for Samples").fill("3")
    part.get_by_text("How to draw").click()
    page.evaluate(WATCH)
    part.get_by_role("button", name="Draw", exact=True).click()
    rows = done(part)
    seen = page.evaluate("window.seen")
    assert any("drawing: 12 of 36 codes" in text for text in seen) and any("looking at it" in text for text in seen)
    words = {text.count(" ") for text in seen if "P(yes)" in text and "codes" not in text}
    assert len(words) > 4  # one by one
    assert rows.locator("h3").all_inner_texts() == ["Sample 0", "Sample 1", "Sample 2"]
    assert rows.locator("li.chosen").count() == 3
    assert "janus_jax.generate --checkpoint shapes-rl --prompt 'three blue squares' --samples 3" in rows.inner_text()
    shot(page, "drawn")


def test_editing(page, circle):
    part = opened(page, "Edit")
    assert "Pictures of that world." in part.inner_text()
    part.locator("input[type=file]").first.set_input_files(str(circle))
    part.get_by_label("Instruction").fill("make the circles blue")
    part.get_by_role("button", name="Edit", exact=True).click()
    rows = done(part)
    assert rows.locator("img").count() == 2 and "Source" in rows.inner_text()
    shot(page, "edited")


def test_judging_and_asking(page, circle):
    part = opened(page, "Judge")
    part.locator("input[type=file]").first.set_input_files(str(circle))
    part.get_by_label("Prompt").fill("two red circles")
    part.get_by_role("button", name="Judge", exact=True).click()
    assert "P(yes)" in done(part).inner_text()
    shot(page, "judged")
    part = opened(page, "Ask")
    part.locator("input[type=file]").first.set_input_files(str(circle))
    part.get_by_label("Question").fill("How many circles are there?")
    part.get_by_role("button", name="Ask", exact=True).click()
    assert done(part).inner_text().strip()
    shot(page, "answered")


def test_errors(page, circle):
    part = opened(page, "Judge")
    part.get_by_role("button", name="Judge", exact=True).click()
    part.locator(".status").get_by_text("there is no picture: choose a file").wait_for()
    shot(page, "error")
    part.locator("input[type=file]").first.set_input_files(str(circle.with_name("text.png")))
    part.get_by_label("Prompt").fill("two red circles")
    part.get_by_role("button", name="Judge", exact=True).click()
    part.locator(".status").get_by_text("cannot be read").wait_for()


def test_a_phone(page):
    page.set_viewport_size({"width": 390, "height": 844})
    for tab in ("Edit", "Ask", "Judge", "Draw"):
        opened(page, tab)
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
    part = opened(page, "Draw")
    part.get_by_label("Prompt").fill("a cross above a square")
    part.get_by_label("Prompt").press("Enter")
    done(part)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    shot(page, "phone")


def test_stopping(page):
    part = opened(page, "Draw")
    part.get_by_label("Prompt").fill("two red circles")
    part.get_by_role("button", name="Draw", exact=True).click()
    part.locator(".rows img").first.wait_for(timeout=PATIENCE)
    part.get_by_role("button", name="Stop").click()
    part.get_by_text("Stopped.").wait_for()
