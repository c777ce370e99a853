"""Rules of the house that a reviewer should not have to check by eye."""

from __future__ import annotations

import ast
import functools
import importlib
import importlib.metadata
import importlib.util
import re
import subprocess
import sys
import tomllib
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOMS: dict[str, set[str]] = {
    "vlm": set(),
    "knowledge": {"vlm"},
    "evaluation": {"vlm", "knowledge"},
    "alignment": {"vlm", "knowledge", "evaluation"},
    "agents": {"vlm", "knowledge", "evaluation"},
    "demo": {"vlm", "knowledge", "evaluation", "agents"},
}
# Importing one of these takes from half a second to twenty; a front door that only prints its help must not.
HEAVY = (
    "torch",
    "transformers",
    "faiss",
    "llama_index",
    "langgraph",
    "sklearn",
    "scipy",
    "skimage",
    "matplotlib",
    "numpy",
    "pyarrow",
    "ray",
    "gradio",
)


@functools.cache
def imported_names(path: Path) -> list[tuple[int, str]]:
    """Line and name of each absolute import in a file, those inside functions too."""
    names: list[tuple[int, str]] = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names.append((node.lineno, node.module or ""))
    return names


@pytest.mark.parametrize("room", ROOMS)
def test_arrows_point_down(repository: Path, room: str) -> None:
    """A room imports itself and the rooms below it, nothing above."""
    wrong = [
        f"{path.relative_to(repository)}:{line} imports {name}"
        for path in (repository / room).rglob("*.py")
        for line, name in imported_names(path)
        if (head := name.removeprefix("sage_ad.").split(".")[0]) in ROOMS and head != room and head not in ROOMS[room]
    ]
    assert not wrong


