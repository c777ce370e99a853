"""Facts to be judged wherever they turn up: a list to choose from, and the chosen one to approve, reject or change."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import gradio as gr

from sage_ad.demo.services import safety
from sage_ad.demo.services.engine import Engine
from sage_ad.demo.view import render
from sage_ad.knowledge.facts import KINDS, Fact
from sage_ad.vlm.errors import InputError, SageError

CHOOSE = "Choose a fact to see where it came from, and to judge it."


class FactReview:
    """A list of facts and a sheet for the chosen one; `build_list` and `build_sheet` say where each stands.

    Args:
        engine: holds the knowledge base.
        prefix: begins the ids of its components.
        onward: after a judgement the next proposed fact of the list is shown, so that many are judged quickly.
    """

    def __init__(self, engine: Engine, prefix: str, *, onward: bool = False) -> None:
        self.engine, self.prefix, self.onward = engine, prefix, onward
        self.ids = gr.State([])

    def build_list(self, label: str = "Facts") -> None:
        """The list."""
        self.note = gr.HTML(elem_id=f"{self.prefix}-note")
        self.found = gr.Radio([], label=label, elem_id=f"{self.prefix}-found", elem_classes="sg-list", visible=False)

    def build_sheet(self) -> None:
        """The chosen fact with its sources, and the means to judge and change it; call it after `build_list`."""
        self.fact = gr.HTML(elem_id=f"{self.prefix}-fact")
        with gr.Row():
            self.approve = gr.Button(
                "Approve", variant="primary", elem_id=f"{self.prefix}-approve", min_width=90, visible=False
            )
            self.reject = gr.Button(
                "Reject", variant="stop", elem_id=f"{self.prefix}-reject", min_width=90, visible=False
            )
        with gr.Accordion("Change it", open=False, visible=False, elem_id=f"{self.prefix}-edit") as self.editor:
            self.text = gr.Textbox(label="Sentence", lines=3, elem_id=f"{self.prefix}-text", max_length=2000)
            self.kind = gr.Dropdown(list(KINDS), label="Kind")
            self.products = gr.Textbox(label="Products, separated by commas (none: all of the domain)")
            self.defects = gr.Textbox(label="Defects, separated by commas", elem_id=f"{self.prefix}-defects")
            self.save = gr.Button("Save the change", elem_id=f"{self.prefix}-save")
        self._wire()

    def _wire(self) -> None:
        private: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
        self.found.input(self._show, [self.found, self.ids], self.outputs, **private)
        for button, status in ((self.approve, "approved"), (self.reject, "rejected")):
            button.click(self._judge(status), [self.found, self.ids], self.outputs, **private)
        self.save.click(
            self._edit, [self.found, self.ids, self.text, self.kind, self.products, self.defects], self.outputs,
            **private,
        )  # fmt: skip

    @property
    def outputs(self) -> list[Any]:
        """All components that `listed` may change."""
        return [self.note, self.found, self.ids, self.fact, self.approve, self.reject, self.editor, self.text,
                self.kind, self.products, self.defects]  # fmt: skip

    def listed(self, facts: Sequence[Fact], chosen: str | None = None, note: str = "") -> dict[Any, Any]:
        """The page with these facts in the list, and one of them on the sheet; `note` is HTML."""
        one = next((fact for fact in facts if fact.id == chosen), None)
        shown: dict[Any, Any] = {
            self.note: note,
            self.found: gr.Radio([(fact_label(fact), fact.id) for fact in facts], value=chosen, visible=bool(facts)),
            self.ids: [fact.id for fact in facts],
            self.fact: render.fact_html(one) if one else render.notice_html(CHOOSE, "plain") if facts else "",
            self.approve: gr.Button(visible=one is not None and one.status != "approved"),
            self.reject: gr.Button(visible=one is not None and one.status != "rejected"),
            self.editor: gr.Accordion(visible=one is not None),
        }
        if one is not None:
            shown |= {self.text: one.text, self.kind: one.kind}
            shown |= {self.products: ", ".join(one.products), self.defects: ", ".join(one.defects)}
        return shown

    def _show(self, chosen: str | None, ids: list[str]) -> dict[Any, Any]:
        return self.listed(self._still(ids), chosen)

    def _still(self, ids: Sequence[str]) -> list[Fact]:
        """The facts as they are now; one that was removed in the meantime is left out."""
        return list(render.stored_facts(ids, self.engine.store).values())

    def _judge(self, status: str) -> Callable[[str | None, list[str]], dict[Any, Any]]:
        return lambda chosen, ids: self._changed(chosen, ids, lambda fact: self.engine.store.set_status(fact, status))

    def _edit(
        self, chosen: str | None, ids: list[str], text: str, kind: str, products: str, defects: str
    ) -> dict[Any, Any]:
        def change(fact: str) -> Fact:
            names = {
                field: tuple(name.strip() for name in (given or "").split(",") if name.strip())
                for field, given in (("products", products), ("defects", defects))
            }
            return self.engine.store.edit(fact, text=safety.check_text(text, "The sentence"), kind=kind, **names)

        return self._changed(chosen, ids, change, onward=False)

    def _changed(
        self, chosen: str | None, ids: list[str], change: Callable[[str], Fact], onward: bool = True
    ) -> dict[Any, Any]:
        try:
            if not chosen:
                raise InputError("No fact is chosen; choose one in the list.")
            fact = change(chosen)
        except SageError as error:
            return {self.note: render.notice_html(str(error))}
        facts = self._still(ids)
        waiting = [one.id for one in facts if one.status == "proposed"]
        following = waiting[0] if onward and self.onward and waiting else fact.id
        told = f"“{fact.text}” is {fact.status} now."
        if self.onward:
            told += f" {len(waiting)} more to judge." if waiting else " All are judged."
        return self.listed(facts, following, render.notice_html(told, "plain"))


def fact_label(fact: Fact) -> str:
    """A fact in a list: its text, and what one must know before opening it."""
    mark = "" if fact.status == "approved" else f" · {fact.status}"
    return f"{fact.text} ({fact.domain}, {fact.kind}{mark})"
