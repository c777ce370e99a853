"""Devices: "auto" becomes concrete, and one that is not there is refused by name."""

from __future__ import annotations

import pytest
import torch

from sage_ad.vlm.devices import pick_device
from sage_ad.vlm.errors import InputError


def test_devices() -> None:
    assert pick_device("cpu") == "cpu"
    assert pick_device("auto") in ("cpu", "cuda")
    for name in ("tpu", "cuda:x"):
        with pytest.raises(InputError, match=f"no device '{name}'"):
            pick_device(name)
    with pytest.raises(InputError, match="torch sees"):
        pick_device(f"cuda:{torch.cuda.device_count()}")
