"""Folders of sweeps with an edited `sweep.json`, whose names point elsewhere: continued, and made into pages."""

from __future__ import annotations

import json
import math
import re
import shutil
from pathlib import Path
from typing import Any

from tests.fuzz.case import Case, command
from tests.fuzz.values import PATHS, mutated, spoilt, text_of
from tests.fuzz.world import POINTS, copied, plan_data

PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000010000000108000000003a7e9b550000000a49444154789c636000000002000148afa471"
    "0000000049454e44ae426082"
)  # one grey pixel


def run(case: Case) -> None:
    """Spoils the folder of a sweep, continues the sweep in it, and makes a page of it."""
    random = case.random
    profile = copied(case.world.profile, case.box.inputs)
    folder = case.box.out
    folder.rmdir()
    shutil.copytree(case.world.run, folder)
    data = json.loads((folder / "sweep.json").read_text())
    if painted := random.random() < 0.5:
        _paint(data, folder)
    if random.random() < 0.15:
        _link(case, folder)
    edits = random.choice((0, 1, 1, 1, 2, 3))
    text = text_of(data)
    for _ in range(edits):
        text = _spoiled(case, data, text)
    (folder / "sweep.json").write_bytes(text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass"))
    page = case.box.root / "tmp" / "r.html"
    reported = command(case, "report", folder, "--out", page)
    if reported.accepted:
        _check_page(case, page)
    if not edits and not case.edits and not reported.accepted:
        case.find("a good sweep is refused", reported.err)
    if random.random() < 0.6:
        swept = command(case, "sweep", profile, "--points", POINTS, "--out", folder)
        if swept.accepted:
            _check_sweep(case, folder, painted)


def _link(case: Case, folder: Path) -> None:
    """Puts a link in the place of a file or a folder of the sweep: out of it, to itself, or to nothing."""
    random, sibling = case.random, case.box.root / "sibling"
    places = [path for path in sorted(folder.rglob("*")) if path.name != "sweep.json"]
    if not places:
        return
    place = random.choice(places)
    shutil.rmtree(place) if place.is_dir() else place.unlink()
    to = random.choice((sibling, sibling / "victim.yaml", sibling / "picture.png", place.name, "gone", "sweep.json",
                        "/dev/zero", sibling / "gone"))  # fmt: skip
    place.symlink_to(to)
    case.edits.append(f"{place.relative_to(folder)} is a link to {to}")


def _paint(data: dict[str, Any], folder: Path) -> None:
    """Lets the sweep have pictures and measured losses."""
    (folder / "images").mkdir()
    (folder / "images" / "0.png").write_bytes(PNG)
    for variant in (data["full"], *data["points"], *data["uniform"]):
        variant["pictures"], variant["measured"] = ["images/0.png"], {"nsr": [0.5, 0.1]}
    data["conditions"] = ["a cat"]


def _spoiled(case: Case, data: dict[str, Any], text: str | bytes) -> str | bytes:
    random = case.random
    kind = random.random()
    if kind < 0.1 or isinstance(text, bytes):
        case.edits.append("bytes")
        return spoilt(text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass"), random)
    if kind < 0.4:
        variants = [data.get("full"), *_listed(data, "points"), *_listed(data, "uniform")]
        variant = random.choice([each for each in variants if isinstance(each, dict)] or [{}])
        name = random.choice(PATHS).replace("@box", str(case.box.root))
        key = random.choice(("plan", "pictures", "pictures", "name"))
        variant[key] = [name] * max(1, len(_listed(data, "conditions"))) if key == "pictures" else name
        case.edits.append(f"{key} = {name[:80]!r}")
    else:
        changed = mutated(data, random)
        if not isinstance(changed, dict):
            return text_of(changed)
        data.clear()
        data.update(changed)
    return text_of(data).replace("@box", str(case.box.root))


def _listed(data: dict[str, Any], name: str) -> list[Any]:
    value = data.get(name)
    return value if isinstance(value, list) else []


def _check_page(case: Case, page: Path) -> None:
    """The data in the page are strict JSON, and none of them ends its script."""
    text = page.read_text("utf-8", "surrogatepass")
    if "that is not BitPlan's" in text:
        case.find("a page holds a file from elsewhere", case.edits)
    blocks = re.findall(r'<script type="application/json"[^>]*>(.*?)</script', text, re.DOTALL)
    if not blocks:
        case.find("a page without data", case.edits)
    for block in blocks:
        try:
            data = json.loads(block, parse_constant=_refuse)
        except ValueError as error:
            case.find("a page whose data are not JSON", (error, case.edits))
            continue
        for number in _infinite(data):
            case.find("a page with a number that is not finite", (number, case.edits))
            break


def _refuse(text: str) -> None:
    raise ValueError(f"{text} is not JSON")


def _infinite(data: Any) -> list[float]:
    if isinstance(data, dict):
        return [number for value in data.values() for number in _infinite(value)]
    if isinstance(data, list):
        return [number for value in data for number in _infinite(value)]
    return [data] if isinstance(data, float) and not math.isfinite(data) else []


def _check_sweep(case: Case, folder: Path, painted: bool) -> None:
    """What `sweep` accepted, old or new, has a plan for each point, and each plan is what the point says."""
    data = json.loads((folder / "sweep.json").read_text("utf-8"))
    try:
        _check_points(case, folder, data)
    except (KeyError, TypeError, IndexError, ValueError) as error:
        case.find("an accepted sweep that does not hold together", (repr(error), case.edits))


def _check_points(case: Case, folder: Path, data: Any) -> None:
    cells = data["cells"]
    for point in data["points"]:
        if not point["picks"]:
            continue
        schemes = {cell["layer"]: cell["options"][pick]["scheme"] for cell, pick in zip(cells, point["picks"],
                                                                                        strict=True)}  # fmt: skip
        if plan_data(folder / point["plan"])["schemes"] != schemes:
            case.find("a sweep whose plan differs from its point", (point["name"], case.edits))
        size = sum(o["bytes"] for cell in cells for o in cell["options"] if o["scheme"] == schemes[cell["layer"]])
        if size != point["totals"]["bytes"] or size > (point.get("limit") or size):
            case.find("a sweep whose totals are wrong", (size, point["totals"].get("bytes"), case.edits))
