"""Which readers exist, and which of them fits a folder or file. A reader is imported only when it is used."""

from __future__ import annotations

from collections.abc import Iterable
from importlib import import_module
from pathlib import Path

from sage_ad.evaluation.datasets.common import InspectionDataset, subfolders
from sage_ad.vlm.errors import InputError

READERS: dict[str, str] = {
    name: f"sage_ad.evaluation.datasets.{place}"
    for name, place in {
        "elpv": "elpv:ELPV",
        "visa": "visa:VisA",
        "realiad": "realiad:RealIAD",
        "yolo": "yolo:YOLO",
        "coco": "coco:COCO",
        "mvtec3d": "mvtec_3d:MVTec3D",
        "ad2": "mvtec_ad2:MVTecAD2",
        "dagm": "beside:DAGM",
        "kolektor": "beside:Kolektor",
        "btad": "btad:BTAD",
        "mmad": "mmad:MMAD",
        "adpl": "adpl:ADPL",
        "manta": "manta:MANTA",
        "mvtec": "mvtec:MVTec",
        "loco": "mvtec:MVTec",
        "mpdd": "mvtec:MVTec",
        "deeppcb": "deeppcb:DeepPCB",
        "folders": "class_folders:ClassFolders",
    }.items()
}
"""Format name to "module:class". Detection asks in this order: particular layouts first, slow looks last."""


SHOWN = 8


def reader(name: str) -> type[InspectionDataset]:
    """The reader class of a format.

    Raises:
        InputError: no such format; the message lists those that exist.
    """
    if name not in READERS:
        raise InputError(f"There is no data set format {name!r}; use one of: {', '.join(sorted(READERS))}.")
    module, _, attribute = READERS[name].partition(":")
    return getattr(import_module(module), attribute)


def detect_format(path: str | Path) -> str:
    """Name of the first format whose reader recognises the folder or file.

    Raises:
        InputError: the path does not exist, or no reader recognises it.
    """
    root = Path(path)
    if not root.exists():
        raise InputError(f"There is no data set at {root}; check the path.")
    for name in READERS:
        if reader(name).recognises(root):
            return name
    raise InputError(
        f"{root} has the layout of no known data set{_seen(root)}; arrange it like MVTec AD (<category>/train/good/..., "
        f"<category>/test/<defect>/...), or as good/... and <defect>/..., or name its format with --format "
        f"({', '.join(sorted(READERS))})."
    )


def _seen(root: Path) -> str:
    """The folders that were found, for the message."""
    names = [folder.name for folder in subfolders(root)]
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f" (it has the folders {', '.join(names[:SHOWN])}{more})" if names else ""


def open_dataset(
    path: str | Path, format: str | None = None, categories: Iterable[str] | None = None
) -> InspectionDataset:
    """Opens a labelled inspection set.

    Args:
        path: its folder (the set, or one category of it), or its annotation file.
        format: one of `READERS`; None looks at the files.
        categories: read only these.

    Raises:
        InputError: no such path, format or category; the message lists what exists.
    """
    root = Path(path)
    name = detect_format(root) if format is None else format
    chosen = reader(name)
    if not root.exists():
        raise InputError(f"There is no data set at {root}; check the path.")
    if format is not None and not chosen.recognises(root):
        raise InputError(f"{root} has not the layout of {name!r}: {chosen.layout}; check the path or the --format.")
    return chosen(root, categories)
