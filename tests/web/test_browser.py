"""The demo and the report in a real browser: Chromium without a window, driven as a reader would use them."""

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from headless import headless
from PIL import Image
from small_runs import make_run, save_checkpoint

import captioning
from captioning.config import ReportConfig, check, compose
from captioning.report import report
from captioning.visualise import cell_overlay, overlay
from captioning.visualise.geometry import seen
from captioning.visualise.maps import light
from captioning.web import palette

pytestmark = pytest.mark.slow
SECONDS = 60


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with headless(tmp_path_factory.mktemp("profile")) as driver:
        yield driver


@pytest.fixture(scope="module")
def paths(tmp_path_factory) -> list[Path]:
    folder = tmp_path_factory.mktemp("demo")
    settings = {kind: [f"model/attention={kind}"] for kind in ("soft", "hard")}
    settings["transformer"] = ["model=transformer", "model.layers=2", "model.heads=2"]
    for kind, given in settings.items():
        save_checkpoint(folder / kind / "checkpoints" / "best.ckpt", *given)
    return [folder / kind / "checkpoints" / "best.ckpt" for kind in settings]


@pytest.fixture(scope="module")
def address(paths):
    """Of a demo of three untrained checkpoints, soft, hard and a transformer, that runs as a user starts it."""
    checkpoints = ",".join(map(str, paths))
    command = [sys.executable, "-m", "captioning.demo", f"checkpoint=[{checkpoints}]", "port=0", "device=cpu",
               "limits.upload_megabytes=0.1"]  # fmt: skip
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2])
    try:
        line = process.stdout.readline()
        assert line.startswith("captioning: http://127.0.0.1:"), line
        yield line.split()[1]
    finally:
        process.terminate()
        assert process.wait(30) == 0


def until(browser, script: str):
    """What a script gives, as soon as that is something."""
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        if found := browser.execute_script(f"return {script}"):
            return found
        time.sleep(0.05)
    raise AssertionError(
        f"{script} never held; the page says: {browser.execute_script('return document.body.innerText')}"
    )


@pytest.fixture
def page(browser, address):
    """The demo, with the captions of its first example."""
    browser.get(address)
    until(browser, "document.querySelectorAll('.word').length")
    until(browser, "document.getElementById('message').textContent === ''")
    return browser


def pixels(browser, card: int) -> np.ndarray:
    """What a card's canvas shows: [h, w, 4] uint8."""
    width, height, values = browser.execute_script(
        "const c = document.querySelectorAll('figure > canvas')[arguments[0]];"
        "return [c.width, c.height, [...c.getContext('2d').getImageData(0, 0, c.width, c.height).data]]",
        card,
    )
    return np.array(values, np.uint8).reshape(height, width, 4)


def send(browser, path: Path) -> None:
    browser.find_element("id", "file").send_keys(str(path))


def test_each_word_shows_its_map_as_the_figures_draw_it(page):
    """Each pixel that is shown is held against the figures' own code."""
    from selenium.webdriver import ActionChains

    plain = [pixels(page, card) for card in (0, 1)]
    words = page.find_elements("css selector", ".model:first-child .word")
    page.execute_script("document.activeElement.blur()")
    move = ActionChains(page)
    move.move_to_element(words[1]).perform()
    until(page, "document.querySelector('.word.shown') !== null")
    shown = pixels(page, 0)
    made = page.execute_script("const l = state.cards[0].lines[0]; return [l.made.weights, l.card.box, l.card.size]")
    weights, box, size = np.array(made[0]), made[1], made[2]
    side = round(weights.shape[1] ** 0.5)
    strength = overlay(weights[1], (side, side), box=box, size=tuple(size)) / weights.max()
    picture = Image.fromarray(plain[0][..., :3])
    expected = light(picture, strength, seen(box, tuple(size)))
    difference = np.abs(shown[..., :3].astype(int) - expected)
    assert np.percentile(difference, 99) <= 4 and difference.mean() < 1.5  # colours come in 256 steps, greys in levels
    assert np.abs(plain[0].astype(int) - shown).mean() > 20
    note = page.find_element("css selector", ".model:first-child figcaption").text
    assert f"“{words[1].text}”" in note and "11 %" in note
    move.move_to_element(page.find_element("tag name", "h1")).perform()
    until(page, "document.querySelector('.word.shown') === null")
    np.testing.assert_array_equal(pixels(page, 0), plain[0])


