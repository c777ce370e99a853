"""`sage-eval`: figures for detection, answers and judges, and runs side by side; heavy parts are imported on use."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sage_ad.evaluation.reports.judge_run import judge_command
from sage_ad.vlm.commandline import quiet_libraries, run_app
from sage_ad.vlm.errors import InputError
from sage_ad.vlm.evidence.encoders import DEFAULT_ENCODER, ENCODER_HELP
from sage_ad.vlm.evidence.tiles import TILE_HELP, parse_tile

if TYPE_CHECKING:
    from sage_ad.evaluation.datasets import InspectionDataset

app = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
)

Data = Annotated[Path, typer.Argument(help="Folder of a labelled set, or its annotation file.", show_default=False)]
Format = Annotated[str | None, typer.Option(help="Layout of the set; found by itself if left out.")]
Categories = Annotated[str | None, typer.Option(help="Only these categories, separated by commas.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]
Out = Annotated[
    Path | None, typer.Option(help="Folder for results.json and report.md; finished parts are kept there too.")
]
Strict = Annotated[bool, typer.Option("--strict", help="Status 1 also for notes (pictures left out ...).")]
Seed = Annotated[int, typer.Option(help="Seed of everything random.")]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda.")]

ON_INTERRUPT = "What was finished is kept in the folder of --out (if one was given): run the same command to continue."


@app.callback()
def _about() -> None:
    """Measures detection, answers and judges on labelled inspection sets, and shows runs side by side."""


def _open(data: Path, format: str | None, categories: str | None) -> InspectionDataset:
    quiet_libraries()
    from sage_ad.evaluation.datasets import open_dataset

    wanted = [name.strip() for name in categories.split(",") if name.strip()] if categories else None
    return open_dataset(data, format, wanted)


@app.command()
def detect(
    data: Data,
    format: Format = None,
    shots: Annotated[int, typer.Option(help="Good images to compare with: 0, 1, 2, 4 or 8.")] = 1,
    seed: Seed = 0,
    draws: Annotated[int, typer.Option(help="How many draws of references; figures are their mean.")] = 3,
    categories: Categories = None,
    false_alarm: Annotated[
        float | None, typer.Option(help="Calibrate a threshold for this false-alarm rate on good training images.")
    ] = None,
    encoder: Annotated[
        list[str] | None, typer.Option(help=f"{ENCODER_HELP} May be repeated: they are measured side by side.")
    ] = None,
    tile: Annotated[str, typer.Option(help=TILE_HELP)] = "auto",
    strict: Strict = False,
    json: Json = False,
    out: Out = None,
    device: Device = "auto",
) -> None:
    """Image and pixel figures of the evidence, per category, as the mean over draws of references."""
    if draws < 1:
        raise InputError(f"The number of draws must be at least 1, not {draws}.")
    dataset = _open(data, format, categories)
    from sage_ad.evaluation.reports.detect_report import DetectSettings
    from sage_ad.evaluation.reports.detect_run import detect as measure
    from sage_ad.evaluation.runs import Progress, finish

    settings = DetectSettings(
        shots=shots,
        seeds=tuple(range(seed, seed + draws)),
        false_alarm=false_alarm,
        encoders=tuple(dict.fromkeys(encoder or [DEFAULT_ENCODER])),
        tile=parse_tile(tile),
        device=device,
    )
    report = measure(dataset, settings, out=out, progress=Progress())
    finish(report.to_json(), report.to_markdown(), out, json, strict)


@app.command()
def answer(
    data: Data,
    format: Format = None,
    shots: Annotated[int, typer.Option(help="0: no reference, 1: one good image.")] = 1,
    model: Annotated[
        str | None, typer.Option(help="Model of the inspector: sage-tiny, a Hugging Face name or folder, or a URL.")
    ] = None,
    inspector: Annotated[
        str, typer.Option(help="Registered inspector: sage, evidence-template, or your own.")
    ] = "sage",
    facts: Annotated[str | None, typer.Option(help="How facts reach the model: soft, hard or none.")] = None,
    judge: Annotated[str, typer.Option(help="Judge of the answers: local, or http://host:port/v1#model.")] = "local",
    limit: Annotated[int | None, typer.Option(help="At most so many images in all, spread evenly.")] = None,
    per_class: Annotated[int, typer.Option(help="Good and defective images a category; 0 takes all.")] = 20,
    categories: Categories = None,
    seed: Seed = 0,
    strict: Strict = False,
    json: Json = False,
    out: Out = None,
    device: Device = "auto",
) -> None:
    """Figures for the answers of whole inspections: accuracy, Acc-G, MLE, naming, place, consistency."""
    given = {"model": model, "facts": facts, "device": None if device == "auto" else device, "seed": seed or None}
    dataset = _open(data, format, categories)
    from sage_ad.evaluation.reports.answer_figures import report_markdown
    from sage_ad.evaluation.reports.answer_run import AnswerSettings, measure
    from sage_ad.evaluation.runs import Progress, finish

    settings = AnswerSettings(
        inspector=inspector,
        options={name: value for name, value in given.items() if value is not None},
        shots=shots,
        judge=judge,
        per_class=per_class,
        limit=limit,
        seed=seed,
    )
    result = measure(dataset, settings, out=out, progress=Progress())
    finish(result, report_markdown(result), out, json, strict)


@app.command()
def compare(
    runs: Annotated[
        list[Path],
        typer.Argument(help="Folders that sage-eval wrote with --out.", metavar="RUN...", show_default=False),
    ],
    out: Annotated[Path | None, typer.Option(help="Folder for compare.md, compare.html and the pictures.")] = None,
) -> None:
    """Runs side by side in one table; with --out also as a page with plots and the best and worst cases."""
    quiet_libraries()
    from sage_ad.evaluation.reports.compare import compare as side_by_side

    print(side_by_side(runs, out))


app.command("judge")(judge_command)


def main() -> None:
    """Entry point of `sage-eval`."""
    run_app(app, on_interrupt=ON_INTERRUPT)


if __name__ == "__main__":
    main()