def front_doors(repository: Path) -> dict[str, str]:
    """Commands and the modules behind them, as pyproject.toml names them."""
    project = tomllib.loads((repository / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return {command: target.split(":")[0] for command, target in project["scripts"].items()}


def test_help_loads_nothing_heavy(repository: Path) -> None:
    """`sage-* --help` is instant because no heavy library is imported for it."""
    for command, module in front_doors(repository).items():
        script = (
            f"import sys; sys.argv = [{command!r}, '--help']\n"
            f"import {module} as door\n"
            "try:\n    door.main()\nexcept SystemExit as end:\n    assert not end.code, end.code\n"
            f"print('HEAVY', sorted(set({HEAVY!r}) & set(sys.modules)))"
        )
        ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
        assert ran.returncode == 0, ran.stderr
        assert "Usage" in ran.stdout
        assert ran.stdout.strip().endswith("HEAVY []"), f"{command}: {ran.stdout.strip().splitlines()[-1]}"


def test_every_command_says_its_version(repository: Path) -> None:
    for command, module in front_doors(repository).items():
        script = f"import sys; sys.argv = [{command!r}, '--version']\nfrom {module} import main\nmain()"
        ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
        assert ran.returncode == 0, ran.stderr
        assert ran.stdout == f"{command} {importlib.metadata.version('sage-ad')}\n"


def test_front_doors_refuse_bad_options_in_one_line(repository: Path) -> None:
    """A misspelt option is one line on standard error and status 2, like every other bad input."""
    for command, module in front_doors(repository).items():
        script = f"import sys; sys.argv = [{command!r}, '--no-such-option']\nfrom {module} import main\nmain()"
        ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
        assert ran.returncode == 2
        assert ran.stdout == ""
        assert len(ran.stderr.strip().splitlines()) == 1, ran.stderr
        assert "no-such-option" in ran.stderr


def test_rooms_say_what_they_are_for(repository: Path) -> None:
    """Each room has a one-paragraph docstring, and each public name that it exports exists."""
    for room in ROOMS:
        if not (repository / room).is_dir():
            continue
        module = importlib.import_module(f"sage_ad.{room}")
        assert module.__doc__
        assert "\n\n" not in module.__doc__.strip()
        for name in getattr(module, "__all__", []):
            assert getattr(module, name) is not None, f"{room}.{name}"


def test_torchvision_does_not_slip_in() -> None:
    """The registry's torchvision breaks at import beside CPU torch and takes the image processors down with it."""
    installed = {distribution.metadata["Name"].lower() for distribution in importlib.metadata.distributions()}
    assert not installed & {"torchvision", "timm"}


def test_pins_name_versions_and_no_address(repository: Path) -> None:
    """Pinned requirements are exact and name neither an index nor a hash: they work wherever pip is set up."""
    for path in repository.glob("requirements*.txt"):
        for line in path.read_text(encoding="utf-8").splitlines():
            assert line.startswith("#") or re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.]+", line), f"{path.name}: {line}"


def test_declared_dependencies_are_pinned(repository: Path) -> None:
    """What pyproject.toml asks for is what requirements.txt installs."""
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    pins = {}
    for name in ("requirements.txt", "requirements-cpu.txt", "requirements-weights.txt"):
        for line in (repository / name).read_text(encoding="utf-8").splitlines():
            if line and not line.startswith("#"):
                package, version = line.split("==")
                pins[canonicalize_name(package)] = version
    project = tomllib.loads((repository / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    for text in [*project["dependencies"], *extras["cpu"], *extras["dev"]]:
        wanted = Requirement(text)
        version = pins.get(canonicalize_name(wanted.name))
        assert version is not None, f"{text} is not pinned"
        assert wanted.specifier.contains(version), f"{text} is pinned to {version}"


def test_one_name_is_importable(tmp_path: Path) -> None:
    """An installed SAGE puts `sage_ad` on the path and nothing else: `agents` belongs to openai-agents."""
    script = (
        "import importlib.util as util, sage_ad.agents\n"
        f"print([room for room in {sorted(ROOMS)} if util.find_spec(room)])"
    )
    ran = subprocess.run([sys.executable, "-I", "-c", script], capture_output=True, text=True, cwd=tmp_path, timeout=60)
    assert ran.stdout.strip() == "[]", ran.stdout + ran.stderr


def test_rooms_import_each_other_by_one_name(repository: Path) -> None:
    """A module that is imported both as `vlm.x` and as `sage_ad.vlm.x` would exist twice."""
    listed = subprocess.run(["git", "ls-files", "*.py"], cwd=repository, capture_output=True, text=True, check=True)
    wrong = [
        f"{name}:{line} imports {imported}"
        for name in listed.stdout.split()
        for line, imported in imported_names(repository / name)
        if imported.split(".")[0] in ROOMS
    ]
    assert not wrong


@functools.cache
def arrows(repository: Path) -> dict[tuple[str, str], int]:
    """Imports between our modules, those inside functions and for types only too: (importer, imported) to the line."""
    modules = {}
    for room in ROOMS:
        for path in (repository / room).rglob("*.py"):
            parts = path.relative_to(repository).with_suffix("").parts
            modules["sage_ad." + ".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    found = {}
    for name, path in modules.items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                targets = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                inner = [f"{node.module}.{alias.name}" for alias in node.names]
                targets = [one if one in modules else node.module or "" for one in inner]
            else:
                continue
            found |= {(name, target): node.lineno for target in targets if target in modules and target != name}
    return found


def circles(edges: set[tuple[str, str]]) -> list[tuple[str, ...]]:
    """One circle of arrows if there is any, by Kahn's algorithm: what cannot be put in order."""
    try:
        graph: dict[str, set[str]] = {}
        for tail, head in edges:
            graph.setdefault(tail, set()).add(head)
        tuple(TopologicalSorter(graph).static_order())
    except CycleError as error:
        return [tuple(error.args[1])]
    return []


def wing(module: str) -> str:
    """The part of a room that a module belongs to: a sub-package, or the module itself where it stands in none."""
    return ".".join(module.split(".")[1:3])


def test_no_import_circle(repository: Path) -> None:
    """Neither modules nor wings of a room import each other in a circle."""
    found = set(arrows(repository))
    assert not circles(found)
    between = {(wing(tail), wing(head)) for tail, head in found if wing(tail) != wing(head)}
    assert not circles({(a, b) for a, b in between if a.split(".")[0] == b.split(".")[0]})


def test_a_circle_would_be_found() -> None:
    assert circles({("a", "b"), ("b", "c"), ("c", "a"), ("a", "d")})
    assert not circles({("a", "b"), ("a", "c"), ("b", "c")})


def paths_drawn(text: str) -> list[list[tuple[str, str]]]:
    """The mermaid pictures of a document: of each, the arrows as (file, file)."""
    pictures = []
    for picture in re.findall(r"```mermaid\n(.*?)```", text, re.DOTALL):
        files = dict(re.findall(r'(\w+)\["([^"]+)"\]', picture))
        pairs = re.findall(r"^\s*(\w+)(?:\[[^\]]*\])? --> (\w+)", picture, re.MULTILINE)
        pictures.append([(files[tail], files[head]) for tail, head in pairs])
    return pictures


def test_the_drawn_paths_are_those_of_the_source(repository: Path) -> None:
    """docs/architecture.md draws four paths; each arrow is an import, and a reader starts at the first file."""
    found = set(arrows(repository))
    pictures = paths_drawn((repository / "docs" / "architecture.md").read_text(encoding="utf-8"))
    assert len(pictures) == 4
    for picture in pictures:
        assert picture
        assert not circles(set(picture))
        for tail, head in picture:
            assert (repository / tail).is_file(), tail
            assert (repository / head).is_file(), head
            names = [f"sage_ad.{file.removesuffix('.py').replace('/', '.')}" for file in (tail, head)]
            assert tuple(names) in found, f"{tail} does not import {head}"
        seen = {picture[0][0]}
        for tail, head in picture:
            assert tail in seen, f"the path begins anew at {tail}"
            seen.add(head)
    inspection = {file for arrow in pictures[0] for file in arrow}
    assert pictures[0][0][0] == "agents/cli.py"
    assert len(inspection) <= 12


def private_names(source: str) -> list[tuple[int, str]]:
    """Line and text of each use of a private name of another module or object: attributes, imports, patches by name."""

    def is_private(name: object) -> bool:
        return isinstance(name, str) and name.startswith("_") and not name.startswith("__") and name != "_"

    tree = ast.parse(source)
    own = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    own |= {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)
            and isinstance(node.value, ast.Name) and node.value.id == "self"}  # fmt: skip
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and is_private(node.attr):
            receiver = node.value.id if isinstance(node.value, ast.Name) else ""
            if receiver != "os" and not (receiver in ("self", "cls") and node.attr in own):
                found.append((node.lineno, ast.unparse(node)))
        elif isinstance(node, ast.ImportFrom):
            found += [(node.lineno, f"import {alias.name}") for alias in node.names if is_private(alias.name)]
        elif isinstance(node, ast.Call) and len(node.args) > 1 and isinstance(node.args[1], ast.Constant):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if called in ("setattr", "delattr", "getattr", "object") and is_private(node.args[1].value):
                found.append((node.lineno, ast.unparse(node)))
    return found


def test_tests_use_public_names_only(repository: Path) -> None:
    """A test over private names breaks when the inside changes, and says nothing of what a user would miss."""
    wrong = [
        f"{path.relative_to(repository)}:{line} {text}"
        for path in sorted((repository / "tests").rglob("*.py"))
        for line, text in private_names(path.read_text(encoding="utf-8"))
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    "line",
    ["thing._inner", "from sage_ad.vlm import _inner", 'monkeypatch.setattr(module, "_inner", 1)', "self._inherited()"],
)
def test_a_private_name_would_be_found(line: str) -> None:
    assert private_names(line)
    assert not private_names(line.replace("_", ""))


def test_what_benchmarks_and_tools_import_exists(repository: Path) -> None:
    """They run for hours and are seldom run: a name that moved would be missed by the next who needs it."""
    missing = []
    for path in [*(repository / "benchmarks").glob("*.py"), *(repository / "tools").glob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("sage_ad"):
                module = importlib.import_module(node.module or "")
                for alias in node.names:
                    if not hasattr(module, alias.name) and not importlib.util.find_spec(f"{node.module}.{alias.name}"):
                        missing.append(f"{path.relative_to(repository)}:{node.lineno} {node.module}.{alias.name}")
    assert not missing
