"""Build the wheel, install it beside openai-agents in a fresh environment, and inspect the example with it.

The environment sees the packages of the one that runs this script, so that only the wheel and openai-agents (whose
import name `agents` is also the name of one of our rooms) are installed. Exit status 0 if all holds.
"""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import tempfile
import venv
import zipfile
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
INSIDE = """
import agents, pathlib, sage_ad.agents
assert hasattr(agents, "Runner"), "`import agents` does not find openai-agents"
home = pathlib.Path(sage_ad.agents.__file__)
assert home.is_relative_to(ENVIRONMENT), f"sage_ad is imported from {home}, not from the wheel"
"""


def run(*command: str | Path, cwd: Path | None = None) -> str:
    """Standard output of a command; its errors end the check."""
    ran = subprocess.run([str(word) for word in command], cwd=cwd, capture_output=True, text=True)
    if ran.returncode:
        sys.exit(f"{' '.join(str(word) for word in command[:4])} ended with status {ran.returncode}:\n{ran.stderr}")
    return ran.stdout


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        here = Path(folder).resolve()
        # What git holds, so that a leftover of the working tree cannot slip into the wheel.
        run("git", "clone", "-q", REPOSITORY, here / "source")
        run(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", here, here / "source")
        (wheel,) = here.glob("sage_ad-*.whl")
        tops = {name.split("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
        tops = {top for top in tops if not top.endswith(".dist-info")}
        if tops != {"sage_ad"}:
            sys.exit(f"The wheel holds {sorted(tops)} at its top; it must hold sage_ad alone.")
        environment = here / "environment"
        venv.create(environment, with_pip=True)
        python = environment / "bin" / "python"
        purelib = run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip()
        # A `.pth` line adds the folder alone: the editable install's own `.pth` files are not read.
        Path(purelib, "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
        run(python, "-m", "pip", "install", "-q", "--no-deps", "--force-reinstall", wheel)
        run(python, "-m", "pip", "install", "-q", "openai-agents")
        run(python, "-c", INSIDE.replace("ENVIRONMENT", repr(str(environment))), cwd=here)
        if '"verdict": "anomalous"' not in run(environment / "bin" / "sage-inspect", "--example", "--json", cwd=here):
            sys.exit("sage-inspect from the wheel did not find the stain of its own example.")
    print("The wheel holds sage_ad alone, works, and leaves `import agents` to openai-agents.")


if __name__ == "__main__":
    main()
