"""Reports for a quality file: one HTML file with its pictures inside, without script, readable offline for years."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from sage_ad.demo.view import render
from sage_ad.demo.view.progress import Progress

if TYPE_CHECKING:
    from sage_ad.demo.services.run_store import Run
    from sage_ad.knowledge.store.fact_store import FactStore


def report_html(run: Run, store: FactStore | None = None) -> str:
    """The report of a run.

    Args:
        run: the kept inspection.
        store: the knowledge base, which adds the full sources of the facts as they stand now.
    """
    progress = Progress(uid="r").finished(run.trace, run.pictures)
    return render.fragment(
        "report",
        run=run,
        trace=run.trace,
        style=render.report_style(),
        verdict=render.verdict_html(run.trace, run.part),
        evidence=render.evidence_html(run.pictures, run.trace, progress.uid),
        answers=render.answers_html(progress),
        facts=render.facts_html(run.trace, progress.uid, store),
        steps=render.steps_html(progress),
    )


def write_report(run: Run, store: FactStore | None = None) -> Path:
    """Writes the report into a folder that Gradio copies downloads from; returns its path."""
    path = download_folder() / f"sage-{render.slug(run.trace.product or run.part)}-{run.id}.html"
    path.write_text(report_html(run, store), encoding="utf-8")
    return path


def download_folder() -> Path:
    """A new folder for one download, where Gradio may copy it from; `delete_downloads` takes it away again."""
    return Path(tempfile.mkdtemp(prefix="download-", dir=upload_folder()))


def delete_downloads(age: float) -> None:
    """Deletes the folders of downloads that are older than so many seconds (Gradio deletes its own copies and uploads)."""
    for old in upload_folder().glob("download-*"):
        with contextlib.suppress(FileNotFoundError):  # another sweep was quicker
            if time.time() - old.stat().st_mtime > age:
                shutil.rmtree(old, ignore_errors=True)


def upload_folder() -> Path:
    """Gradio's folder of uploads and downloads (`GRADIO_TEMP_DIR`), which the demo empties."""
    import gradio as gr

    folder = Path(gr.utils.get_upload_folder())
    folder.mkdir(parents=True, exist_ok=True)
    return folder
