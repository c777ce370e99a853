"""What people read of a batch: `report.html` with the suspects first, the rows as CSV and Excel, the regions as labels.

Text of files, products and models is never code: the page escapes it and has no script, and a cell that a spreadsheet
would take for a formula begins with an apostrophe.
"""

from __future__ import annotations

import base64
import csv
import heapq
import io
import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

from sage_ad.agents.batch.store import Row
from sage_ad.knowledge.looks.labels import UNNAMED, LabelledPicture, coco, label_studio
from sage_ad.vlm.errors import InputError
from sage_ad.vlm.files import whole_file, write_whole

REPORT, CSV, EXCEL = "report.html", "results.csv", "results.xlsx"
COCO, LABEL_STUDIO = "regions.coco.json", "regions.label-studio.json"

COLUMNS = (
    "part", "id", "image", "product", "domain", "verdict", "anomaly_score", "threshold", "threshold_from", "confidence",
    "defect", "regions", "explanation", "warnings", "error", "picture", "model", "seconds", "key",
)  # fmt: skip
"""Columns of `results.csv` and `results.xlsx`."""

SHOWN = 200
"""Parts that the report shows with a picture, the most suspicious first."""

THUMBNAIL = 260
BINS, SHARES = 240, 24
PARTS_A_SHARE = 10
"""Points and bars of the report's chart at most; in a larger batch each stands for several parts in a row."""

HIGHEST = 3.0
"""Scores above so many thresholds are drawn at the top of the chart."""

MANY = 0.8
FEWEST_FOR_DOUBT = 4

EXCEL_ROWS, EXCEL_TEXT = 1_048_575, 32_767
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\u202a-\u202e\u2066-\u2069]")
"""Control characters, and marks that turn the order of letters round ("gnp.exe")."""

_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def doubts(anomalous: int, judged: int) -> list[str]:
    """What makes a batch doubtful as a whole, in sentences."""
    if judged < FEWEST_FOR_DOUBT or anomalous < MANY * judged:
        return []
    who = f"All {judged}" if anomalous == judged else f"{anomalous} of {judged}"
    return [
        f"{who} inspected parts are anomalous. Look at the first of them before you stop the lot: most often the references "
        "do not show this product, its side, the camera or the light."
    ]


@dataclass
class Collected:
    """What the report needs of all rows, gathered while they pass once.

    Attributes:
        scores: of each judged part, in order: the score as a multiple of its threshold, and whether it is anomalous.
        shown: the rows to be shown, the most suspicious first.
        reasons, warnings: how often each was said.
        labels: every judged picture with its regions.
    """

    scores: list[tuple[float, bool]] = field(default_factory=list)
    shown: list[Row] = field(default_factory=list)
    errors: list[Row] = field(default_factory=list)
    failed: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    warnings: Counter[str] = field(default_factory=Counter)
    labels: list[LabelledPicture] = field(default_factory=list)
    _heap: list[tuple[tuple[bool, float], int, Row]] = field(default_factory=list)

    def add(self, row: Row) -> None:
        """Takes a row in."""
        if row["error"]:
            self.failed += 1
            if len(self.errors) < SHOWN:
                self.errors.append(row)
            return
        anomalous = row["verdict"] == "anomalous"
        ratio = row["anomaly_score"] / max(row["threshold"], 1e-9)
        self.scores.append((ratio, anomalous))
        self.reasons[json.loads(row["trace"])["threshold_reason"]] += 1
        self.warnings.update(row["warnings"])
        if row.get("width"):
            boxes = [(row["defect"] or UNNAMED, tuple(region["box"])) for region in row["regions"]]
            self.labels.append(LabelledPicture(row["image"], (row["width"], row["height"]), boxes, ratio))
        entry = ((anomalous, ratio), -row["part"], row)
        if len(self._heap) < SHOWN:
            heapq.heappush(self._heap, entry)
        else:
            heapq.heappushpop(self._heap, entry)

    def ranked(self) -> list[Row]:
        """The rows to be shown, the most suspicious first."""
        return [row for _, _, row in sorted(self._heap, key=lambda entry: entry[:2], reverse=True)]


def write_reports(folder: Path, rows: Iterable[Row]) -> None:
    """Writes everything that people and their programs read of a batch into its folder.

    Args:
        folder: folder of the batch.
        rows: all of its rows, in order; they are read once.

    Raises:
        OSError: a file cannot be written.
    """
    from openpyxl import Workbook

    found = Collected()
    book = Workbook(write_only=True)
    sheet = book.create_sheet("parts")
    sheet.freeze_panes = "A2"
    sheet.append([_cell(sheet, name) for name in COLUMNS])
    with whole_file(folder / CSV) as binary:
        stream = io.TextIOWrapper(binary, "utf-8-sig", newline="")
        written = csv.writer(stream)
        written.writerow(COLUMNS)
        for number, row in enumerate(rows):
            values = [_flat(name, row.get(name)) for name in COLUMNS]
            written.writerow(values)
            if number < EXCEL_ROWS:
                sheet.append([_cell(sheet, value) for value in values])
            found.add(row)
        stream.detach()  # the file itself is closed as it was opened
    with whole_file(folder / EXCEL) as binary:
        book.save(binary)
    # The most suspicious first, as a labeller wants them.
    labels = sorted(found.labels, key=lambda picture: -picture.score)
    write_whole(folder / COCO, json.dumps(coco(labels), indent=1))
    write_whole(folder / LABEL_STUDIO, json.dumps(label_studio(labels), indent=1))
    write_whole(folder / REPORT, _page(folder, found))


