"""`sage-train edpo`: stage 2, from scored answers to an aligned model."""

from __future__ import annotations

from sage_ad.alignment.options import EDPORun
from sage_ad.vlm.commandline import print_json, quiet_libraries


def edpo(run: EDPORun, json: bool) -> None:
    """Aligns a model with ranked, scored answers (entropy-aware DPO)."""
    quiet_libraries()
    from sage_ad.alignment.edpo.run import align

    result = align(run)
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
