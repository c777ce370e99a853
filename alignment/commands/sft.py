"""`sage-train sft`: stage 1 on any labelled inspection data."""

from __future__ import annotations

import sys

from sage_ad.alignment.options import Stage1Run
from sage_ad.vlm.commandline import print_json, quiet_libraries


def sft(run: Stage1Run, json: bool) -> None:
    """Trains stage 1 (fact-enhanced fine-tuning) on labelled inspection data.

    Each part is looked at once by the frozen encoder (about 0.1 s without and 1 s with a reference of its own, kept on disk
    for later runs); then a step of 4 parts with five questions each takes about 8 s on two idle CPU cores (16 s on one):
    1,000 parts are an hour at most. A GPU is used where there is one. Ctrl-C keeps the last checkpoint; continue with --resume.
    """
    quiet_libraries()
    from sage_ad.alignment.sft.run import train_stage1

    result = train_stage1(run, lambda line: print(line, file=sys.stderr, flush=True))
    if json:
        print_json(result)
    else:
        print(f"Trained weights: {result['checkpoint']} ({result['parts']} parts, {result['steps']} steps)")
        print(f"Use them with: sage-inspect IMAGE --model {result['checkpoint']}")