def _flat(name: str, value: Any) -> Any:
    """A value of a row as one cell; texts that would be formulas are marked as texts."""
    if name == "regions":
        value = "; ".join(f"{item['place']} {tuple(item['box'])}" for item in value or ())
    elif isinstance(value, list):
        value = " ".join(value)
    if not isinstance(value, str):
        return value
    text = _CONTROL.sub("\ufffd", value)
    return f"'{text}" if text.startswith(_FORMULA) else text


def _cell(sheet: Any, value: Any) -> Any:
    from openpyxl.cell import WriteOnlyCell

    if not isinstance(value, str):
        return value
    cell = WriteOnlyCell(sheet, value[:EXCEL_TEXT])
    cell.data_type = "s"
    return cell


def _page(folder: Path, found: Collected) -> str:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    shown = found.ranked()
    with ThreadPoolExecutor(4) as pool:
        thumbnails = list(pool.map(lambda row: _thumbnail(row["image"], row["key"]), shown))
    alarmed, judged = sum(alarm for _, alarm in found.scores), len(found.scores)
    loader = FileSystemLoader(Path(__file__).parent)
    page = Environment(
        loader=loader,
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: _CONTROL.sub("\ufffd", value) if type(value) is str else value,
    ).get_template("report.html.j2")
    return page.render(
        name=folder.resolve().name,
        made=datetime.now().astimezone(),
        parts=judged + found.failed,
        alarmed=alarmed,
        judged=judged,
        failed=found.failed,
        errors=found.errors,
        doubts=doubts(alarmed, judged),
        reasons=found.reasons.most_common(5),
        warnings=found.warnings.most_common(8),
        cards=[_card(row, picture) for row, picture in zip(shown, thumbnails, strict=True)],
        points=_points(found.scores),
        shares=_shares(found.scores),
        highest=min(HIGHEST, 1.08 * max([1.2, *(ratio for ratio, _ in found.scores)])),
    )


def _card(row: Row, picture: str | None) -> dict[str, Any]:
    """A part as the page shows it; boxes in per cent of the picture."""
    width, height = row.get("width") or 1, row.get("height") or 1
    boxes = []
    for region in row["regions"] if row.get("width") else ():
        x0, y0, x1, y1 = region["box"]
        boxes.append(
            {
                "place": region["place"],
                "left": 100 * x0 / width,
                "top": 100 * y0 / height,
                "width": 100 * (x1 - x0) / width,
                "height": 100 * (y1 - y0) / height,
            }
        )
    lines = (row["explanation"] or "").splitlines()
    return {
        "row": row,
        "name": row["id"] or Path(row["image"]).name,
        "thumbnail": picture,
        "boxes": boxes,
        "lines": lines,
    }


@lru_cache(2 * SHOWN)
def _thumbnail(image: str, key: str) -> str | None:
    """The picture as an address that carries it, or None if it is not there any more; `key` stands for its content."""
    from sage_ad.vlm.images import load_image

    try:
        picture = load_image(image)
    except InputError:
        return None
    picture.thumbnail((THUMBNAIL, THUMBNAIL))
    stream = io.BytesIO()
    picture.save(stream, "WEBP", quality=72)
    return "data:image/webp;base64," + base64.b64encode(stream.getvalue()).decode()


def _stretches(
    scores: Sequence[tuple[float, bool]], most: int, least: int = 1
) -> list[tuple[int, Sequence[tuple[float, bool]]]]:
    """At most so many stretches of at least so many parts in a row: the number of the first, and their scores."""
    size = max(least, -(-len(scores) // most))
    return [(at + 1, scores[at : at + size]) for at in range(0, len(scores), size)]


def _points(scores: Sequence[tuple[float, bool]]) -> list[dict[str, Any]]:
    """The median of each stretch."""
    points = []
    for first, some in _stretches(scores, BINS):
        ratio, alarm = sorted(some)[len(some) // 2]
        points.append({"first": first, "count": len(some), "ratio": ratio, "alarm": alarm})
    return points


def _shares(scores: Sequence[tuple[float, bool]]) -> list[dict[str, Any]]:
    """The share alarmed of each stretch; none where there would be one only."""
    if len(scores) <= PARTS_A_SHARE:
        return []
    return [
        {"first": first, "count": len(some), "share": sum(alarm for _, alarm in some) / len(some)}
        for first, some in _stretches(scores, SHARES, PARTS_A_SHARE)
    ]
