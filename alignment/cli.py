"""`sage-train`: preference data, its scores, and the trainers of both stages; heavy parts are imported on use."""

from __future__ import annotations

import typer

from sage_ad.alignment.commands.edpo import edpo
from sage_ad.alignment.commands.preferences import build_command, convert_command
from sage_ad.alignment.commands.score import score_command
from sage_ad.alignment.commands.sft import sft
from sage_ad.alignment.options import EDPORun, Stage1Run
from sage_ad.vlm.commandline import run_app
from sage_ad.vlm.options import options_command

app = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
)

ON_INTERRUPT = (
    "Scores and checkpoints are kept in the folder of --out: run the same command (sft and edpo: with --resume) again."
)


@app.callback()
def _about() -> None:
    """Trains stage 1 (SFE), builds and scores ranked answers, and aligns a model with them (stage 2, E-DPO)."""


app.command("sft")(options_command(Stage1Run, sft))
app.command("build-preferences")(build_command)
app.command("score")(score_command)
app.command("edpo")(options_command(EDPORun, edpo))
app.command("convert")(convert_command)


def main() -> None:
    """Entry point of `sage-train`."""
    run_app(app, on_interrupt=ON_INTERRUPT)


if __name__ == "__main__":
    main()
