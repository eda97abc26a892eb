"""The page of `crnn-deploy serve` in a real Chromium, as its users meet it."""

from __future__ import annotations

import itertools
import json
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("selenium")
pytest.importorskip("fastapi")
pytest.importorskip("onnxruntime")

from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import Select, WebDriverWait
from served import Served

from crnn_deploy import Recognizer
from crnn_deploy.decoding_rule import DecodingRule
from crnn_deploy.models import DEFAULT, DEFAULT_INT8
from crnn_deploy.runtime.decoding.build import decoder_of
from crnn_deploy.runtime.decoding.ctc import Text

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
CHROMEDRIVER = shutil.which("chromedriver")
EXAMPLES = sorted((Path(__file__).parents[2] / "examples" / "images").glob("*.png"))
WIDE = 1280  # pixels
PHONE = 360

pytestmark = pytest.mark.skipif(
    CHROMIUM is None or CHROMEDRIVER is None, reason="needs Chromium and chromedriver on the PATH"
)
Start = Callable[..., Served]


class Page:
    """The page in a browser, with what a person sees and does there."""

    def __init__(self, driver: webdriver.Chrome) -> None:
        self.driver = driver
        self.origin = ""

    def open(self, url: str, *, width: int = WIDE, scheme: str = "light", motion: str = "") -> None:
        phone = width <= PHONE
        self.cdp(
            "Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=phone
        )
        self.cdp("Emulation.setTouchEmulationEnabled", enabled=phone, maxTouchPoints=5 if phone else 1)
        features = {"prefers-color-scheme": scheme, "prefers-reduced-motion": motion}
        media = [{"name": name, "value": value} for name, value in features.items()]
        self.cdp("Emulation.setEmulatedMedia", features=media)
        self.cdp(
            "Browser.setPermission",
            permission={"name": "clipboard-read"},
            setting="granted",
            origin=url.rstrip("/"),
        )
        for kind in ("browser", "performance"):
            self.log(kind)  # what came before is forgotten
        self.origin = url.rstrip("/")
        self.driver.get(url)
        self.until(lambda: self.find("#model").get_attribute("value") or self.find("#token").is_displayed())

    def cdp(self, command: str, **arguments: Any) -> Any:
        return self.driver.execute_cdp_cmd(command, arguments)

    def run(self, script: str, *arguments: Any) -> Any:
        return self.driver.execute_script(script, *arguments)

    def find(self, selector: str) -> WebElement:
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def all(self, selector: str) -> list[WebElement]:
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def until(self, holds: Callable[[], Any], seconds: float = 30) -> None:
        WebDriverWait(self.driver, seconds, 0.05).until(lambda _: holds())

    def add(self, paths: Sequence[Path]) -> None:
        self.find("#files").send_keys("\n".join(map(str, paths)))

    def read(self, paths: Sequence[Path]) -> None:
        """Add images and wait until there is something to say of all."""
        self.add(paths)
        self.settled()

    def settled(self) -> None:
        unsettled = "return !document.querySelector('[data-state=waiting], [data-state=reading]')"
        self.until(lambda: self.run(unsettled))

    def texts(self, selector: str = ".text") -> list[str]:
        script = "return [...document.querySelectorAll(arguments[0])].map(one => one.textContent)"
        return list(self.run(script, f".card {selector}"))

    def states(self) -> list[str]:
        return list(self.run("return [...document.querySelectorAll('.card')].map(one => one.dataset.state)"))

    def click(self, selector: str) -> None:
        self.run("arguments[0].scrollIntoView({block: 'center'})", self.find(selector))
        self.find(selector).click()

    def choose(self, name: str, value: str) -> None:
        Select(self.find(f"#{name}")).select_by_value(value)
        time.sleep(0.3)  # the page waits for another change before it reads again

    def clipboard(self) -> str:
        script = "const done = arguments[0]; navigator.clipboard.readText().then(done, () => done(null))"
        return str(self.driver.execute_async_script(script))

    def press(self, *keys: str) -> None:
        webdriver.ActionChains(self.driver).send_keys(*keys).perform()

    def focused(self) -> WebElement:
        return self.driver.switch_to.active_element

    def log(self, kind: str) -> list[dict[str, Any]]:
        """What the browser noted since this was last asked."""
        return list(self.driver.get_log(kind))  # type: ignore[no-untyped-call]

    def errors(self) -> list[str]:
        """What the console has to say."""
        return [str(entry["message"]) for entry in self.log("browser")]

    def addresses(self) -> list[str]:
        """Where the browser sent requests since the page was opened, and whence it took what it shows."""
        messages = [json.loads(entry["message"])["message"] for entry in self.log("performance")]
        return [
            message["params"]["request"]["url"]
            for message in messages
            if message["method"] == "Network.requestWillBeSent"
        ]


