"""The page of a report in a window of a telephone's width."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import combinations
from typing import Any

import pytest

from bitplan.planner.choice.published import ROOT
from bitplan.planner.page.html import write_report
from tests.browser import MISSING, browser, chromium, until
from tests.planner.page.test_report_browser import SHOWN

pytestmark = pytest.mark.skipif(chromium() is None, reason=MISSING)
SCROLL = """one => {
  const region = one.closest(".scroll");
  region.scrollLeft = one.offsetLeft + one.offsetWidth - region.clientWidth;
}"""
BOX = "(({left, top, right, bottom}) => [left, top, right, bottom])(one.getBoundingClientRect())"


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    file = tmp_path_factory.mktemp("report") / "report.html"
    write_report([ROOT / "scenes"], file)
    with browser() as opened:
        page = opened.new_page(viewport={"width": 390, "height": 800})
        page.goto(file.as_uri())
        until(page, SHOWN)
        page.evaluate("document.querySelector('details').open = true")
        yield page


def test_the_page_is_no_wider_than_the_window_and_shows_no_json(page: Any) -> None:
    assert page.evaluate("document.scrollingElement.scrollWidth") == 390
    assert "by memory, points 14" in page.inner_text("#about")
    assert not re.search(r"[{}\[\]\"]", page.inner_text("#about"))


def test_no_label_of_the_chart_covers_another(page: Any) -> None:
    texts = ".annotation-text, .legendtext, .xtick text, .ytick text, .xtitle, .ytitle"
    labels = page.eval_on_selector_all(texts, f"all => all.map(one => [one.textContent, {BOX}])")
    assert {"w8a8", "w2g64ma8", "predicted"} <= {name for name, _ in labels}
    for (name, one), (other_name, other) in combinations(labels, 2):
        apart = one[0] >= other[2] - 1 or other[0] >= one[2] - 1 or one[1] >= other[3] - 1 or other[1] >= one[3] - 1
        assert apart, (name, other_name)


def test_all_columns_of_the_tables_can_be_reached(page: Any) -> None:
    for region in ("#changes-list", "#plans-table"):
        right = page.eval_on_selector(region, f"one => {BOX}")[2]
        heads = page.locator(f"{region} thead th").all()
        assert len(heads) > 6 and heads[2].evaluate(f"one => {BOX}")[2] <= right  # two columns beside the names
        for head in heads[1:]:
            head.evaluate(SCROLL)
            left, _, end, _ = head.evaluate(f"one => {BOX}")
            assert heads[0].evaluate(f"one => {BOX}")[2] - 1 <= left and end <= right + 1, head.inner_text()
