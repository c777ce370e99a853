"""Makes the documents that the ingestion tests read: real files of every format, written by real libraries."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

FACTS = (
    "Micro-cracks in a solar cell appear as thin dark lines in the electroluminescence image.",
    "Hail impact is a frequent cause of cracked solar cells.",
    "A cracked solar cell delivers less power because the separated area is no longer connected.",
)


def write_pdf(path: Path, pages: Sequence[str], header: str = "", password: str = "") -> Path:
    """A PDF with a text layer, one string a page (wrapped), with a running head and page numbers."""
    from reportlab.lib.pagesizes import A4
    from reportlab.lib.utils import simpleSplit
    from reportlab.pdfgen import canvas

    sheet = canvas.Canvas(str(path), pagesize=A4, encrypt=password or None)
    for number, text in enumerate(pages, start=1):
        if header:
            sheet.drawString(60, 800, header)
            sheet.drawString(280, 30, f"Page {number}")
        for line, words in enumerate(simpleSplit(text, "Helvetica", 11, 440)):
            sheet.drawString(60, 740 - 16 * line, words)
        sheet.showPage()
    sheet.save()
    return path


def write_docx(path: Path) -> Path:
    """A Word file with a heading, a paragraph, a list and a table."""
    import docx

    document = docx.Document()
    document.add_heading("Casting defects", 1)
    document.add_paragraph("Gas porosity appears as round bright pores in the machined face of a casting.")
    document.add_paragraph("Wet sand gives rise to gas pores in the casting.", style="List Bullet")
    rows = (("Defect", "Cause", "Effect"), ("Cold shut", "the melt was too cold", "the wall leaks under pressure"))
    table = document.add_table(len(rows), 3)
    for row, cells in zip(table.rows, rows, strict=True):
        for cell, text in zip(row.cells, cells, strict=True):
            cell.text = text
    document.save(str(path))
    return path


def write_captions(folder: Path, image: Path | None = None) -> Path:
    """Images of defects with a caption file; one row names an image that is not there."""
    from PIL import Image

    Image.new("RGB", (64, 48), "grey").save(folder / "crack.png") if image is None else None
    rows = [
        {"file": "crack.png", "caption": "A branching dark crack runs from the busbar.", "defect": "crack"},
        {"file": "gone.png", "caption": "A dark corner shows a broken finger.", "defect": "finger"},
    ]
    path = folder / "captions.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path
