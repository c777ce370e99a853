"""One process of two whose model is split between them by FSDP 2, for test_saving.py: no GPU, gloo in its place."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from accelerate import Accelerator, FullyShardedDataParallelPlugin
from accelerate.utils import DistributedType
from peft import get_peft_model
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from sage_ad.alignment.edpo.loading import load_for_alignment, lora
from sage_ad.alignment.edpo.run import EDPORun, gathered_weights, save_model, whole_model


def trained(run: EDPORun) -> Any:
    """The model of a run with weights as training might leave them: the same in every process."""
    loaded = load_for_alignment(run.model)
    model = get_peft_model(loaded.model, lora(loaded, run.lora_rank)) if run.lora_rank else loaded.model
    torch.manual_seed(7)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.requires_grad:
                weight.normal_(std=0.1)
    return model


def main(rank: int, folder: Path, lora_rank: int) -> None:
    """Trains nothing: splits the model, then saves it as `align` does at its end."""
    os.environ["ACCELERATE_USE_CPU"] = "true"
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    run = EDPORun(data=(), out=folder / "run", model=str(folder / "tiny"), lora_rank=lora_rank, device="cpu")
    model, mesh = trained(run), init_device_mesh("cpu", (2,))
    inner = model.get_base_model() if lora_rank else model
    for layer in inner.model.layers:
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)
    assert all(isinstance(weight, DTensor) for weight in model.parameters())
    accelerator = Accelerator(cpu=True)
    # accelerate takes FSDP on devices alone; what it does with a split model is the same here.
    accelerator.state.fsdp_plugin = FullyShardedDataParallelPlugin(fsdp_version=2)
    accelerator.state.distributed_type = DistributedType.FSDP
    trainer: Any = SimpleNamespace(
        accelerator=accelerator, model=model, is_fsdp_enabled=True, is_deepspeed_enabled=False
    )
    weights = gathered_weights(trainer)
    if rank == 0:
        save_model(whole_model(run, trainer, weights), load_for_alignment(run.model), folder / "saved", {})
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()