@pytest.mark.parametrize("smooth", [True, False])
@pytest.mark.parametrize(
    ("grid", "box", "size"),
    [
        ((7, 7), (0, 0, 61, 40), (61, 40)),
        ((3, 5), (-12.3, 4.6, 70.2, 33.1), (50, 40)),
        ((1, 1), (3, 3, 9.5, 9), (20, 10)),
        ((2, 1), (-50, -50, 90, 90), (33, 17)),
        ((4, 4), (100, 0, 140, 40), (40, 40)),
    ],
)
def test_the_page_and_the_figures_have_one_geometry(page, grid, box, size, smooth):
    weights = np.random.default_rng(0).random(grid[0] * grid[1])
    script = "return [...attentionOver(arguments[0], arguments[1], arguments[2], arguments[3], arguments[4])]"
    drawn = page.execute_script(script, weights.tolist(), list(grid), list(box), list(size), smooth)
    expected = (overlay if smooth else cell_overlay)(weights, grid, box=box, size=size)
    np.testing.assert_allclose(np.reshape(drawn, size[::-1]), expected, atol=2e-3)


def test_words_are_stepped_through_by_keyboard_and_kept_by_a_click(page):
    from selenium.webdriver.common.keys import Keys

    words = page.find_elements("css selector", ".model:first-child .line:first-of-type .word")
    words[0].click()
    until(page, "document.querySelector('.word[aria-pressed=true]') !== null")
    words[0].send_keys(Keys.ARROW_RIGHT)
    active = page.switch_to.active_element
    assert active == words[1] and "shown" in active.get_attribute("class")
    active.send_keys(Keys.HOME, Keys.ESCAPE)
    assert page.switch_to.active_element == words[0]
    assert not page.find_elements("css selector", ".word[aria-pressed=true]")


def test_hard_attention_is_marked_at_its_place(page):
    """The white frame lies around the cell that was looked at."""
    word = page.find_elements("css selector", ".model:nth-child(2) .word")[0]
    word.click()
    place, box = page.execute_script("const l = state.cards[1].lines[0]; return [l.made.places[0], l.card.box]")
    shown = pixels(page, 1)[..., :3]
    rows, columns = np.where((shown > 250).all(-1))
    assert len(rows), "no frame"
    row, column = divmod(place, 3)
    across, down = (box[2] - box[0]) / 3, (box[3] - box[1]) / 3
    edges = [box[0] + column * across, box[1] + row * down, box[0] + (column + 1) * across, box[1] + (row + 1) * down]
    found = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    inside = np.clip(edges, 0, [shown.shape[1], shown.shape[0]] * 2)
    np.testing.assert_allclose(found, inside, atol=3)


def test_the_field_for_maps_shows_the_map_that_was_chosen(page, paths, tmp_path):
    from selenium.webdriver.support.ui import Select

    Image.fromarray(np.random.default_rng(1).integers(0, 256, (60, 90, 3), np.uint8)).save(tmp_path / "photo.png")
    send(page, tmp_path / "photo.png")
    until(page, "state.source.file && document.getElementById('message').textContent === ''")
    fields = page.find_elements("css selector", ".maps select")
    options = [[option.text for option in Select(field).options] for field in fields]
    assert options[:2] == [["attention", "gradient attention", "gradient input"], ["attention", "gradient input"]]
    assert {"rollout", "gradient attention", "layer2", "layer1 head2"} <= set(options[2]) and len(options) == 3
    number = page.execute_script("return state.cards[2].lines.findIndex((line) => line.made.words.length > 1)")
    word = f"state.cards[2].lines[{number}].words[1]"
    page.execute_script(f"{word}.click()")
    before = pixels(page, 2)
    Select(fields[2]).select_by_visible_text("layer1 head2")
    until(page, "state.cards[2].map === 'layer1_head2' && document.getElementById('message').textContent === ''")
    weights, words, note = page.execute_script(
        f"const card = state.cards[2], line = card.lines[{number}];"
        "return [line.maps.layer1_head2, line.made.words, card.note.textContent]"
    )
    predictor = captioning.load(paths[2], device="cpu")
    expected = predictor.forced_captions(tmp_path / "photo.png", " ".join(words), map="layer1_head2")[0].attention
    np.testing.assert_allclose(weights, expected, atol=1e-4)
    assert f"“{words[1]}”" in note and "of the map “layer1 head2”" in note
    assert np.abs(pixels(page, 2).astype(int) - before).max() > 10
    Select(fields[2]).select_by_visible_text("attention")
    until(page, "state.cards[2].map === 'attention'")
    np.testing.assert_array_equal(pixels(page, 2), before)


