"""The page of a report in a real browser, opened from disk: what people do with it, and what they then see."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bitplan.planner.page.html import write_report
from tests.browser import MISSING, browser, chromium, until
from tests.planner.support import views

pytestmark = pytest.mark.skipif(chromium() is None, reason=MISSING)
SHOWN = "performance.getEntriesByName('shown').length > 0"
SIZE = {"width": 1280, "height": 800}


class Seen:
    """The open page, what it asked for, and what it complained of."""

    def __init__(self, page: Any, file: Path) -> None:
        self.page, self.requests, self.complaints = page, list[str](), list[str]()
        page.on("request", lambda request: self.requests.append(request.url))
        page.on("console", lambda message: self.complaints.append(message.text))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.goto(file.as_uri())
        until(page, SHOWN)

    def text(self, selector: str) -> str:
        """What is to be read there, SVG or not."""
        return str(self.page.eval_on_selector(selector, "one => one.innerText ?? one.textContent"))

    def schemes(self) -> list[str]:
        found: list[str] = self.page.eval_on_selector_all("#map .cell", "all => all.map(one => one.dataset.scheme)")
        return found

    def pictures(self) -> list[str]:
        found: list[str] = self.page.eval_on_selector_all("#pictures img", "all => all.map(one => one.src)")
        return found

    def pixels(self, selector: str) -> np.ndarray:
        shot = self.page.locator(selector).first.screenshot()
        return np.asarray(Image.open(io.BytesIO(shot)).convert("RGB"), int)


@pytest.fixture(scope="module")
def opened() -> Iterator[Any]:
    with browser() as one:
        yield one


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs; the first has seven points, of which one has no plan."""
    folder = tmp_path_factory.mktemp("report")
    runs = [views.run_in(folder / "memory", views.view_of()),
            views.run_in(folder / "alignment", views.view_of(4, by="alignment"))]  # fmt: skip
    write_report(runs, folder / "report.html")
    return folder / "report.html"


@pytest.fixture(scope="module")
def one_page(opened: Any, file: Path) -> Iterator[Seen]:
    page = opened.new_page(viewport=SIZE)
    yield Seen(page, file)
    page.close()


@pytest.fixture
def seen(one_page: Seen) -> Seen:
    """As it was opened: the first run, the middle of the slider, nothing pinned, pictures side by side."""
    one_page.page.keyboard.press("Escape")
    one_page.page.check("input[name=view][value=pair]")
    one_page.page.check("input[name=run][value='0']")
    one_page.page.evaluate("chooseRun(0)")
    one_page.page.mouse.move(0, 0)
    return one_page


def test_it_opens_whole_without_a_request_or_a_complaint(seen: Seen) -> None:
    assert [url for url in seen.requests if not url.startswith("data:")] == seen.requests[:1]
    assert not seen.complaints
    assert len(seen.schemes()) == len(views.CELLS) and len(seen.pictures()) == 4
    assert seen.page.locator("#chart .point").count() >= 6 + 3 + 2 + 1
    labels = seen.text("#chart")
    assert all(text in labels for text in ("w4a8", "w2a8", "full precision", "predicted", "measured"))
    assert "1 uniform plan lies outside" in seen.text("#chart-note")
    for selector in ("#chart", "#pictures", "#map"):
        assert seen.pixels(selector).std() > 10, selector
    assert "1 limit had no plan" in seen.text("#told")


def test_the_slider_shows_another_plan_at_once(seen: Seen) -> None:
    page = seen.page
    before = (seen.text("#costs"), seen.schemes(), seen.pictures(), seen.text("#losses"))
    page.focus("#slider")
    page.keyboard.press("Home")
    least = (seen.text("#costs"), seen.schemes(), seen.pictures(), seen.text("#losses"))
    assert all(a != b for a, b in zip(before, least, strict=True))
    assert "w2a8" in least[1] and "no plan of less memory" in seen.text("#changes-note")
    box = page.locator("#slider").bounding_box()
    page.mouse.click(box["x"] + box["width"] - 3, box["y"] + box["height"] / 2)
    top = views.view_of().points[0]
    assert f"{top.totals['bytes'] / 2**10:.3g} KiB" in seen.text("#costs")
    assert page.input_value("#slider") == "5"
    share = 100 * top.totals["bytes"] / views.view_of().full.totals["bytes"]
    said = page.get_attribute("#slider", "aria-valuetext")
    assert said.startswith(f"{top.totals['bytes'] / 2**10:.3g} KiB, {share:.3g} % of full")
    page.keyboard.press("ArrowLeft")
    assert page.input_value("#slider") == "4" and "Proven" in seen.text("#verdict")
    page.keyboard.press("ArrowLeft")
    assert "Within 0.4 % of the best possible" in seen.text("#verdict")


