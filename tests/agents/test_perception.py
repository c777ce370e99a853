"""What is measured without a language model loads none of the libraries of one: seconds of each cold process."""

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
    sys.argv = ["sage-inspect", sys.argv[1] + "/part.png", "--reference", sys.argv[2]]
    with contextlib.suppress(SystemExit):
        main()
print("LOADED", sorted({name.split(".")[0] for name in sys.modules}))
"""

NEVER = {"transformers", "trl", "llama_index", "sentence_transformers", "sklearn", "gradio"}


@pytest.mark.parametrize(
    ("how", "never"), [("evidence only", NEVER | {"langgraph", "langchain_core", "faiss"}), ("explained", NEVER)]
)
def test_without_a_question_no_library_of_language_models_is_loaded(tmp_path: Path, how: str, never: set[str]) -> None:
    plate(tmp_path / "parts" / "part.png", True, 1)
    good = plate(tmp_path / "good.png", False, 2)
    command = [sys.executable, "-c", SCRIPT, str(tmp_path / "parts"), str(good), how]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert ran.returncode == 0, ran.stderr
    loaded = ran.stdout.rsplit("LOADED", 1)[1]
    assert not [name for name in never if f"'{name}'" in loaded]