def test_a_picture_of_ones_own(page, tmp_path):
    Image.new("RGB", (120, 40), (200, 30, 30)).save(tmp_path / "wide.png")
    send(page, tmp_path / "wide.png")
    until(page, "state.cards[0].size[0] > 2 * state.cards[0].size[1]")
    assert pixels(page, 0).shape[:2] == (149, 448)


def test_what_is_wrong_is_said_on_the_page(page, tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (400, 400, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "<b>large.png")
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n and nothing more")
    (tmp_path / "letter.txt").write_text("words")
    faults = {
        "<b>large.png": "“<b>large.png” has 0.5 MB",
        "broken.png": "The file is damaged",
    }
    for name, words in (faults | {"letter.txt": "“letter.txt” is not an image"}).items():
        send(page, tmp_path / name)
        until(page, f"document.getElementById('message').textContent.includes({json.dumps(words)})")
        assert page.find_element("id", "message").get_attribute("class") == "error"
    assert page.find_elements("css selector", ".word"), "what was there is gone"


def test_settings_are_sent(page):
    field = page.find_element("id", "samples")
    field.clear()
    field.send_keys("5")
    page.find_element("id", "again").click()
    until(page, "state.cards[0].lines.filter((line) => line.search === 'sample').length === 5")
    field.clear()
    field.send_keys("99")
    page.find_element("id", "again").click()
    until(page, "document.getElementById('message').textContent === 'Samples must be a number from 1 to 10.'")


@pytest.mark.parametrize("width", [400, 1280])
def test_nothing_is_wider_than_the_window(page, width):
    page.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500},
    )
    assert page.execute_script("return document.documentElement.scrollWidth") <= width
    page.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_the_page_asks_this_machine_alone(browser, address):
    browser.get_log("performance")
    browser.get_log("browser")
    browser.get(address)
    until(browser, "document.querySelectorAll('.word').length")
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]
    assert len(asked) > 4 and all(url.startswith((address, "data:")) for url in asked), asked
    assert browser.get_log("browser") == []
    fetched = browser.execute_async_script(
        "fetch('http://127.0.0.2:9/').then(() => arguments[0]('sent'), (error) => arguments[0]('refused'))"
    )
    assert fetched == "refused"
    assert any("Content Security Policy" in entry["message"] for entry in browser.get_log("browser"))


def test_the_report_opens_from_disk_and_asks_nobody(browser, tmp_path):
    run = make_run(tmp_path)
    report(check(compose("report", [f"run_dir={run}", "metrics.bootstrap=20", "decoding=greedy"]), ReportConfig))
    browser.get_log("performance")
    browser.get_log("browser")
    page = (run / "report.html").as_uri()
    browser.get(page)
    for width in (400, 1280):
        browser.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False},
        )
        assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    broken = "return [...document.images].filter((image) => !image.naturalWidth).length"
    assert browser.execute_script(broken) == 0 and browser.execute_script("return document.images.length") > 3
    assert browser.execute_script("return document.querySelectorAll('.chart polyline').length") >= 5
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]
    assert all(url == page or url.startswith("data:") for url in asked), asked
    assert browser.get_log("browser") == []


def test_colours_are_those_of_the_figures(page):
    assert page.execute_script("return state.about.palette") == palette().tolist()