def test_both_families_and_their_errors_are_told_apart(seen: Seen) -> None:
    seen.page.evaluate("goTo(4)")
    rows = seen.page.locator("#losses tbody tr").all_inner_texts()
    assert [row.split("\t")[0] for row in rows] == [
        "quality loss nsr",
        "quality loss dssim",
        "alignment loss clip_drop",
    ]
    point = views.view_of().points[1]
    assert rows[0].split("\t")[1:] == [f"{point.totals['nsr']:.3g} ± 0.0001", "0.002 ± 0.0005"]
    seen.page.evaluate("goTo(5)")
    assert "measured" not in seen.text("#losses")
    assert "This plan was not painted: these are of the nearest one" in seen.text("#pictures-note")


def test_a_point_of_the_chart_chooses_its_plan(seen: Seen) -> None:
    mark = seen.page.locator("#chart .scatterlayer .trace").first.locator(".point").first
    box = mark.bounding_box()
    seen.page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    until(seen.page, "document.getElementById('slider').value === '0'")
    seen.page.select_option("#column", "clip_drop")
    assert "clip_drop" in seen.text("#chart .ytitle")


def test_a_cell_is_looked_at_pinned_and_let_go(seen: Seen) -> None:
    page, cell = seen.page, lambda place: seen.page.locator(f"#map [data-place='{place}']")
    assert "By role" in seen.text("#layer")
    cell(1).hover()
    assert "unet.down.0.a" in seen.text("#layer") and "convolution" in seen.text("#layer")
    rows = page.locator("#layer tbody tr").all_inner_texts()
    assert [row.split("\t")[0].split(" ")[0] for row in rows] == list(views.SCHEMES)
    assert "16 KiB" in rows[0] and "± " in rows[1] and "* simulated" in seen.text("#layer")
    page.mouse.move(0, 0)
    assert "By role" in seen.text("#layer")
    cell(1).click()
    cell(4).hover()
    assert "unet.down.0.a" in seen.text("#layer") and "Pinned" in seen.text("#layer")
    chosen = page.locator("#layer tr.chosen").inner_text()
    page.evaluate("goTo(0)")
    assert page.locator("#layer tr.chosen").inner_text() != chosen
    page.keyboard.press("Escape")
    page.mouse.move(0, 0)
    until(page, "document.getElementById('layer').innerText.includes('By role')")


def test_what_changes_is_outlined_and_listed(seen: Seen) -> None:
    seen.page.evaluate("goTo(3)")
    view = views.view_of()
    changed = sum(a != b for a, b in zip(view.points[2].picks, view.points[3].picks, strict=True))
    assert seen.page.locator("#map .cell.changed").count() == changed > 0
    assert f"{changed} layers change" in seen.text("#changes-note")
    rows = seen.page.locator("#changes-list tbody tr").all_inner_texts()
    assert len(rows) == changed and all("→" in row and "+" in row for row in rows)
    seen.page.locator("#changes-list .link").first.click()
    assert "Pinned" in seen.text("#layer") and rows[0].split("\t")[0] in seen.text("#layer")


def test_pictures_take_turns_and_show_their_difference(seen: Seen) -> None:
    page = seen.page
    page.evaluate("goTo(2)")
    page.check("input[value=flicker]")
    assert seen.text("#flicker") == "Pause"
    until(page, "document.getElementById('turn-now').textContent === 'full precision'")
    until(page, "document.getElementById('turn-now').textContent === 'this plan'")
    page.focus("#flicker")
    page.keyboard.press("Enter")
    assert seen.text("#flicker") == "Play"
    page.evaluate("looking.full = true; showTurn()")
    full = seen.pixels(".frame.flicker")[2, 20]
    page.click("#swap")
    assert abs(full - [200, 0, 0]).max() <= 1 and abs(seen.pixels(".frame.flicker")[2, 20] - [170, 0, 0]).max() <= 1
    page.check("input[value=difference]")
    assert "8 times amplified" in seen.text("#pictures-note")
    assert abs(seen.pixels(".frame.difference")[2, 20] - [240, 0, 0]).max() <= 8
    page.click("#pictures figure:nth-child(2) button")
    assert page.locator("#pictures figure.large").count() == 1
    page.click("#pictures figure:nth-child(2) button")


