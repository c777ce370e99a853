"""Pictures to patch features: EfficientNet-Lite2 from its package, or any Hugging Face vision model by name.

An encoder knows nothing of defects. It turns a picture into a grid of unit-length vectors, one for each patch.
"""

from __future__ import annotations

import contextlib
import inspect
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from sage_ad.vlm.devices import pick_device
from sage_ad.vlm.errors import BackendError, InputError, one_line
from sage_ad.vlm.weights.hub import hub_answers

if TYPE_CHECKING:
    import torch
    from PIL import Image

DEFAULT_ENCODER = "efficientnet-lite2"
DEFAULT_SIZE = 320
DINO_PATCHES = 32
"""Patches along a side that DINO is given: 448 pixels for DINOv2, as published one-shot results take it, 512 for DINOv3."""

COARSEST_STRIDE = 32
"""Sides that networks in stages are given are multiples of it."""

ENCODER_HELP = (
    "Visual encoder: efficientnet-lite2 (embedded), or the name or folder of a Hugging Face vision model (DINOv2, DINOv3, "
    "SigLIP 2, ConvNeXt, ...), which needs references."
)
_MAX_ASPECT = 4.0


@dataclass(frozen=True)
class PatchFeatures:
    """Patch features of one or several pictures.

    Attributes:
        maps: for each picture a float32 tensor (h, w, C) of unit-length vectors; pictures of unlike shape have
            unlike grids.
    """

    maps: list[torch.Tensor]

    def __len__(self) -> int:
        return len(self.maps)

    def __getitem__(self, index: int) -> torch.Tensor:
        return self.maps[index]

    def resampled(self, side: int) -> torch.Tensor:
        """All pictures on one square grid, (n, side, side, C), unit length, for models that want a fixed number."""
        import torch
        import torch.nn.functional as F

        grids = [F.adaptive_avg_pool2d(m.permute(2, 0, 1)[None], side).permute(0, 2, 3, 1) for m in self.maps]
        return F.normalize(torch.cat(grids), dim=-1)


