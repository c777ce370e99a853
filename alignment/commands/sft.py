"""`sage-train sft`: stage 1 on any labelled inspection data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

HELP = """Trains stage 1 (fact-enhanced fine-tuning) on labelled inspection data.

Each part is looked at once by the frozen encoder (about 0.1 s without and 1 s with a reference of its own, kept on disk
for later runs); then a step of 4 parts with five questions each takes about 8 s on two idle CPU cores (16 s on one):
1,000 parts are an hour at most. A GPU is used where there is one. Ctrl-C keeps the last checkpoint; go on with --resume.
"""


def sft(
    data: Annotated[
        list[Path] | None,
        typer.Option(help="Labelled sets in any layout that sage-eval reads; give it again for more of them."),
    ] = None,
    synthetic: Annotated[int, typer.Option(min=0, help="Drawn parts to add, with and without drawn defects.")] = 400,
    pasted: Annotated[
        int, typer.Option(min=0, help="Good parts of each category that get a drawn defect pasted on.")
    ] = 60,
    limit: Annotated[
        int | None, typer.Option(min=1, help="At most so many good and so many defective images of a category.")
    ] = None,
    model: Annotated[
        str,
        typer.Option(
            help="'smollm2-135m' (embedded), a checkpoint's folder or name (sage-tiny-sft), or a Hugging Face "
            "vision-language model."
        ),
    ] = "smollm2-135m",
    facts: Annotated[str, typer.Option(help="How facts reach the model: soft, hard or none.")] = "soft",
    domain: Annotated[str | None, typer.Option(help="Knowledge pack of the parts; default: found by product.")] = None,
    out: Annotated[Path, typer.Option(help="Folder for checkpoints, logs and the trained weights.")] = Path("runs/sft"),
    config: Annotated[
        Path | None, typer.Option(help="YAML file with settings of Stage1Config, such as learning_rate: 0.0002.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint in --out.")] = False,
    seed: Annotated[int, typer.Option(help="Seed of data, order and starting weights.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as one JSON object.")] = False,
) -> None:
    from sage_ad.alignment.sft.run import Stage1Run, train_stage1
    from sage_ad.vlm.errors import InputError

    if facts not in ("soft", "hard", "none"):
        raise InputError(f"--facts {facts!r} is no mode of facts; use soft, hard or none.")
    run = Stage1Run(
        data=tuple(data or ()),
        synthetic=synthetic,
        pasted=pasted,
        limit=limit,
        model=model,
        facts=facts,  # type: ignore[arg-type]
        domain=domain,
        out=out,
        settings=_settings(config),
        resume=resume,
        seed=seed,
        device=device,
    )
    result = train_stage1(run, lambda line: typer.echo(line, err=True))
    if as_json:
        typer.echo(json.dumps(result))
    else:
        typer.echo(f"Trained weights: {result['checkpoint']} ({result['parts']} parts, {result['steps']} steps)")
        typer.echo(f"Use them with: sage-inspect IMAGE --model {result['checkpoint']}")


def _settings(file: Path | None) -> dict[str, Any]:
    from sage_ad.vlm.errors import InputError

    if file is None:
        return {}
    import yaml

    try:
        values = yaml.safe_load(file.read_text(encoding="utf-8")) or {}
    except (OSError, yaml.YAMLError) as error:
        raise InputError(f"The settings in {file} cannot be read ({str(error).splitlines()[0]}).") from None
    if not isinstance(values, dict):
        raise InputError(f"The file {file} holds no settings; write lines such as 'learning_rate: 0.0002'.")
    return values
