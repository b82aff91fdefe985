"""`bitplan explore` as people use it: in a browser, with the server in a process of its own."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import bitplan
from bitplan.plans.plan import load_plan
from tests.browser import MISSING, browser, chromium
from tests.served import opened, served, shown

pytestmark = pytest.mark.skipif(chromium() is None, reason=MISSING)
pytest.importorskip("fastapi")


@pytest.fixture(scope="module")
def shared(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the finished profile, which the last test replaces."""
    return Path(shutil.copy(finished, tmp_path_factory.mktemp("shared") / "t.profile"))


@pytest.fixture(scope="module")
def address(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """Of the page, and the folder for plans. That it ends well when interrupted is checked at the end."""
    plans = tmp_path_factory.mktemp("plans")
    with served(shared, "--plans", str(plans)) as found:
        yield found, plans


@pytest.fixture(scope="module")
def page(address: tuple[str, Path]) -> Iterator[Any]:
    """One for all tests: each leaves nothing asked but memory. At the end there was no error, and no request to
    anywhere else."""
    wrong: list[str] = []
    with browser() as program:
        yield opened(program, address[0], wrong)
    assert not wrong


def drag(page: Any, place: int, name: str = "slider") -> None:
    """As by hand: some places on the way, then let go."""
    page.evaluate(
        """([place, name]) => {
          const range = document.getElementById(name), from = Number(range.value);
          range.dispatchEvent(new Event("pointerdown"));
          for (const share of [0.2, 0.6, 1]) {
            range.value = String(Math.round(from + share * (place - from)));
            range.dispatchEvent(new Event("input", { bubbles: true }));
          }
          range.dispatchEvent(new Event("change", { bubbles: true }));
        }""",
        [place, name],
    )


def told(page: Any) -> dict[str, Any]:
    """Layer -> scheme on the map."""
    return page.evaluate(
        "Object.fromEntries(chosen.run.layers.map((cell, i) => [cell.layer, mapped.cells[i].dataset.scheme]))"
    )


def test_memory_is_dragged(page: Any, finished: Path, tmp_path: Path) -> None:
    seen = []
    for place in (200, 600):
        shown(page, lambda place=place: drag(page, place))
        seen.append((page.inner_text("#costs .big >> nth=0"), told(page)))
        plan = bitplan.solve(finished, tmp_path / "p.plan.yaml", memory=page.evaluate("live.request.memory"))
        assert seen[-1][1] == plan.schemes
        assert page.evaluate("chosen.variant.totals.bytes") == plan.predictions["total"]["bytes"]
    assert seen[0][0] != seen[1][0] and seen[0][1] != seen[1][1]
    assert "Proven" in page.inner_text("#verdict")
    assert page.locator("#map .changed").count() > 0  # beside the plan before


def test_each_input_has_a_label_that_can_be_seen(page: Any) -> None:
    shown(page, lambda: page.select_option("#add-cap", "nsr"))
    titles = page.eval_on_selector_all(
        "input, select",
        """all => all.map((one) => [one.id || one.name, (one.labels[0]
             ?? document.getElementById(one.getAttribute("aria-labelledby")))?.innerText.trim()])""",
    )
    assert {"seed", "prompt", "name", "memory", "add-cap", "limit-nsr"} <= {name for name, _ in titles}
    assert [name for name, title in titles if not title] == []
    shown(page, lambda: page.click("#bound-nsr"))


def test_a_layer_is_fixed_and_let_go(page: Any) -> None:
    shown(page, lambda: drag(page, 400))
    page.click("#map .cell >> nth=2")
    layer = page.inner_text("#layer h3")
    shown(page, lambda: page.click("#layer tbody tr:not(.chosen) button >> nth=0"))
    scheme = page.evaluate("Object.values(live.request.pins)[0]")
    assert told(page)[layer] == scheme and page.locator("#map .cell.fixed").count() == 1
    assert layer in page.inner_text("#fixed") and f"{layer}" in page.inner_text("#command")
    shown(page, lambda: page.click("#fixed .free"))
    assert page.locator("#map .cell.fixed").count() == 0 and "none" in page.inner_text("#fixed")


def test_a_role_is_kept(page: Any) -> None:
    shown(page, lambda: drag(page, 100))
    role = page.get_attribute("#kept input >> nth=0", "value")
    shown(page, lambda: page.check("#kept input >> nth=0"))
    kept = page.evaluate("(role) => chosen.run.layers.filter((c) => c.role === role).map((c) => c.layer)", role)
    assert kept and all(told(page)[layer] == "keep" for layer in kept)
    assert f"--keep role:{role}" in page.inner_text("#command")
    shown(page, lambda: page.uncheck("#kept input >> nth=0"))


def test_where_there_is_no_plan_the_last_one_stays(page: Any) -> None:
    before = told(page)
    shown(page, lambda: page.fill("#memory", "1KB") or page.press("#memory", "Enter"))
    assert "bytes can get no smaller than" in page.inner_text("#no-plan")
    assert page.get_attribute("body", "class") == "stale" and told(page) == before
    shown(page, lambda: page.fill("#memory", "nonsense") or page.press("#memory", "Enter"))
    assert "is not an amount" in page.inner_text("#no-plan")
    shown(page, lambda: page.fill("#memory", "30%") or page.press("#memory", "Enter"))
    assert page.inner_text("#no-plan") == "" and "stale" not in (page.get_attribute("body", "class") or "")


def test_losses_are_limited_and_weighed(page: Any) -> None:
    shown(page, lambda: drag(page, 300))
    before = page.evaluate("chosen.variant.totals.nsr")
    shown(page, lambda: page.select_option("#add-cap", "nsr"))
    shown(page, lambda: drag(page, 1000))
    assert page.evaluate("chosen.variant.totals.nsr") <= before
    shown(page, lambda: drag(page, 0, "balance"))
    assert page.evaluate("live.request.objective") == "quality" and "--objective quality" in page.inner_text("#command")
    shown(page, lambda: page.click("#bound-nsr"))
    shown(page, lambda: drag(page, 500, "balance"))
    assert "--cap" not in page.inner_text("#command") and "--objective" not in page.inner_text("#command")


def test_a_plan_is_saved_once(page: Any, address: tuple[str, Path], finished: Path, tmp_path: Path) -> None:
    shown(page, lambda: page.fill("#memory", "25%") or page.press("#memory", "Enter"))
    page.fill("#name", "mine")
    page.click("#save")
    page.wait_for_selector("#saved strong")
    bitplan.solve(finished, tmp_path / "p.plan.yaml", memory="25%")
    saved = address[1] / "mine.plan.yaml"
    assert saved.read_bytes() == (tmp_path / "p.plan.yaml").read_bytes()
    page.fill("#name", "mine")
    page.click("#save")
    page.wait_for_selector("#saved .refused")
    assert "mine.plan.yaml exists" in page.inner_text("#saved").lower()
    assert load_plan(saved).solver["status"] == "optimal"


def test_a_picture_is_painted(page: Any) -> None:
    page.fill("#prompt", "a large red circle")
    page.click("#paint")
    page.wait_for_selector("#pictures img.plan", timeout=60_000)
    sizes = page.evaluate("[...document.querySelectorAll('#pictures img')].map((image) => image.naturalWidth)")
    assert len(sizes) == 2 and min(sizes) > 0
    assert "a large red circle (seed 0)" in page.inner_text("#pictures")
    shown(page, lambda: drag(page, 900))
    assert "not painted" in page.inner_text("#pictures-note")


def test_a_profile_that_was_replaced_is_loaded_by_the_button(page: Any, shared: Path) -> None:
    """Its losses are twice the old one's. Last in this file: the page is another one afterwards."""
    shown(page, lambda: page.fill("#memory", "25%") or page.press("#memory", "Enter"))
    before = page.evaluate("chosen.variant.totals.nsr")
    new = Path(shutil.copy(shared, shared.with_name("new.profile")))
    with sqlite3.connect(new) as db:
        db.execute("UPDATE measurements SET mean = 2 * mean")
    db.close()
    new.replace(shared)
    assert page.locator("#no-plan button.reload").count() == 0
    shown(page, lambda: page.fill("#memory", "30%") or page.press("#memory", "Enter"))
    assert "profile was replaced while this page was open" in page.inner_text("#no-plan")
    with page.expect_navigation():
        page.click("#no-plan button.reload")
    page.wait_for_selector("body[data-shown]", state="attached")
    shown(page, lambda: page.fill("#memory", "25%") or page.press("#memory", "Enter"))
    assert page.inner_text("#no-plan") == ""
    assert page.evaluate("chosen.variant.totals.nsr") == pytest.approx(2 * before)