@pytest.fixture(scope="module")
def driver() -> Iterator[webdriver.Chrome]:
    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for argument in (
        *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"),
        *("--disable-background-networking", "--disable-component-update", "--lang=en-GB"),
    ):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(str(CHROMEDRIVER)))
    yield driver
    driver.quit()


@pytest.fixture
def page(driver: webdriver.Chrome) -> Page:
    return Page(driver)


@pytest.fixture(scope="module")
def expected() -> list[Text]:
    return Recognizer("latin").read(EXAMPLES)


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    path = tmp_path / "broken.png"
    path.write_bytes(b"\x89PNG is how it begins, and no more")
    return path


@dataclass
class Answer:
    """What the scripted server says to one request for texts."""

    status: int
    headers: dict[str, str]
    body: dict[str, Any]


BUSY = Answer(503, {"Retry-After": "0"}, {"detail": "the queue is full"})


def text_answer(*texts: str) -> Answer:
    results: list[dict[str, Any]] = [
        {"name": "a", "text": text, "confidence": 0.5, "status": "ok", "error": None, "chars": []}
        for text in texts
    ]
    return Answer(200, {}, {"model": "m", "digest": "0" * 64, "results": results, "milliseconds": {}})


class Scripted:
    """A server of the page that answers POST as it is told; the last answer stands for all that follow."""

    def __init__(self, answers: Sequence[Answer | None]) -> None:
        """answers: None hangs up"""
        left = list(answers)
        self.posts: list[float] = []  # when each came
        self.digest = "0" * 64  # of the model
        folder = files("crnn_deploy.serving").joinpath("page")
        posts, scripted = self.posts, self

        class Handler(BaseHTTPRequestHandler):
            def answer(self, status: int, body: bytes, kind: str, headers: dict[str, str]) -> None:
                self.send_response(status)
                for name, value in {
                    "Content-Type": kind,
                    "Content-Length": str(len(body)),
                    **headers,
                }.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            def do_GET(self) -> None:
                if self.path == "/v1/models":
                    model = {"name": "m", "digest": scripted.digest, "alphabet_size": 9, "height": 32}
                    models = {"models": [{**model, "decoder": "greedy", "output": "logits"}]}
                    return self.answer(200, json.dumps(models).encode(), "application/json", {})
                name = self.path.removeprefix("/page/").strip("/") or "index.html"
                kinds = {"html": "text/html", "css": "text/css", "js": "text/javascript"}
                self.answer(200, folder.joinpath(name).read_bytes(), kinds[name.rpartition(".")[2]], {})

            def do_POST(self) -> None:
                posts.append(time.monotonic())
                self.rfile.read(int(self.headers["Content-Length"]))
                answer = left.pop(0) if len(left) > 1 else left[0]
                if answer is None:
                    self.close_connection = True
                    return
                body = json.dumps(answer.body).encode()
                self.answer(answer.status, body, "application/json", answer.headers)

            def log_message(self, format: str, *arguments: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def scripted() -> Iterator[Callable[..., Scripted]]:
    started: list[Scripted] = []

    def start(*answers: Answer | None) -> Scripted:
        started.append(Scripted(answers))
        return started[-1]

    yield start
    for server in started:
        server.close()


def percent(value: float) -> str:
    return f"{int(value * 1000) / 10:.1f} %"


def test_images_are_read_as_the_recogniser_reads_them(
    server: Served, page: Page, expected: list[Text]
) -> None:
    page.open(server.url)
    page.read(EXAMPLES)
    assert page.texts() == [text.text for text in expected]
    assert page.texts(".name") == [path.name for path in EXAMPLES]
    figures = page.texts(".figures")
    assert all(
        figure.startswith(percent(text.confidence)) for figure, text in zip(figures, expected, strict=True)
    )
    assert all(re.search(r" · (\d+ images in )?[\d.]+ ms$", figure) for figure in figures)
    assert page.find("#summary").text == "12 of 12 images read"
    assert page.find("#said").get_attribute("textContent") == "12 of 12 images read"  # for a screen reader
    assert page.errors() == []
    assert all(url.startswith((server.url, f"blob:{server.url}", "data:")) for url in page.addresses())


def test_each_character_has_its_confidence_and_its_box(
    server: Served, page: Page, expected: list[Text]
) -> None:
    page.open(server.url)
    page.read(EXAMPLES)
    script = """
    const chars = (card) => [...card.querySelectorAll('.char')];
    const boxes = (card) => [...card.querySelectorAll('.boxes rect')];
    return [...document.querySelectorAll('.card')].map(card => [
      chars(card).map(char => [char.textContent, char.title, char.classList[1]]),
      boxes(card).map(box => ['x', 'width'].map(name => +box.getAttribute(name)))])"""
    page.until(lambda: len(page.all(".boxes rect")) == sum(len(text.chars) for text in expected))
    for (chars, boxes), text in zip(page.run(script), expected, strict=True):
        assert chars == [
            [
                char.char,
                f"{'space' if char.char == ' ' else char.char}: {percent(char.confidence)}",
                next(
                    name
                    for least, name in ((0.95, "sure"), (0.8, "likely"), (0.5, "unsure"), (0, "doubtful"))
                    if char.confidence >= least
                ),
            ]
            for char in text.chars
        ]
        assert boxes == [[char.left, pytest.approx(char.right - char.left)] for char in text.chars]
    shown = "return getComputedStyle(document.querySelector('.boxes rect')).opacity"
    assert page.run(shown) == "1"
    page.click("#show-boxes")
    assert page.run(shown) == "0"
    number = "return getComputedStyle(document.querySelector('.char'), '::after').content"
    assert page.run(number) == "none"
    page.click("#show-numbers")
    assert page.run(number) == f'"{int(expected[0].chars[0].confidence * 100)}"'
    page.run("document.querySelectorAll('.char')[1].dispatchEvent(new Event('pointerover', {bubbles: true}))")
    assert page.texts(".figures")[0] == f"r: {percent(expected[0].chars[1].confidence)}"
    assert len(page.all(".active")) == 2  # the character and its box


def test_a_broken_image_shows_its_error_and_the_others_are_read(
    server: Served, page: Page, broken: Path, expected: list[Text]
) -> None:
    page.open(server.url)
    page.read([EXAMPLES[0], broken, EXAMPLES[1]])
    assert page.states() == ["done", "error", "done"]
    assert page.texts() == [expected[0].text, "", expected[1].text]
    assert page.texts(".note")[1].startswith("broken.png: not an image")
    assert page.find("#summary").text == "2 of 3 images read, 1 with an error"
    page.read([broken])  # alone, which the server answers 422
    assert page.texts(".note")[3].startswith("broken.png: not an image")
    assert not any(button.is_displayed() for button in page.all(".again"))  # it would not help


# a picture of a word, drawn by the browser
DRAWN = """
const canvas = new OffscreenCanvas(300, 60), context = canvas.getContext('2d');
context.fillStyle = 'white'; context.fillRect(0, 0, 300, 60);
context.fillStyle = 'black'; context.font = '40px sans-serif'; context.fillText('INVOICE', 20, 45);
const done = arguments[arguments.length - 1];
"""
# what the browser tells a page of a paste
PASTED = """
canvas.convertToBlob().then(blob => {
  const data = new DataTransfer(); data.items.add(new File([blob], 'image.png', {type: 'image/png'}));
  const event = new ClipboardEvent('paste', {bubbles: true, cancelable: true, clipboardData: data});
  document.body.dispatchEvent(event); done(event.defaultPrevented);
});"""
COPIED = """
canvas.convertToBlob()
  .then(blob => navigator.clipboard.write([new ClipboardItem({'image/png': blob})]))
  .then(() => done(''), error => done(String(error)));"""


def test_what_is_pasted_is_read(server: Served, page: Page) -> None:
    page.open(server.url)
    assert page.driver.execute_async_script(DRAWN + PASTED)  # whether the page took it
    page.until(lambda: page.states())
    page.settled()
    assert page.texts() == ["INVOICE"] and page.texts(".name") == ["pasted-1.png"]


def test_dropped_images_and_those_of_dropped_folders_are_read(
    server: Served, page: Page, expected: list[Text], tmp_path: Path
) -> None:
    folder = tmp_path / "folder"
    (folder / "inner").mkdir(parents=True)
    names = ("2.png", "10.png", "inner/1.png")
    for name, path in zip(names, EXAMPLES[1:4], strict=True):
        shutil.copy(path, folder / name)
    page.open(server.url)
    dropped: dict[str, Any] = {
        "items": [],
        "files": [str(folder), str(EXAMPLES[0])],
        "dragOperationsMask": 1,
    }
    dragging = "return document.body.classList.contains('dragging')"
    for event, lit in (("dragEnter", None), ("dragOver", True), ("drop", False)):
        page.cdp("Input.dispatchDragEvent", type=event, x=300, y=300, data=dropped)
        assert lit is None or page.run(dragging) is lit
    page.until(lambda: page.states())
    page.settled()
    assert page.texts(".name") == ["2.png", "10.png", "1.png", EXAMPLES[0].name]
    assert page.texts() == [expected[at].text for at in (1, 2, 3, 0)]


def test_the_keyboard_alone_does_everything(server: Served, page: Page, expected: list[Text]) -> None:
    page.open(server.url)
    opened = "event.preventDefault(); window.opened = true"
    page.run(f"document.querySelector('#files').addEventListener('click', (event) => {{ {opened} }})")
    page.press(Keys.TAB)
    assert page.focused().text == "Choose images"
    assert page.run("return getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.press(Keys.ENTER)
    assert page.run("return window.opened")
    assert page.driver.execute_async_script(DRAWN + COPIED) == ""
    webdriver.ActionChains(page.driver).key_down(Keys.CONTROL).send_keys("v").key_up(Keys.CONTROL).perform()
    page.until(lambda: page.states() == ["done"])
    assert page.texts() == ["INVOICE"]
    visited = []
    for _ in range(20):
        page.press(Keys.TAB)
        visited.append(page.focused().accessible_name)
        assert page.run("return getComputedStyle(document.activeElement).outlineStyle") == "solid", visited
        if visited[-1].startswith("I: "):
            break
    assert visited[:4] == ["Model", "Decoder", "Alternatives", "Turned images"]
    assert visited[4:9] == ["Boxes", "Numbers", "Copy TSV", "Copy JSON", "Clear"]
    page.press(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
    assert page.texts(".figures")[0].startswith("V: ") and len(page.all("rect.active")) == 1
    page.press(Keys.HOME, Keys.END)
    assert page.texts(".figures")[0].startswith("E: ")
    page.press(Keys.TAB)
    assert page.focused().accessible_name == "Copy the text: pasted-1.png"
    page.press(Keys.ENTER)
    page.until(lambda: page.find("#toast").text == "Copied the text.")
    assert page.clipboard() == "INVOICE"
    page.press(Keys.TAB, Keys.ENTER)
    assert page.states() == [] and page.focused().text == "Choose images"


def test_every_control_has_a_name(server: Served, page: Page) -> None:
    page.open(server.url)
    page.read(EXAMPLES[:2])
    controls = [one for one in page.all("button, select, input, summary, [role]") if one.is_displayed()]
    assert len(controls) > 15 and all(one.accessible_name or one.aria_role == "status" for one in controls)


def overflow(page: Page) -> int:
    """Pixels by which the page, or what lies in it, is wider than the window."""
    script = """
    const shown = [...document.querySelectorAll('body *')]
      .filter(one => one.checkVisibility() && !one.closest('.unseen, svg'));
    const right = shown.map(one => Math.ceil(one.getBoundingClientRect().right));
    return Math.max(document.documentElement.scrollWidth, ...right) - innerWidth;"""
    return int(page.run(script))


def test_it_fits_a_telephone(server: Served, page: Page, broken: Path, tmp_path: Path) -> None:
    long_name = tmp_path / f"{'x' * 200}.png"
    long_name.write_bytes(EXAMPLES[11].read_bytes())
    page.open(server.url, width=PHONE)
    assert overflow(page) <= 0
    assert page.find("#photograph").is_displayed()
    assert page.find("#camera").get_attribute("capture") == "environment"
    page.read([*EXAMPLES, broken, long_name])
    page.choose("nbest", "3")
    page.settled()
    for details in page.all("summary"):
        page.run("arguments[0].click()", details)
    assert overflow(page) <= 0
    page.click("#show-numbers")
    assert overflow(page) <= 0


def test_a_pointer_needs_no_camera_button(server: Served, page: Page) -> None:
    page.open(server.url)
    assert not page.find("#photograph").is_displayed()


# the colour of each thing, and of what lies behind it, as the browser draws them
COLOURS = """
const context = new OffscreenCanvas(1, 1).getContext('2d', {willReadFrequently: true});
const over = (colour, ground) => {
  context.fillStyle = `rgb(${ground})`; context.fillRect(0, 0, 1, 1);
  context.fillStyle = colour; context.fillRect(0, 0, 1, 1);
  return [...context.getImageData(0, 0, 1, 1).data].slice(0, 3);
};
const ground = (one) =>
  one ? over(getComputedStyle(one).backgroundColor, ground(one.parentElement)) : [255, 255, 255];
const says = (one) => [...one.childNodes].some(node => node.nodeType === 3 && node.data.trim());
const texts = [...document.querySelectorAll('body *')]
  .filter(one => one.checkVisibility() && !one.closest('svg, .unseen') && says(one));
const bars = [...document.querySelectorAll('.char, .swatch')];
const named = (one) => `${one.tagName} ${one.className} ${one.id} ${one.textContent.slice(0, 20)}`;
const facts = (colour) => (one) =>
  [named(one), over(getComputedStyle(one)[colour], ground(one)), ground(one)];
return [texts.map(facts('color')), bars.map(facts('borderBottomColor'))];
"""


def linear(colour: Sequence[int]) -> list[float]:
    """sRGB as parts of light."""
    return [
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4
        for part in (value / 255 for value in colour)
    ]


def luminance(colour: Sequence[int]) -> float:
    """Relative luminance of sRGB (WCAG 2.2)."""
    red, green, blue = linear(colour)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: Sequence[int], other: Sequence[int]) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_light_and_dark_can_be_read(server: Served, page: Page, broken: Path) -> None:
    """Texts have the contrast that WCAG asks for at level AA, and bars that of graphics."""
    grounds = []
    for scheme in ("light", "dark"):
        page.open(server.url, scheme=scheme)
        page.read([*EXAMPLES, broken])
        page.choose("nbest", "3")
        page.settled()
        page.run("document.querySelectorAll('details').forEach(one => { one.open = true; })")
        time.sleep(0.3)  # colours change over a moment
        texts, bars = page.run(COLOURS)
        assert len(texts) > 100 and len(bars) > 100
        assert [one for one in texts if contrast(one[1], one[2]) < 4.5] == []
        assert [one for one in bars if contrast(one[1], one[2]) < 3] == []
        grounds.append(luminance(texts[0][2]))
    assert grounds[0] > 0.8 and grounds[1] < 0.02


# linear sRGB as a dichromat sees it (Machado, Oliveira and Fernandes, 2009, severity 1.0)
SIGHTS = {
    "all cones": [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
    "protanopia": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deuteranopia": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "tritanopia": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
}


def seen(colour: Sequence[int], sight: str) -> NDArray[Any]:
    """A colour in CIELAB, as a kind of eyes sees it."""
    light = np.array(linear(colour)) @ np.array(SIGHTS[sight]).T
    pixel = np.clip(light, 0, 1).astype(np.float32).reshape(1, 1, 3)
    return np.asarray(cv2.cvtColor(pixel, cv2.COLOR_LRGB2LAB)[0, 0])


def test_colours_of_confidence_differ_for_colour_blind_eyes(
    page: Page, scripted: Callable[..., Scripted]
) -> None:
    server = scripted(BUSY)
    for scheme in ("light", "dark"):
        page.open(server.url, scheme=scheme)
        page.run("document.querySelector('#results').hidden = false")
        _, bars = page.run(COLOURS)
        colours = [colour for _, colour, _ in bars]
        assert len(colours) == 4
        for sight in SIGHTS:
            for one, other in itertools.combinations([seen(colour, sight) for colour in colours], 2):
                assert np.linalg.norm(one - other) > 20, (scheme, sight)  # 2 can just be told apart


def test_nothing_moves_for_those_who_ask_for_that(page: Page, scripted: Callable[..., Scripted]) -> None:
    server = scripted(Answer(503, {"Retry-After": "30"}, {}))
    for motion, animation in (("no-preference", "breathe"), ("reduce", "none")):
        page.open(server.url, motion=motion)
        page.add(EXAMPLES[:1])
        page.until(lambda: "busy" in page.texts(".note")[0])
        style = "return getComputedStyle(document.querySelector('.note'), '::before').animationName"
        assert page.run(style) == animation


# time passes ten times as fast for the page's script
HASTE = """
const now = performance.now.bind(performance), later = window.setTimeout.bind(window);
performance.now = () => 10 * now();
window.setTimeout = (act, wait) => later(act, wait / 10);
"""


def test_overload_is_shown_and_tried_again(page: Page, scripted: Callable[..., Scripted]) -> None:
    server = scripted(Answer(503, {"Retry-After": "1"}, {}), text_answer("one"))
    page.open(server.url)
    page.add(EXAMPLES[:1])
    page.until(lambda: page.texts(".note") == ["The server is busy; tries again in 1 s (1 of 4)"])
    assert page.find(".again").is_displayed()  # for those who do not want to wait
    page.settled()
    assert page.texts() == ["one"] and not page.find(".again").is_displayed()
    assert server.posts[1] - server.posts[0] >= 0.9


def test_a_server_that_hangs_up_is_tried_again(page: Page, scripted: Callable[..., Scripted]) -> None:
    server = scripted(None, text_answer("one"))
    page.open(server.url)
    page.read(EXAMPLES[:1])
    assert page.texts() == ["one"]


def test_lasting_overload_is_given_up_until_a_person_asks(
    page: Page, scripted: Callable[..., Scripted]
) -> None:
    server = scripted(*[BUSY] * 5, text_answer("one"))
    page.open(server.url)
    page.run(HASTE)
    page.read(EXAMPLES[:1])
    assert page.texts(".note") == ["The server is busy, 5 times in a row"] and len(server.posts) == 5
    assert page.find("#summary").text == "0 of 1 image read, 1 with an error"
    page.click("#all-again")
    page.settled()
    assert page.texts() == ["one"] and page.texts(".note") == [""]


def test_a_small_queue_gets_small_requests(serving: Start, page: Page, expected: list[Text]) -> None:
    served = serving("--workers", "1", "--queue", "2")
    page.open(served.url)
    page.read(EXAMPLES)
    assert page.texts() == [text.text for text in expected]


def test_names_and_texts_never_become_html(
    page: Page, scripted: Callable[..., Scripted], tmp_path: Path
) -> None:
    hostile = "<img src=x onerror=window.hit=1>"
    path = tmp_path / f"{hostile}.png"
    path.write_bytes(EXAMPLES[0].read_bytes())
    answer = text_answer(hostile)
    answer.body["results"][0]["alternatives"] = [{"text": hostile, "score": -1.0}]
    server = scripted(answer, Answer(400, {}, {"detail": hostile}))
    page.open(server.url)
    page.read([path])
    page.read([path])
    assert page.texts() == [hostile, ""] and page.texts(".note") == ["", hostile]
    assert page.texts(".name") == [path.name] * 2 and page.texts("bdi") == [hostile]
    assert page.run("return [window.hit, document.querySelectorAll('img[src=x]').length]") == [None, 0]


def test_results_are_copied_as_tsv_and_json(
    server: Served, page: Page, broken: Path, expected: list[Text], tmp_path: Path
) -> None:
    odd = tmp_path / "a\tb\\c.png"
    odd.write_bytes(EXAMPLES[1].read_bytes())
    shutil.copy(EXAMPLES[0], tmp_path)
    images = [tmp_path / EXAMPLES[0].name, odd, broken]
    page.open(server.url)
    page.read(images)
    page.click("#copy-tsv")
    page.until(lambda: page.find("#toast").text == "Copied 3 rows.")
    infer = [sys.executable, "-m", "crnn_deploy", "infer", "--format", "tsv"]
    names = [path.name for path in images]
    written = subprocess.run([*infer, *names], cwd=tmp_path, capture_output=True).stdout.decode()
    assert len(written.splitlines()) == 4
    assert page.clipboard() == written
    page.click("#copy-json")
    page.until(lambda: page.find("#toast").text == "Copied 3 results.")
    results = json.loads(page.clipboard())
    assert [one["name"] for one in results] == [EXAMPLES[0].name, odd.name, "broken.png"]
    assert [one["text"] for one in results] == [expected[0].text, expected[1].text, ""]
    assert results[0]["confidence"] == expected[0].confidence  # every bit
    assert results[0]["chars"] == [vars(char) for char in expected[0].chars]
    assert results[0]["model"] == "latin" and re.fullmatch("[0-9a-f]{64}", results[0]["digest"])
    # where a browser keeps its clipboard from a page, as over http from another machine
    page.run("Object.defineProperty(navigator, 'clipboard', {value: undefined, configurable: true})")
    page.click(".card .copy")
    page.until(lambda: page.find("#toast").text == "Copied the text.")
    page.run("delete navigator.clipboard")
    assert page.clipboard() == expected[0].text
    page.click("#clear")
    assert page.states() == [] and not page.find("#results").is_displayed()


def test_options_read_all_images_anew(server: Served, page: Page, expected: list[Text]) -> None:
    rule = DecodingRule(decoder="beam", nbest=3)
    beam = Recognizer("latin", decoder=decoder_of(rule)).read(EXAMPLES)
    page.open(server.url)
    page.read(EXAMPLES)
    page.choose("nbest", "3")  # which only a beam search can give
    assert page.find("#decoder").get_attribute("value") == "beam"
    page.settled()
    assert page.texts() == [text.text for text in beam]
    found = [alternative.text for text in beam for alternative in text.alternatives]
    assert page.texts(".alternatives bdi") == found
    page.choose("decoder", "greedy")
    assert page.find("#nbest").get_attribute("value") == ""
    page.settled()
    assert page.texts(".alternatives bdi") == [] and page.texts() == [text.text for text in expected]
    page.choose("rotate", "180")
    page.settled()
    turned = Recognizer("latin", rotate="180").read(EXAMPLES)
    assert page.texts() == [text.text for text in turned]
    assert "rotate=180" in page.find("#curl").text


def test_a_model_is_chosen(serving: Start, page: Page, expected: list[Text]) -> None:
    served = serving("--workers", "1", "--model", DEFAULT, "--model", DEFAULT_INT8)
    int8 = Recognizer(DEFAULT_INT8).read(EXAMPLES)
    page.open(served.url)
    page.read(EXAMPLES)
    for model, texts in (("latin.int8", int8), ("latin", expected)):
        page.choose("model", model)
        page.settled()
        shown = [figure.partition(" \u00b7 ")[0] for figure in page.texts(".figures")]
        assert shown == [percent(text.confidence) for text in texts]
    assert [text.confidence for text in int8] != [text.confidence for text in expected]


def test_a_model_that_is_swapped_is_shown(page: Page, scripted: Callable[..., Scripted]) -> None:
    answer = text_answer("one")
    server = scripted(answer)
    page.open(server.url)
    assert page.find("#server").text == "m: 9 characters, file 00000000"
    server.digest = answer.body["digest"] = "1" * 64
    page.read(EXAMPLES[:1])
    page.until(lambda: page.find("#server").text == "m: 9 characters, file 11111111")


def test_a_token_is_asked_for_and_kept_for_the_session_alone(
    serving: Start, page: Page, tmp_path: Path, expected: list[Text]
) -> None:
    tokens = tmp_path / "tokens"
    tokens.write_text("a-token-of-more-than-sixteen-signs\n")
    tokens.chmod(0o600)
    served = serving("--workers", "1", "--token-file", tokens)
    page.open(served.url)
    page.add(EXAMPLES[:2])  # they wait
    assert page.find("#token-form").is_displayed() and page.focused() == page.find("#token")
    page.press("another-token-of-sixteen-signs", Keys.ENTER)
    page.until(lambda: "does not take this token" in page.find("#token-help").text)
    assert page.find("#token-form").is_displayed() and page.states() == ["waiting", "waiting"]
    page.press("a-token-of-more-than-sixteen-signs", Keys.ENTER)
    page.until(lambda: page.states() == ["done", "done"])
    assert page.texts() == [text.text for text in expected[:2]]
    assert not page.find("#token-form").is_displayed()
    kept = page.run("return [Object.values(sessionStorage), Object.values(localStorage), document.cookie]")
    assert kept == [["a-token-of-more-than-sixteen-signs"], [], ""]
    page.driver.refresh()
    page.until(lambda: page.find("#model").get_attribute("value") == "latin")