def test_another_run(seen: Seen) -> None:
    seen.page.check("input[name=run][value='1']")
    until(seen.page, "document.getElementById('slider').max === '3'")
    assert "alignment loss" in seen.text("#slider-label") and "Alignment loss" in seen.text("#chart .xtitle")
    assert "next lower alignment loss" in seen.text("#changes-note")


def test_all_of_it_with_the_keyboard_alone(seen: Seen) -> None:
    page, walked = seen.page, []
    page.focus("a.skip")
    page.keyboard.press("Tab")
    for _ in range(40):
        walked.append(page.evaluate("document.activeElement.id || document.activeElement.name "
                                    "|| document.activeElement.className"))  # fmt: skip
        if "cell" in walked[-1].split():
            break
        page.keyboard.press("Tab")
    for name in ("run", "slider", "column", "view", "enlarge", "cell"):
        assert any(name in one for one in walked), (name, walked)
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline != "none"
    first = seen.text("#layer-title")
    page.keyboard.press("End")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    assert seen.text("#layer-title") != first and "Pinned" in seen.text("#layer")
    assert page.locator("#map .cell[tabindex='0']").count() == 1
    page.keyboard.press("Escape")
    assert "Pinned" not in seen.text("#layer")


def test_every_control_has_a_name_and_the_page_its_landmarks(seen: Seen) -> None:
    nameless = seen.page.evaluate("""() => [...document.querySelectorAll("input, select, button")].filter((one) =>
        !one.labels?.length && !one.textContent.trim() && !one.querySelector("img[alt]:not([alt=''])")
        && !one.ariaLabel).map((one) => one.outerHTML)""")
    assert nameless == []
    for selector in (
        "main",
        "header",
        "footer",
        "a.skip[href='#choice']",
        "h1",
        "[role=grid] [role=row] [role=gridcell]",
    ):
        assert seen.page.locator(selector).count() >= 1, selector
    assert seen.page.get_attribute("html", "lang") == "en"


def test_paper_shows_the_plan_and_no_controls(seen: Seen) -> None:
    page = seen.page
    page.emulate_media(media="print")
    try:
        for selector in ("#slider", "#runs", "#views", "#column", "#map-help"):
            assert not page.is_visible(selector), selector
        for selector in (
            "#chart .main-svg >> nth=0",
            "#costs",
            "#losses",
            "#pictures img >> nth=0",
            "#map",
            "#run-name",
        ):
            assert page.is_visible(selector), selector
    finally:
        page.emulate_media(media="screen")
    assert len(page.pdf(prefer_css_page_size=True)) > 10_000


def test_a_narrow_screen_and_less_motion(opened: Any, file: Path) -> None:
    context = opened.new_context(viewport={"width": 420, "height": 900}, reduced_motion="reduce")
    seen = Seen(context.new_page(), file)
    assert seen.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert seen.page.is_visible("#slider") and not seen.complaints
    seen.page.check("input[value=flicker]")
    assert seen.text("#flicker") == "Play" and seen.page.evaluate("looking.timer === null")
    context.close()


def test_eight_hundred_layers(opened: Any, tmp_path: Path) -> None:
    view = views.view_of()
    names = [(view.cells[i % 9], f"unet.up.{i // 320}") for i in range(800)]
    rooms = tuple(replace(cell, layer=f"{block}.{i}", block=block) for i, (cell, block) in enumerate(names))
    grown = [
        views.variant(one.name, one.status, tuple(one.picks[i % 9] for i in range(800)), one.limit, rooms)
        if one.picks
        else one
        for one in (view.full, *view.uniform, *view.points)
    ]
    large = replace(view, cells=rooms, full=grown[0], uniform=tuple(grown[1:4]), points=tuple(grown[4:]))
    write_report([views.run_in(tmp_path / "run", large)], tmp_path / "r.html")
    page = opened.new_page(viewport=SIZE)
    seen = Seen(page, tmp_path / "r.html")
    assert len(seen.schemes()) == 800 and not seen.complaints
    map_box, cell = page.locator("#map").bounding_box(), page.locator("#map .cell[data-place='799']")
    assert map_box["width"] < 830 and map_box["height"] < 900 and cell.bounding_box()["width"] >= 8
    cell.hover()
    assert "unet.up.2.799" in seen.text("#layer")
    page.close()
