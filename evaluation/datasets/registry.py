"""Which readers exist, and which of them fits a folder or file. A reader is imported only when it is used."""

from __future__ import annotations

from collections.abc import Iterable
from importlib import import_module
from pathlib import Path

from sage_ad.evaluation.datasets.common import InspectionDataset
from sage_ad.vlm.errors import InputError

READERS: dict[str, str] = {
    "elpv": "sage_ad.evaluation.datasets.elpv:ELPV",
    "visa": "sage_ad.evaluation.datasets.visa:VisA",
    "btad": "sage_ad.evaluation.datasets.btad:BTAD",
    "mmad": "sage_ad.evaluation.datasets.mmad:MMAD",
    "adpl": "sage_ad.evaluation.datasets.adpl:ADPL",
    "manta": "sage_ad.evaluation.datasets.manta:MANTA",
    "mvtec": "sage_ad.evaluation.datasets.mvtec:MVTec",
    "loco": "sage_ad.evaluation.datasets.mvtec:MVTec",
    "mpdd": "sage_ad.evaluation.datasets.mvtec:MVTec",
    "deeppcb": "sage_ad.evaluation.datasets.deeppcb:DeepPCB",
}
"""Format name to "module:class". Detection asks in this order: particular layouts first, slow looks last."""


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
        f"{root} has the layout of no known data set; arrange it like MVTec AD (<category>/test/good/...) "
        f"or name its format with --format ({', '.join(sorted(READERS))})."
    )


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
