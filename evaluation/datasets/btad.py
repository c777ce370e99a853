"""BTAD: the folders of MVTec AD under the names `ok` and `ko`, bmp and png mixed."""

from __future__ import annotations

from pathlib import Path

from sage_ad.evaluation.datasets.common import child, has_images
from sage_ad.evaluation.datasets.mvtec import MVTec, find_category_folders, is_category


class BTAD(MVTec):
    """`<category>/train/ok`, `test/{ok,ko}`, `ground_truth/ko/<stem>.png`; `ko` does not say what is wrong."""

    format = "btad"
    layout = "<category>/train/ok/*, <category>/test/ok/*, <category>/test/ko/*, <category>/ground_truth/ko/<stem>.png"

    @classmethod
    def recognises(cls, root: Path) -> bool:
        folders = find_category_folders(root, is_category).values() if root.is_dir() else ()
        parts = (
            child(folder, *names) for folder in folders for names in (("train", "ok"), ("test", "ko"), ("test", "ok"))
        )
        return any(part and has_images(part) for part in parts)
