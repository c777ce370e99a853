"""elpv: solar cells in electroluminescence, graded by the probability of a defect (package `elpv-dataset`)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from sage_ad.evaluation.datasets.common import InspectionDataset, held_out
from sage_ad.evaluation.datasets.sample import GOOD, Sample

TEST_EVERY = 2
"""The set has no split: every second good cell is for testing."""


def find_labels(root: Path) -> Path | None:
    """labels.csv with a folder `images` beside it: in the folder itself, or in its `data` (as the package has it)."""
    for folder in (root, root / "data"):
        if (folder / "labels.csv").is_file() and (folder / "images").is_dir():
            return folder / "labels.csv"
    return None


class ELPV(InspectionDataset):
    """`labels.csv`: path, probability in {0, 1/3, 2/3, 1}, mono or poly. Only 0 (good) and 1 (defective) are labels."""

    format = "elpv"
    layout = "images/cellNNNN.png and labels.csv with path, defect probability and cell type"

    @classmethod
    def recognises(cls, root: Path) -> bool:
        return find_labels(root) is not None

    def _find_categories(self) -> list[str]:
        labels = find_labels(self.root)
        self._rows: dict[str, list[tuple[Path, float]]] = {}
        self._doubtful: dict[str, int] = {}
        for number, line in enumerate(labels.read_text(encoding="utf-8-sig").splitlines() if labels else [], start=1):
            fields = line.replace(",", " ").split()
            if not fields or fields[0].lower() == "path":
                continue
            try:
                name, probability, kind = fields[0], float(fields[1]), fields[2]
            except (IndexError, ValueError):
                self.report("labels.csv", f"line {number} is not: path, probability, type")
                continue
            assert labels is not None
            self._rows.setdefault(kind, []).append((labels.parent / name, probability))
        for kind, rows in self._rows.items():
            doubtful = sum(0 < probability < 1 for _, probability in rows)
            if doubtful:
                self.notes.append(f"{doubtful} {kind} cells with a doubtful label (between 0 and 1) are left out.")
        if self._rows:
            self.notes.append("elpv has no split, so every second good cell is kept for testing.")
        return sorted(self._rows)

    def _records(self, category: str) -> Iterator[Sample]:
        position = 0
        for image, probability in self._rows[category]:
            if 0 < probability < 1:
                continue
            anomalous = probability > 0
            yield Sample(
                image=image,
                category=category,
                split="test" if anomalous else held_out(position, TEST_EVERY),
                defect="defective" if anomalous else GOOD,
                anomalous=anomalous,
                meta={"probability": probability},
                id=f"{category}/{image.name}",
            )
            position += not anomalous
