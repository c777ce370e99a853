"""Detection figures of a labelled set: how well the evidence tells good from bad, and where.

A *cell* is one category under one draw of references with one encoder; finished cells are kept (`sage_ad.evaluation.runs`).
Images are streamed: a cell keeps scores, never maps.
"""

from __future__ import annotations

import random
import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sage_ad.evaluation.datasets import InspectionDataset, Sample, load_mask
from sage_ad.evaluation.reports.detect_report import Cell, DetectReport, DetectSettings
from sage_ad.evaluation.reports.metrics import PixelTally
from sage_ad.evaluation.reports.tables import number
from sage_ad.evaluation.runs import IMAGES, CellCache, Progress, cell_key, code_hash, write_rows
from sage_ad.vlm.errors import InputError

if TYPE_CHECKING:
    from PIL import Image

    from sage_ad.vlm.evidence.extractor import EvidenceExtractor, MemoryBank
    from sage_ad.vlm.pictures.brightness import Brightness


class Detector:
    """Evidence for the images of one category under one draw; banks of references are made once and kept while used."""

    BANKS = 4

    def __init__(self, extractor: EvidenceExtractor, dataset: InspectionDataset) -> None:
        self._extractor = extractor
        self._dataset = dataset
        self._banks: OrderedDict[tuple[Any, ...], MemoryBank | None] = OrderedDict()

    def bank(self, paths: Sequence[Path], brightness: Brightness | None = None) -> MemoryBank | None:
        """References made ready, read with the range that they share with the part; None without any that can be read."""
        key = (brightness, *paths)
        if key not in self._banks:
            loaded = (self._dataset.load_file(path, brightness) for path in paths)
            images = [image for image in loaded if image is not None]
            self._banks[key] = self._extractor.prepare(images) if images else None
            if len(self._banks) > self.BANKS:
                self._banks.popitem(last=False)
        self._banks.move_to_end(key)
        return self._banks[key]

    def extract(self, image: Image.Image, paths: Sequence[Path], brightness: Brightness | None = None) -> Any | None:
        """Evidence against these references, or within the image without any; None if no reference can be read."""
        if not paths:
            return self._extractor.extract(image)
        bank = self.bank(paths, brightness)
        return None if bank is None else self._extractor.extract(image, bank)


@dataclass
class _Plan:
    """Which images are compared with which, for one category and draw."""

    tests: list[Sample]
    references: list[Sample]
    calibration: list[Sample]
    notes: list[str]


def plan(dataset: InspectionDataset, category: str, shots: int, seed: int) -> _Plan:
    """Draws references for a category.

    An image's own reference (an aligned template) is used by `references_of` instead of these. Without good training
    images, references are drawn from the good test images, which are then not tested.
    """
    tests = [sample for sample in dataset.samples(category, "test") if sample.anomalous is not None]
    normals, notes = dataset.normals(category), []
    pool = sorted(normals, key=lambda sample: sample.id)
    needs_draw = shots > 0 and any(sample.reference is None for sample in tests)
    if needs_draw and not pool:
        pool = sorted((s for s in tests if s.anomalous is False), key=lambda sample: sample.id)
        if pool:
            notes.append(f"{category} has no good training images; its references are taken from the test images.")
        else:
            notes.append(f"{category} has no good image to compare with, so it has no figures with references.")
    drawn: list[Sample] = []
    if needs_draw and pool:
        drawn = random.Random(f"{seed}/{category}").sample(pool, min(shots, len(pool)))
        if len(drawn) < shots:
            notes.append(f"{category} has only {len(pool)} good images for {shots} references; all of them are used.")
    used = {sample.id for sample in drawn}
    return _Plan(
        tests=[sample for sample in tests if sample.id not in used],
        references=drawn,
        calibration=[sample for sample in normals if sample.id not in used],
        notes=notes,
    )


