"""Hooks of MkDocs (mkdocs.yml): pages that stand elsewhere in the repository, and the reference of the commands."""

from __future__ import annotations

import hashlib
import re
import tomllib
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.utils import get_relative_url

ROOT = Path(__file__).resolve().parents[1]
PAGES = {
    "index.md": ROOT / "README.md",
    "CHANGELOG.md": ROOT / "CHANGELOG.md",
    "CONTRIBUTING.md": ROOT / "CONTRIBUTING.md",
    "model-card.md": ROOT / "vlm/sage/checkpoints/sage-tiny-sft/README.md",
}
MERMAID = "74d7c46dabca328c2294733910a8aa1ed0c37451776e8d5295da38a2b758fb9b"
"""SHA-256 of dist/mermaid.min.js of mermaid 11.16.0, which draws the diagrams; the package mermaidx 0.10.1 carries it."""
SCRIPT = "assets/mermaid.min.js"


def on_files(files: Files, config: Any) -> Files:
    """Adds the pages that stand outside docs/, and one that is made."""
    for uri, source in PAGES.items():
        files.append(File.generated(config, uri, abs_src_path=str(source)))
    files.append(File.generated(config, "commands.md", content=commands()))
    files.append(File.generated(config, SCRIPT, abs_src_path=str(mermaid())))
    for section in config.nav:
        if pages := section.get("Tutorials"):
            pages += sorted(file.src_uri for file in files if file.src_uri.endswith(".ipynb"))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Links between files of the repository become links between pages of the site."""
    for uri, source in PAGES.items():
        markdown = re.sub(rf"\]\((\.\./)*{re.escape(source.relative_to(ROOT).as_posix())}", f"](/{uri}", markdown)
    markdown = re.sub(r"(?m)^<!-- not run: (.+) -->$", r"*Not run by the tests: \1.*\n", markdown)
    markdown = re.sub(r"\]\((\.\./)*docs/", "](/", markdown).replace("](../notebooks/", "](/notebooks/")
    return markdown.replace("](/", "](" + "../" * page.file.src_uri.count("/"))


def on_page_content(html: str, page: Any, config: Any, files: Files) -> str:
    """Links of notebooks lead to pages; pages with diagrams load the site's own script, not one from elsewhere."""
    if page.file.src_uri.endswith(".ipynb"):  # its Markdown does not pass through on_page_markdown
        html = re.sub(r'href="\.\./docs/([\w-]+)\.md', r'href="../../\1/', html)
    if 'class="mermaid"' not in html:
        return html
    return f'<script src="{get_relative_url(SCRIPT, page.url)}"></script>\n{html}'


def mermaid() -> Path:
    """The script that draws diagrams.

    Raises:
        PluginError: its carrier is not installed, or holds another script.
    """
    spec = find_spec("mermaidx")
    if spec is None or not spec.submodule_search_locations:
        raise PluginError(
            "The package mermaidx, which carries the script that draws diagrams, is missing; run: make setup"
        )
    path = Path(next(iter(spec.submodule_search_locations))) / "assets" / "mermaid.js"
    if hashlib.sha256(path.read_bytes()).hexdigest() != MERMAID:
        raise PluginError(f"{path} is not the script that was looked at; install requirements-weights.txt anew.")
    return path


def commands() -> str:
    """The reference of all commands in Markdown, from their parsers."""
    from typer.main import get_command

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    text = [
        "# Commands",
        "Each command also answers `--help` and `--version`. Exit status: 0 done, 1 done with failures ",
    ]
    text[1] += "that are listed, 2 bad input (one line says what and why), 130 interrupted (what is finished is kept)."
    for name, target in project["scripts"].items():
        command: Any = get_command(import_module(target.split(":")[0]).app)
        text += [f"## {name}", paragraph(command.help)]
        for sub in getattr(command, "commands", {}).values():
            text += [f"### {name} {sub.name}", paragraph(sub.help), *options(sub)]
        text += options(command)
    return "\n\n".join(text)


def options(command: Any) -> list[str]:
    """A table of a command's arguments and options; none for a group."""
    rows = [
        f"| {option_name(one)} | {paragraph(one.help)} | {default(one)} |"
        for one in command.params
        if one.name not in ("help", "install_completion", "show_completion")
    ]
    return ["\n".join(["| argument or option | what it does | default |", "|---|---|---|", *rows])] if rows else []


def option_name(one: Any) -> str:
    """`--name` with its short form; an argument in capitals."""
    names = one.opts if one.opts[0].startswith("-") else [(one.metavar or one.name).upper()]
    return ", ".join(f"`{name}`" for name in names)


def default(one: Any) -> str:
    """A default as it would be typed."""
    value = one.default() if callable(one.default) else one.default
    return "required" if one.required else f"`{value}`" if value or (value == 0 and value is not False) else ""


def paragraph(text: str | None) -> str:
    """Help in one line, safe in a table."""
    return " ".join((text or "").split()).replace("|", "\\|").replace("<", "&lt;")
