"""Frozen visual features and evidence of labelled parts, computed once and kept on disk.

A part is looked at by the frozen encoder alone (method.md, section 1), so nothing that is trained changes what is kept.
One file a part; a file is whole or absent, so a killed run continues where it stopped.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sage_ad.vlm.errors import InputError
from sage_ad.vlm.files import write_whole

if TYPE_CHECKING:
    from sage_ad.alignment.data.labelled import Picture
    from sage_ad.vlm.evidence.extractor import EvidenceExtractor, MemoryBank
    from sage_ad.vlm.sage.visual_inputs import VisualInputs

_DECIDING = (
    "evidence/patch_matching", "evidence/encoders", "evidence/extractor", "images", "places", "evidence/memory_bank",
    "sage/visual_inputs", "evidence/thresholds", "evidence/description", "evidence/regions",
)  # fmt: skip


class VisualInputCache:
    """What a SAGE model sees of parts, from disk or measured now.

    Args:
        folder: where the files lie; default: a folder in the cache of this project.
        extractor: measures evidence; loaded when first needed.
    """

    def __init__(self, folder: Path | None = None, extractor: EvidenceExtractor | None = None) -> None:
        from sage_ad.vlm.paths import cache_home

        self.folder = folder or cache_home() / "visual_inputs"
        self.measured = 0
        self._extractor = extractor
        self._bank: tuple[str, MemoryBank] | None = None

    def file(self, picture: Picture, reference: Picture | None) -> Path:
        """Where the visual inputs of a part, compared with this reference (or with none), are kept."""
        words = "\n".join((picture.key, reference.key if reference else "", _code()))
        name = hashlib.sha256(words.encode()).hexdigest()[:32]
        return self.folder / name[:2] / f"{name}.safetensors"

    def get(self, picture: Picture, reference: Picture | None) -> VisualInputs:
        """The part as a SAGE model sees it.

        Raises:
            InputError: a picture cannot be read, or the folder cannot be written.
        """
        from safetensors.torch import load_file

        from sage_ad.vlm.sage.visual_inputs import visual_inputs_from_tensors

        file = self.file(picture, reference)
        if not file.exists():
            self._measure(picture, reference, file)
        return visual_inputs_from_tensors(load_file(file))

    def fill(
        self,
        pairs: Sequence[tuple[Picture, Picture | None]],
        progress: Callable[[int, int], None] | None = None,
    ) -> int:
        """Measures what is not kept yet; returns how many were measured.

        Args:
            pairs: pictures with their references.
            progress: called with how many are done, and of how many.
        """
        todo = [(picture, reference) for picture, reference in pairs if not self.file(picture, reference).exists()]
        # Parts that share a reference stand together: its bank is made once.
        todo.sort(key=lambda pair: pair[1].key if pair[1] else "")
        for number, (picture, reference) in enumerate(todo):
            file = self.file(picture, reference)
            if not file.exists():
                self._measure(picture, reference, file)
            if progress:
                progress(number + 1, len(todo))
        return len(todo)

    def _measure(self, picture: Picture, reference: Picture | None, file: Path) -> None:
        from safetensors.torch import save

        from sage_ad.vlm.evidence.description import describe_regions
        from sage_ad.vlm.sage.visual_inputs import visual_input_tensors, visual_inputs_of

        if self._extractor is None:
            from sage_ad.vlm.evidence.extractor import EvidenceExtractor

            self._extractor = EvidenceExtractor()
        image, good = picture.load(), [] if reference is None else [reference.load()]
        evidence = self._extractor.extract(image, self._prepared(reference))
        self.measured += 1
        evidence.regions, described = describe_regions(image, evidence.map, evidence.regions[:1], good)
        first = "".join(own.in_words() for own in described)
        try:
            write_whole(file, save(visual_input_tensors(visual_inputs_of(evidence, first))))
        except OSError as error:
            raise InputError(
                f"The features of {picture.path or picture.product} cannot be kept in {self.folder} "
                f"({error.strerror or error}); free space there or set SAGE_CACHE to another folder."
            ) from None

    def _prepared(self, reference: Picture | None) -> Any:
        if reference is None:
            return None
        if self._bank is None or self._bank[0] != reference.key:
            assert self._extractor is not None
            self._bank = (reference.key, self._extractor.prepare([reference.load()]))
        return self._bank[1]


@cache
def _code() -> str:
    """A digest of everything that decides the visual inputs: after a change (of more than layout) nothing old is read."""
    import ast

    from sage_ad import vlm

    folder = Path(vlm.__file__).parent
    digest = hashlib.sha256()
    for name in _DECIDING:
        digest.update(ast.dump(ast.parse((folder / f"{name}.py").read_bytes())).encode())
    return digest.hexdigest()
