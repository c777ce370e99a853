"""Solar cells of the package elpv-dataset, which the timings inspect."""

from __future__ import annotations

import importlib.util
from pathlib import Path


def cell_folder() -> Path:
    """Its data: `images`, and `labels.csv`."""
    spec = importlib.util.find_spec("elpv_dataset")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("The package elpv-dataset is not installed; run make setup.")
    return Path(next(iter(spec.submodule_search_locations))) / "data"


def solar_cells(*names: str) -> list[Path]:
    """Pictures by name."""
    return [cell_folder() / "images" / name for name in names]
