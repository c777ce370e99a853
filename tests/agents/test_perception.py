"""No more libraries are loaded than an inspection needs: seconds of each cold process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from plates import plate

SCRIPT = """
import sys
from pathlib import Path
from sage_ad.vlm.commandline import quiet_libraries
quiet_libraries()
if sys.argv[3] == "evidence only":
    from sage_ad.agents.batch.manifest import read_parts
    from sage_ad.agents.batch.worker import BatchSettings, PartWorker
    worker = PartWorker(BatchSettings(language=False))
    worker.load()
    (row,) = worker.inspect(read_parts(Path(sys.argv[1]), references=[Path(sys.argv[2])])).rows
    assert row["verdict"] == "anomalous", row["error"]
else:
    import contextlib
    from sage_ad.agents.cli import main
    from sage_ad.vlm import commandline
    commandline.end_at_once = sys.exit
    asked = ["--question", "Is it good?"] if sys.argv[3] == "asked" else []
    sys.argv = ["sage-inspect", sys.argv[1] + "/part.png", "--reference", sys.argv[2], *asked]
    with contextlib.suppress(SystemExit):
        main()
print("LOADED", sorted(sys.modules))
"""

NEVER = {"transformers", "trl", "llama_index", "sentence_transformers", "sklearn", "gradio"}


@pytest.mark.parametrize(
    ("how", "never"),
    [
        ("evidence only", NEVER | {"langgraph", "langchain_core", "faiss"}),
        ("explained", NEVER),
        # The embedded model runs without transformers' models; of that library it takes the tokenizer alone.
        ("asked", NEVER - {"transformers"} | {"transformers.modeling_utils", "peft", "scipy.optimize"}),
    ],
)
def test_what_is_not_needed_is_not_loaded(tmp_path: Path, how: str, never: set[str]) -> None:
    plate(tmp_path / "parts" / "part.png", True, 1)
    good = plate(tmp_path / "good.png", False, 2)
    command = [sys.executable, "-c", SCRIPT, str(tmp_path / "parts"), str(good), how]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert ran.returncode == 0, ran.stderr
    loaded = ran.stdout.rsplit("LOADED", 1)[1]
    assert not [name for name in never if f"'{name}'" in loaded]