@runtime_checkable
class PatchEncoder(Protocol):
    """Anything that turns pictures into patch features.

    Attributes:
        name: name that `load_encoder` knows it by.
        version: tells models of one name apart.
        device: where it runs.
        size: side in pixels at which it sees a square picture unless another is asked for.
        offset: cells by which the middle of what a patch sees lies left of and above the middle of its cell.
    """

    name: str
    version: str
    device: str
    size: int
    offset: float

    def encode(self, images: Sequence[Image.Image], size: int | None = None) -> PatchFeatures: ...


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Runs torch on one CPU thread inside the block.

    The embedded encoder's layers are too small to share out: two threads gain a fifth on an idle machine, and wait for each
    other five times as long on a busy one (docs/detection.md).
    """
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def load_encoder(name: str = DEFAULT_ENCODER, device: str = "auto") -> PatchEncoder:
    """Loads an encoder by name.

    Args:
        name: "efficientnet-lite2" (from its package, no network), or the name or folder of a Hugging Face vision model.
        device: "auto", "cpu" or "cuda".

    Raises:
        InputError: the device, the name or the folder is unusable.
    """
    if name == DEFAULT_ENCODER:
        return EfficientNetLite2(pick_device(device))
    return HuggingFaceEncoder(name, pick_device(device))


def working_size(width: int, height: int, size: int, multiple: int) -> tuple[int, int]:
    """Width and height at which a picture is encoded: its shape kept, about `size` squared pixels, whole patches."""
    aspect = min(_MAX_ASPECT, max(1 / _MAX_ASPECT, width / height))
    across = size * aspect**0.5
    down = size / aspect**0.5
    return max(multiple, round(across / multiple) * multiple), max(multiple, round(down / multiple) * multiple)


def to_tensor(
    image: Image.Image, width: int, height: int, mean: Sequence[float] = (0.5,) * 3, std: Sequence[float] = (0.5,) * 3
) -> torch.Tensor:
    """A picture as float32 tensor (1, 3, height, width), resized (bicubic, antialiased) and normalised by channel."""
    import numpy as np
    import torch
    from PIL import Image

    resized = image.convert("RGB").resize((width, height), Image.Resampling.BICUBIC)
    values: np.ndarray = np.asarray(resized, dtype=np.float32) / np.float32(255)
    values = (values - np.asarray(mean, np.float32)) / np.asarray(std, np.float32)
    return torch.from_numpy(np.ascontiguousarray(values.transpose(2, 0, 1)))[None]


class EfficientNetLite2:
    """EfficientNet-Lite2 with ImageNet weights, read up to stride 16.

    A patch is one cell of the stride-8 grid: its stride-8 vector beside the stride-16 vector at the same place, both of
    unit length before they are joined, so that fine texture and wider context weigh the same.
    """

    name = DEFAULT_ENCODER
    version = DEFAULT_ENCODER
    size = DEFAULT_SIZE
    offset = 0.9
    """The padding of its strided convolutions moves what a patch sees: a spot on noise shows four pixels of the network's
    input too far right and down at stride 8, ten at stride 16; the two weigh the same (tests/vlm/evidence/test_encoders.py)."""

    def __init__(self, device: str = "cpu") -> None:
        import torch
        from efficientnet_lite_pytorch import EfficientNet

        from sage_ad.vlm.weights.embedded import efficientnet_lite2_file

        self.device = device
        model = EfficientNet.from_name("efficientnet-lite2")
        state = torch.load(efficientnet_lite2_file(), map_location="cpu", weights_only=True)
        model.load_state_dict(state)
        model.eval().requires_grad_(False)
        self._stem = torch.nn.Sequential(model._conv_stem, model._bn0, torch.nn.ReLU6())
        # What lies behind stride 16 is read for names of defects alone (`sage_ad.vlm.evidence.region_features`).
        self._taps = {index: name for index, name in _last_blocks(model, (8, 16, 32)).items() if name != "32"}
        self._blocks = model._blocks[: max(self._taps) + 1]
        parts: list[Any] = [self._stem, self._blocks]
        for part in parts:
            # On CPUs the convolutions run nearly twice as fast with channels last.
            part.to(device=device, memory_format=torch.channels_last)

    def encode(self, images: Sequence[Image.Image], size: int | None = None) -> PatchFeatures:
        """Patch features, one grid of (h, w, 168) for each picture; `size` is the side in pixels of a square one."""
        import torch

        maps = []
        # One by one: on CPUs a batch is no faster, and pictures may have unlike shapes.
        for image in images:
            width, height = working_size(*image.size, size or DEFAULT_SIZE, multiple=16)
            with torch.inference_mode():
                levels = self.levels(to_tensor(image, width, height))
                maps.append(_joined([levels["8"], levels["16"]]))
        return PatchFeatures(maps)

    def levels(self, pixels: torch.Tensor, until: str = "16") -> dict[str, torch.Tensor]:
        """Raw features of normalised pixels (1, 3, H, W) at the end of each stage up to the named one.

        Returns:
            "8": (1, 48, H/8, W/8), "16 early": (1, 88, H/16, W/16), "16": (1, 120, H/16, W/16),
            "32 early": (1, 208, H/32, W/32).
        """
        import torch

        x = self._stem(pixels.to(self.device, memory_format=torch.channels_last))
        found: dict[str, torch.Tensor] = {}
        for index, block in enumerate(self._blocks):
            if until in found:
                break
            x = block(x)
            if index in self._taps:
                found[self._taps[index]] = x
        return found


def _joined(levels: list[torch.Tensor]) -> torch.Tensor:
    """Unit-length vectors of several scales side by side on the finest grid, (h, w, C), again of unit length."""
    import torch
    import torch.nn.functional as F

    unit = [F.normalize(level, dim=1) for level in levels]
    grid = unit[0].shape[-2:]
    unit = [unit[0]] + [F.normalize(_resized(level, grid), dim=1) for level in unit[1:]]
    return (torch.cat(unit, dim=1) / len(unit) ** 0.5)[0].permute(1, 2, 0).contiguous()


def _resized(level: torch.Tensor, grid: Sequence[int]) -> torch.Tensor:
    import torch.nn.functional as F

    return F.interpolate(level, size=tuple(grid), mode="bilinear", align_corners=False)


def _last_blocks(model: Any, wanted: Sequence[int]) -> dict[int, str]:
    """Index and name of the last block of each stage at the wanted strides (the stem already halves the picture)."""
    stride, stages = 2, {}
    for index, block in enumerate(model._blocks):
        step = block._block_args.stride
        stride *= step[0] if isinstance(step, list | tuple) else step
        stages[stride, block._block_args.output_filters] = index
    found: dict[int, str] = {}
    for s in wanted:
        ends = [index for (at, _), index in stages.items() if at == s]
        found |= dict.fromkeys(ends[:-1], f"{s} early") | {ends[-1]: f"{s}"}
    return found


class HuggingFaceEncoder:
    """A Hugging Face vision model as encoder: DINOv2, DINOv3, SigLIP, SigLIP 2, CLIP, ViT, ConvNeXt, Swin, ResNet, ...

    Which layers it is read at follows its family: networks in stages (ConvNeXt) at strides 8 and 16, as the embedded one;
    DINO at its last layer, whose patches are trained to be compared; other transformers at half and three quarters of
    their depth, since their last layer serves one answer for the whole picture. Class and register tokens are left out.

    Raises:
        InputError: it cannot be found, or is no vision model.
    """

    offset = 0.0

    def __init__(self, name: str, device: str = "cpu") -> None:
        model, self._mean, self._std = _load_vision_model(name)
        self.name, self.device = name, device
        # Image-text models keep their vision part in `vision_model`.
        self._model = getattr(model, "vision_model", model).to(device).eval().requires_grad_(False)
        self._inputs = inspect.signature(self._model.forward).parameters
        if "pixel_values" not in self._inputs:
            raise InputError(f"The model {name!r} reads no pictures; give a vision model such as DINOv2 or SigLIP 2.")
        config = self._model.config
        stamps = sorted((one.name, one.stat().st_size, one.stat().st_mtime_ns) for one in Path(name).glob("*.*"))
        self.version = f"{name} {getattr(model.config, '_commit_hash', None)} {stamps}"
        kind = str(config.model_type)
        self._dino, self._staged = kind.startswith("dino"), hasattr(config, "depths")
        self._multiple = COARSEST_STRIDE if self._staged else _side(getattr(config, "patch_size", None))
        if not self._multiple:
            raise InputError(
                f"The model {name!r} ({kind}) has neither patches nor stages; give one such as DINOv2 or ConvNeXt."
            )
        trained_at = _side(getattr(config, "image_size", None)) or self._multiple * math.isqrt(
            getattr(config, "num_patches", None) or DINO_PATCHES**2
        )
        free = self._staged or self._dino or {"interpolate_pos_encoding", "spatial_shapes"} & self._inputs.keys()
        self._fixed = None if free else trained_at
        self.size = DEFAULT_SIZE if self._staged else DINO_PATCHES * self._multiple if self._dino else trained_at

    def encode(self, images: Sequence[Image.Image], size: int | None = None) -> PatchFeatures:
        """Patch features, one grid of (h, w, C) for each picture; models with fixed positions ignore `size`."""
        import torch

        maps = []
        for image in images:
            width = height = self._fixed or 0
            if not self._fixed:
                width, height = working_size(*image.size, size or self.size, self._multiple)
            pixels = to_tensor(image, width, height, self._mean, self._std).to(self.device)
            with torch.inference_mode():
                maps.append(_joined(self._levels(pixels, height // self._multiple, width // self._multiple)).float())
        return PatchFeatures(maps)

    def _levels(self, pixels: torch.Tensor, rows: int, columns: int) -> list[torch.Tensor]:
        """Features of the layers that are read, (1, C, h, w) each, the finest first."""
        given: dict[str, Any] = {"pixel_values": pixels}
        if "interpolate_pos_encoding" in self._inputs:
            given["interpolate_pos_encoding"] = True
        elif "spatial_shapes" in self._inputs:
            given = _as_patches(pixels, rows, columns)
        found = self._model(**given, output_hidden_states=True)
        if self._staged:
            maps = getattr(found, "reshaped_hidden_states", None) or found.hidden_states
            strides = {pixels.shape[-1] // state.shape[-1]: state for state in maps}
            return [strides[8], strides[16]]
        depth = len(found.hidden_states) - 1
        states = [found.hidden_states[math.ceil(depth * share)] for share in (0.5, 0.75)]
        if self._dino:
            states = [found.last_hidden_state]
        # Class and register tokens come first in every model of this kind.
        patches = [state[:, state.shape[1] - rows * columns :] for state in states]
        return [state.transpose(1, 2).reshape(1, -1, rows, columns) for state in patches]


def _load_vision_model(name: str) -> tuple[Any, Sequence[float], Sequence[float]]:
    """The model, and mean and spread by channel that it was trained with; half and half where it does not say."""
    import torch
    from transformers import AutoModel, BaseImageProcessor

    reason = "the Hugging Face hub cannot be reached"
    for local in (True, False):
        if not local and (Path(name).exists() or not hub_answers()):
            break  # the library itself would try for a minute
        try:
            model = AutoModel.from_pretrained(
                name, dtype=torch.float32, trust_remote_code=False, local_files_only=local
            )
        except (OSError, ValueError, KeyError) as error:
            reason = one_line(error)[:160]
            continue
        # Read, not constructed: the processors of some models need torchvision.
        try:
            given, _ = BaseImageProcessor.get_image_processor_dict(name, local_files_only=local)
        except OSError:
            given = {}
        return model, given.get("image_mean") or (0.5,) * 3, given.get("image_std") or (0.5,) * 3
    raise InputError(
        f"The encoder {name!r} cannot be loaded ({reason}); give {DEFAULT_ENCODER!r}, or the name or folder of a Hugging "
        "Face vision model."
    )


def _as_patches(pixels: torch.Tensor, rows: int, columns: int) -> dict[str, torch.Tensor]:
    """(1, 3, H, W) as SigLIP 2 of any resolution takes it: a row for each patch."""
    import torch

    cut = pixels.reshape(3, rows, pixels.shape[2] // rows, columns, pixels.shape[3] // columns).permute(1, 3, 2, 4, 0)
    ones = torch.ones((1, rows * columns), dtype=torch.long, device=pixels.device)
    shape = torch.tensor([[rows, columns]], device=pixels.device)
    return {
        "pixel_values": cut.reshape(1, rows * columns, -1),
        "pixel_attention_mask": ones,
        "spatial_shapes": shape,
    }


def _side(given: Any) -> int:
    """A side that a configuration gives as one number or as two; 0 where it gives none."""
    return int((given[0] if isinstance(given, list | tuple) else given) or 0)


def require_same_encoder(left: str, right: str) -> None:
    """Raises `BackendError` when features of two unlike encoders would be compared."""
    if left != right:
        raise BackendError(
            f"References were prepared with {left!r} but the image is read with {right!r}; prepare them again."
        )
