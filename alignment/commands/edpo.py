"""`sage-train edpo`: stage 2, from scored answers to an aligned model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sage_ad.vlm.commandline import print_json, quiet_libraries


def edpo_command(
    data: Annotated[
        list[Path], typer.Option(help="Scored answers (sage-train score), or TRL's columns; may be given again.")
    ],
    out: Annotated[Path, typer.Option(help="Folder for checkpoints, logs (TensorBoard) and the aligned model.")],
    model: Annotated[
        str, typer.Option(help="Stage 1 model: sage-tiny-sft, a folder, or a Hugging Face name.")
    ] = "sage-tiny-sft",
    eta: Annotated[float, typer.Option(help="Weight of the entropy gap; 0 is DPO on the same pairs.")] = 1.0,
    beta: Annotated[float, typer.Option(help="How strongly the reference holds the model back.")] = 0.1,
    entropy: Annotated[str, typer.Option(help="Reading of Eq. 4: term or surprisal.")] = "term",
    pairs: Annotated[str, typer.Option(help="Pairs of each list: edpo, extreme, adjacent or all.")] = "edpo",
    reference_free: Annotated[
        bool, typer.Option("--reference-free", help="Eq. 6 as printed, without a reference.")
    ] = False,
    sft_weight: Annotated[
        float,
        typer.Option(help="Adds the best answers' own likelihood to the loss, so that it does not sink with the rest."),
    ] = 0.0,
    steps: Annotated[int, typer.Option(help="Optimiser steps; 0 goes through the data --epochs times.")] = 0,
    epochs: Annotated[float, typer.Option(help="Times through the data.")] = 1.0,
    batch: Annotated[int, typer.Option(help="Questions that go through the model together (a process).")] = 1,
    accumulate: Annotated[int, typer.Option(help="Batches that make one step.")] = 4,
    learning_rate: Annotated[float, typer.Option(help="Peak learning rate.")] = 5e-5,
    lora_rank: Annotated[int, typer.Option(help="Rank of the LoRA matrices; 0 trains all weights that may move.")] = 16,
    max_kl: Annotated[float, typer.Option(help="Stop beyond this drift from the reference, nats a token.")] = 20.0,
    held_out: Annotated[
        Path | None, typer.Option(help="Scored answers to measure rewards on after training (all their pairs).")
    ] = None,
    save_steps: Annotated[int, typer.Option(help="Steps between checkpoints.")] = 50,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last whole checkpoint in --out.")] = False,
    seed: Annotated[int, typer.Option(help="Seed of everything random.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")] = False,
) -> None:
    """Aligns a model with ranked, scored answers (entropy-aware DPO)."""
    quiet_libraries()
    from sage_ad.alignment.edpo.run import EDPORun, align

    run = EDPORun(
        data=tuple(data),
        out=out,
        model=model,
        eta=eta,
        beta=beta,
        entropy=entropy,
        pairs=pairs,
        reference_free=reference_free,
        sft_weight=sft_weight,
        steps=steps,
        epochs=epochs,
        batch=batch,
        accumulate=accumulate,
        learning_rate=learning_rate,
        lora_rank=lora_rank,
        max_kl=max_kl,
        save_steps=save_steps,
        seed=seed,
        device=device,
        held_out=held_out,
    )
    result = align(run, resume=resume)
    if result is None:
        return
    if json:
        print_json(result)
    else:
        last = result["last"]
        print(
            f"{result['steps']} steps on {result['questions']} questions ({result['pairs']} pairs) took "
            f"{result['seconds']:.0f} s; loss {last.get('loss', 0):.4f}, reward accuracy "
            f"{last.get('rewards/accuracies', 0):.3f}, margin {last.get('rewards/margins', 0):.3f}, drift "
            f"{last.get('kl', 0):.4f} nats a token. The aligned model stands in {result['model']}."
        )