def references_of(sample: Sample, drawn: Sequence[Sample], shots: int) -> list[Path]:
    """The files that a test image is compared with: its own reference if it has one, else those drawn."""
    if not shots:
        return []
    return [sample.reference] if sample.reference else [other.image for other in drawn]


def measure_cell(
    dataset: InspectionDataset,
    category: str,
    seed: int,
    method: str,
    settings: DetectSettings,
    extractor: EvidenceExtractor,
    progress: Progress,
) -> Cell:
    """Measures one category under one draw with one encoder, which is called `method` in the report."""
    known = set(dataset.problems)
    todo = plan(dataset, category, settings.shots, seed)
    cell = Cell(category, seed, method, references=[sample.id for sample in todo.references], notes=todo.notes)
    cell.anomalous = sum(sample.anomalous is True for sample in todo.tests)
    cell.normal = len(todo.tests) - cell.anomalous
    detector, tally, seconds = Detector(extractor, dataset), PixelTally(), []
    marked = any(sample.mask_kind == "pixel" for sample in todo.tests)
    label = f"{category}, draw {seed}, {method}"
    for sample in progress.count(todo.tests, label, len(todo.tests)):
        paths = references_of(sample, todo.references, settings.shots)
        if settings.shots and not paths:
            # Nothing to compare with: the image is counted, but has no score.
            continue
        evidence, spent = _extract(dataset, detector, sample, paths)
        if evidence is None:
            continue
        seconds.append(spent)
        cell.images.append(_row(sample, evidence, paths))
        if marked:
            _tally(dataset, tally, sample, evidence.map)
    cell.pixel_auroc, cell.aupro = tally.auroc(), tally.aupro()
    # The median: the first image pays for making shared references ready, which no later one does; where each image has
    # a reference of its own, each pays.
    cell.seconds_per_image = float(np.median(seconds)) if seconds else None
    if settings.false_alarm is not None:
        _score_normals(dataset, detector, todo, cell, settings, progress)
    cell.problems = [(problem.path, problem.reason) for problem in dataset.problems if problem not in known]
    return cell


def _extract(
    dataset: InspectionDataset, detector: Detector, sample: Sample, paths: Sequence[Path]
) -> tuple[Any | None, float]:
    """Evidence of one image and the seconds it took, without reading the file."""
    brightness = dataset.brightness([sample.image, *paths])
    image = dataset.load_file(sample.image, brightness)
    if image is None:
        return None, 0.0
    start = time.perf_counter()
    evidence = detector.extract(image, paths, brightness)
    return evidence, time.perf_counter() - start


def _row(sample: Sample, evidence: Any, references: Sequence[Path]) -> dict[str, Any]:
    return {
        "id": sample.id,
        "image": str(sample.image.resolve()),
        "references": [str(path.resolve()) for path in references],
        "defect": sample.defect,
        "anomalous": sample.anomalous,
        "score": round(float(evidence.score), 6),
        "threshold": round(float(evidence.threshold), 6),
        "verdict": evidence.verdict,
        "confidence": evidence.confidence,
    }


def _tally(dataset: InspectionDataset, tally: PixelTally, sample: Sample, evidence_map: np.ndarray) -> None:
    """Adds an image to the pixel figures if it is known which of its pixels are defective."""
    if sample.anomalous is False:
        tally.add(evidence_map, None)
    elif sample.mask_kind == "pixel":
        height, width = evidence_map.shape
        try:
            mask = load_mask(sample, (width, height))
        except InputError as error:
            dataset.report(sample.masks[0], str(error))
            return
        if mask is not None and mask.any():
            tally.add(evidence_map, mask)
        else:
            dataset.report(
                sample.masks[0], "the mask of this defective image is empty; it is left out of pixel figures"
            )


