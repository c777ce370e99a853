"""A visitor of the demo's page in a real browser, and what visitors of bad intent would send."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

EXAMPLES = Path(__file__).resolve().parents[2] / "demo" / "examples"
PATIENCE = 240_000
"""Milliseconds that the browser waits for anything: the machine may be busy."""
CHROMIUM_FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
HOSTILE = "<img src=x onerror=alert(1)><script>alert(2)</script>${alert(3)}{{constructor}}`\"'</details>"
"""Text that must be shown as it stands wherever a file, fact, model or visitor brings it."""


@dataclass
class Server:
    """`sage-demo` in a process of its own, with a user folder of its own."""

    url: str
    home: Path
    log: Path


@dataclass
class Visitor:
    """A browser of its own (own storage, own session) and what went wrong in it."""

    page: Any
    server: Server
    faults: list[str] = field(default_factory=list)

    def open_tab(self, name: str) -> None:
        """Opens one of the tabs."""
        self.page.get_by_role("tab", name=name, exact=True).click()

    def choose_example(self, number: int, gallery: str = "#examples", part: str = "#part", go: str = "inspect") -> None:
        """Clicks an example and waits until its picture stands in the field and the button that begins has the focus."""
        self.page.locator(f"{gallery} button.thumbnail-item").nth(number).click()
        self.page.locator(f"{part} img").first.wait_for()
        self.page.wait_for_function("id => document.activeElement.id === id", arg=go)

    def inspect(self) -> None:
        """Clicks Inspect and waits for the end."""
        self.page.click("#inspect")
        self.finished()

    def finished(self) -> None:
        """Waits until the report of an inspection can be saved and its explanation is drawn."""
        self.page.locator("#report").wait_for()
        self.page.locator("#verdict").filter(has_text="How sure:").wait_for()

    def narrowest_fault(self) -> str:
        """What sticks out of the page to the right, if anything does."""
        found: str = self.page.evaluate(
            """() => { const wide = document.documentElement.scrollWidth - window.innerWidth;
            if (wide <= 0) return "";
            const out = [...document.querySelectorAll("body *")].filter(e => e.getBoundingClientRect().right > innerWidth + 1);
            return `${wide} pixels: ` + out.slice(-3).map(e => e.tagName + "." + e.className).join(" | "); }"""
        )
        return found
