"""Pictures to patch features: EfficientNet-Lite2 from its package, or any Hugging Face vision model by name.

An encoder knows nothing of defects. It turns a picture into a grid of unit-length vectors, one for each patch.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np

from sage_ad.vlm.devices import pick_device
from sage_ad.vlm.errors import BackendError, InputError

if TYPE_CHECKING:
    import torch
    from PIL import Image

DEFAULT_ENCODER = "efficientnet-lite2"
DEFAULT_SIZE = 320
_MAX_ASPECT = 4.0


@dataclass(frozen=True)
class PatchFeatures:
    """Patch features of one or several pictures.

    Attributes:
        maps: for each picture a float32 tensor (h, w, C) of unit-length vectors; pictures of unlike shape have
            unlike grids.
        context: for each picture a float32 tensor (h, w, D) of raw features of all depths, for the defect head; None
            if it was not asked for or the encoder has none.
    """

    maps: list[torch.Tensor]
    context: list[torch.Tensor] | None = None

    def __len__(self) -> int:
        return len(self.maps)

    def __getitem__(self, index: int) -> torch.Tensor:
        return self.maps[index]

    @property
    def channels(self) -> int:
        """Length C of a patch's vector."""
        return int(self.maps[0].shape[-1])

    def tokens(self, index: int = 0) -> torch.Tensor:
        """Patches of one picture row by row, (h * w, C)."""
        return self.maps[index].flatten(0, 1)

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
        device: where it runs.
        emphasis: (C,) weights of the channels under which unit-length vectors keep their length, finer scales first;
            None to take all scales alike.
    """

    name: str
    device: str
    emphasis: torch.Tensor | None

    def encode(
        self, images: Sequence[Image.Image], size: int | None = None, *, context: bool = False
    ) -> PatchFeatures: ...


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
    import torch
    from PIL import Image

    resized = image.convert("RGB").resize((width, height), Image.Resampling.BICUBIC)
    values: np.ndarray = np.asarray(resized, dtype=np.float32) / np.float32(255)
    values = (values - np.asarray(mean, np.float32)) / np.asarray(std, np.float32)
    return torch.from_numpy(np.ascontiguousarray(values.transpose(2, 0, 1)))[None]


class EfficientNetLite2:
    """EfficientNet-Lite2 with ImageNet weights, cut off after stride 16.

    A patch is one cell of the stride-8 grid: its stride-8 vector beside the stride-16 vector at the same place, both of
    unit length before they are joined, so that fine texture and wider context weigh the same. `emphasis` weighs the
    finer scale three to one, which finds small flaws better (docs/detection.md).
    """

    name = DEFAULT_ENCODER

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
        self._taps = _last_blocks(model, (4, 8, 16))
        self._blocks = model._blocks[: max(self._taps) + 1]
        parts: list[Any] = [self._stem, self._blocks]
        for part in parts:
            # On CPUs the convolutions run nearly twice as fast with channels last.
            part.to(device=device, memory_format=torch.channels_last)
        shares = torch.cat([torch.full((48,), 0.75), torch.full((120,), 0.25)])
        self.emphasis: torch.Tensor | None = (2 * shares).sqrt().to(device)

    def encode(self, images: Sequence[Image.Image], size: int | None = None, *, context: bool = False) -> PatchFeatures:
        """Patch features, one grid of (h, w, 168) for each picture; `size` is the side in pixels of a square one."""
        import torch

        maps, contexts = [], []
        # One by one: on CPUs a batch is no faster, and pictures may have unlike shapes.
        for image in images:
            width, height = working_size(*image.size, size or DEFAULT_SIZE, multiple=16)
            with torch.inference_mode():
                levels = self.levels(to_tensor(image, width, height))
                maps.append(_joined([levels["8"], levels["16"]]))
                if context:
                    contexts.append(_context(levels))
        return PatchFeatures(maps, contexts or None)

    def levels(self, pixels: torch.Tensor) -> dict[str, torch.Tensor]:
        """Raw features of normalised pixels (1, 3, H, W) at the end of each stage.

        Returns:
            "4": (1, 24, H/4, W/4), "8": (1, 48, H/8, W/8), "16 early": (1, 88, H/16, W/16), "16": (1, 120, H/16, W/16).
        """
        import torch

        x = self._stem(pixels.to(self.device, memory_format=torch.channels_last))
        found = {}
        for index, block in enumerate(self._blocks):
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


def _context(levels: dict[str, torch.Tensor]) -> torch.Tensor:
    """Raw features of all depths on the stride-8 grid, (h, w, 304): stride 4 by its mean and its maximum."""
    import torch
    import torch.nn.functional as F

    fine, grid = levels["4"], (int(levels["8"].shape[-2]), int(levels["8"].shape[-1]))
    parts = [F.adaptive_avg_pool2d(fine, grid), F.adaptive_max_pool2d(fine, grid), levels["8"]]
    parts += [_resized(levels[key], grid) for key in ("16 early", "16")]
    return torch.cat(parts, dim=1)[0].permute(1, 2, 0).contiguous()


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
    """A Hugging Face vision model (DINOv2, SigLIP, CLIP, ViT, ConvNeXt, ...) as encoder: its last hidden state."""

    def __init__(self, name: str, device: str = "cpu") -> None:
        from transformers import AutoModel

        self.name = name
        self.device = device
        self.emphasis: torch.Tensor | None = None
        try:
            model = AutoModel.from_pretrained(name, trust_remote_code=False)
        except (OSError, ValueError, KeyError) as error:
            first = " ".join(str(error).split())[:160]
            raise InputError(
                f"The encoder {name!r} cannot be loaded ({first}); give {DEFAULT_ENCODER!r}, or the name or folder "
                "of a Hugging Face vision model."
            ) from None
        # Image-text models keep their eyes in `vision_model`.
        self._model = getattr(model, "vision_model", model).to(device).eval().requires_grad_(False)
        self._parameters = inspect.signature(self._model.forward).parameters
        if "pixel_values" not in self._parameters:
            raise InputError(f"The model {name!r} reads no pictures; give a vision model such as DINOv2 or SigLIP.")
        self._patch, self._image_size = _patch_and_size(self._model.config)
        self._mean, self._std = _normalisation(name)

    def encode(self, images: Sequence[Image.Image], size: int | None = None, *, context: bool = False) -> PatchFeatures:
        """Patch features, one grid of (h, w, C) for each picture; models with fixed positions ignore `size`.

        `context` is accepted and not served: the defect head knows the embedded encoder only.
        """
        import torch
        import torch.nn.functional as F

        maps = []
        for image in images:
            width, height, extra = self._input_shape(image, size or DEFAULT_SIZE)
            pixels = to_tensor(image, width, height, self._mean, self._std).to(self.device)
            with torch.inference_mode():
                state = self._model(pixel_values=pixels, **extra).last_hidden_state
            if state.ndim == 4:
                grid = state[0].permute(1, 2, 0)
            else:
                rows, columns = height // self._patch, width // self._patch
                # Class and register tokens come first in every model of this kind.
                grid = state[0, state.shape[1] - rows * columns :].reshape(rows, columns, -1)
            maps.append(F.normalize(grid.float(), dim=-1).contiguous())
        return PatchFeatures(maps)

    def _input_shape(self, image: Image.Image, size: int) -> tuple[int, int, dict[str, bool]]:
        if "interpolate_pos_encoding" in self._parameters:
            return *working_size(*image.size, size, self._patch), {"interpolate_pos_encoding": True}
        if self._image_size is None or str(getattr(self._model.config, "model_type", "")).startswith("dinov"):
            return *working_size(*image.size, size, self._patch), {}
        return self._image_size, self._image_size, {}


def _patch_and_size(config: Any) -> tuple[int, int | None]:
    """Patch side and fixed picture side of a model's configuration (no patches: a convolutional net of stride 32)."""
    patch, side = getattr(config, "patch_size", None), getattr(config, "image_size", None)
    patch = patch[0] if isinstance(patch, list | tuple) else patch
    side = side[0] if isinstance(side, list | tuple) else side
    if str(getattr(config, "model_type", "")).startswith(("convnext", "resnet")):
        return 32, None
    return int(patch or 32), int(side) if side else None


def _normalisation(name: str) -> tuple[Sequence[float], Sequence[float]]:
    """Mean and spread by channel that a model was trained with; half and half where it does not say."""
    from transformers import AutoImageProcessor

    try:
        processor = AutoImageProcessor.from_pretrained(name, use_fast=False, trust_remote_code=False)
    except (OSError, ValueError, ImportError):
        return (0.5,) * 3, (0.5,) * 3
    return getattr(processor, "image_mean", None) or (0.5,) * 3, getattr(processor, "image_std", None) or (0.5,) * 3


def require_same_encoder(left: str, right: str) -> None:
    """Raises `BackendError` when features of two unlike encoders would be compared."""
    if left != right:
        raise BackendError(
            f"References were prepared with {left!r} but the image is read with {right!r}; prepare them again."
        )