def _score_normals(
    dataset: InspectionDataset,
    detector: Detector,
    todo: _Plan,
    cell: Cell,
    settings: DetectSettings,
    progress: Progress,
) -> None:
    """Scores the good images that calibrate a threshold, and says which test images it is measured on."""
    good = [row for row in cell.images if not row["anomalous"]]
    own = settings.shots > 0 and not todo.references
    if own:
        # Each test image has its own reference and the training images have none, so the good test images are halved.
        cell.normals = [row["score"] for row in good[::2]]
        cell.held_out = [row["id"] for row in good[1::2]]
        return
    paths = [sample.image for sample in todo.references]
    label = f"{cell.category}, draw {cell.seed}, {cell.method}, calibration"
    for sample in progress.count(todo.calibration, label, len(todo.calibration)):
        evidence, _ = _extract(dataset, detector, sample, paths)
        if evidence is not None:
            cell.normals.append(round(float(evidence.score), 6))
    cell.held_out = [row["id"] for row in good]


# --- the whole run --------------------------------------------------------------------------------------------------


def detect(
    dataset: InspectionDataset, settings: DetectSettings, *, out: Path | None = None, progress: Progress | None = None
) -> DetectReport:
    """Measures detection on a set, cell by cell.

    Args:
        dataset: the set, opened with `open_dataset`.
        settings: what is measured.
        out: folder for images.jsonl (all scores), in which finished cells are kept and found again; None keeps nothing.
        progress: where progress is said; None says nothing.

    Raises:
        InputError: the settings or the folder cannot be used.
    """
    progress = progress or Progress(quiet=True)
    cache = CellCache(out)
    extractors: dict[str, EvidenceExtractor] = {}
    cells: list[Cell] = []
    for category in dataset.categories:
        digest = dataset.data_hash(category)
        for seed in _seeds(dataset, category, settings):
            for name, encoder in settings.columns.items():
                key = cell_key(
                    kind="detect",
                    category=category,
                    seed=seed,
                    encoder=encoder,
                    data=digest,
                    code=code_hash("vlm"),
                    **{k: v for k, v in asdict(settings).items() if k not in ("seeds", "encoders")},
                )
                kept = cache.get(key)
                if kept is None:
                    if name not in extractors:
                        extractors[name] = _extractor(encoder, settings, progress)
                    cell = measure_cell(dataset, category, seed, name, settings, extractors[name], progress)
                    cache.put(key, asdict(cell))
                else:
                    cell = Cell(**{**kept, "method": name})
                    for path, reason in cell.problems:
                        dataset.report(path, reason)
                cells.append(cell)
                progress.say(_summary(cell))
    if out:
        rows = ({"category": c.category, "seed": c.seed, "method": c.method, **row} for c in cells for row in c.images)
        write_rows(out / IMAGES, rows)
    notes = list(dict.fromkeys([*dataset.notes, *(note for cell in cells for note in cell.notes)]))
    return DetectReport(
        dataset.name, settings, dataset.categories, cells, notes, [str(problem) for problem in dataset.problems]
    )


def _seeds(dataset: InspectionDataset, category: str, settings: DetectSettings) -> tuple[int, ...]:
    """The draws of a category: one is enough where nothing is drawn (no references, or each image has its own)."""
    if settings.shots == 0 or all(s.reference is not None for s in dataset.samples(category, "test")):
        return settings.seeds[:1]
    return settings.seeds


def _extractor(encoder: str, settings: DetectSettings, progress: Progress) -> EvidenceExtractor:
    from PIL import Image

    from sage_ad.vlm.evidence.extractor import EvidenceExtractor, EvidenceSettings

    progress.say(f"Loading the encoder {encoder} ...")
    extractor = EvidenceExtractor(EvidenceSettings(encoder, settings.device, tile=settings.tile))
    # Loading and the first, slower pass are no part of the seconds an image.
    extractor.encoder.encode([Image.new("RGB", (64, 64), (128, 128, 128))])
    return extractor


def _summary(cell: Cell) -> str:
    figures = cell.figures()
    return (
        f"{cell.category}, draw {cell.seed}, {cell.method}: AUROC {number(figures['image_auroc'])}, "
        f"{figures['normal']} good and {figures['anomalous']} defective images, "
        f"{number(figures['seconds_per_image'])} s an image"
    )
