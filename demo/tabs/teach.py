"""Teaching by showing: "this is a stain" of an inspected part, and whole sets of pictures, into the looks of a pack."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import gradio as gr

from sage_ad.demo.services import safety
from sage_ad.demo.services.engine import Engine
from sage_ad.demo.services.pictures import marked
from sage_ad.demo.services.run_store import Run
from sage_ad.demo.tabs.widgets import checked_picture, domain_list, reference_gallery
from sage_ad.demo.view import render
from sage_ad.knowledge.facts import check_domain_name
from sage_ad.knowledge.looks.naming import looks_of, taught, unnamed_product
from sage_ad.knowledge.looks.pictures import Look, add_looks, looks_folder, remove_look
from sage_ad.knowledge.store.packs import GENERAL
from sage_ad.vlm.errors import InputError, SageError

DEFECT, GOOD = "a defect", "a good part"
SHARED = "The picture is copied into the pack, which everybody who uses this page sees."
LOOKS = (
    "A few pictures of good parts serve as references of the product; three of a defect teach its name. They go into "
    "the pack, which everybody who uses this page sees. One by one, with its place, a defect is taught from an "
    "inspection (Inspect, Runs)."
)
Box = tuple[int, int, int, int]


class Lesson:
    """The fields that say what a picture shows: defect or good, the defect's name, product and domain.

    Args:
        engine: holds the knowledge base.
        prefix: begins the ids of the components.
    """

    def __init__(self, engine: Engine, prefix: str) -> None:
        self.engine = engine
        with gr.Row():
            self.shows = gr.Radio(
                [DEFECT, GOOD], value=DEFECT, label="What it shows", elem_id=f"{prefix}-shows", min_width=200
            )
            self.name = gr.Dropdown(
                [], label="Its name (choose or write)", allow_custom_value=True,
                elem_id=f"{prefix}-name", min_width=200,
            )  # fmt: skip
        with gr.Row():
            self.product = gr.Textbox(label="Product", max_length=120, elem_id=f"{prefix}-product", min_width=150)
            self.domain = domain_list(engine, empty="choose one")
            self.new = gr.Textbox(
                label="Or a new domain", placeholder="lower-case letters, digits, -", max_length=64,
                elem_id=f"{prefix}-new", min_width=150,
            )  # fmt: skip
        self.shows.input(
            lambda shows: gr.Dropdown(visible=shows == DEFECT), self.shows, self.name, api_visibility="private",
            show_progress="hidden",
        )  # fmt: skip
        for field in (self.domain, self.product):
            field.input(
                lambda product, domain: gr.Dropdown(choices=names_for(engine, product, domain)),
                [self.product, self.domain], self.name, api_visibility="private", show_progress="hidden",
                trigger_mode="always_last",
            )  # fmt: skip
        self.inputs = [self.shows, self.name, self.product, self.domain, self.new]

    def domains(self, chosen: str) -> Any:
        """The list of domains as they are now, with one of them chosen."""
        return gr.Dropdown([("choose one", ""), *self.engine.domain_choices()], value=chosen)

    def learn(
        self, pictures: Sequence[Path], box: Box | None, source: str, shows: str, name: str | None, product: str,
        domain: str, new: str,
    ) -> tuple[dict[Any, Any], str]:  # fmt: skip
        """Adds pictures to the pack that the fields name; returns what changed in the fields, and what the pack holds now.

        Args:
            pictures: the files.
            box: where the defect is; of a single picture.
            source: where they come from.
            shows, name, product, domain, new: values of `inputs`.

        Raises:
            InputError: a field is empty or cannot be used, or the pack cannot be written.
        """
        name, product, new = (safety.check_text(text, "The field", 120) for text in (name, product, new))
        if not product:
            raise InputError("The product is not named; write its name into the field Product.")
        if shows == DEFECT and not name:
            raise InputError("The defect is not named; choose a name, or write one.")
        domain = check_domain_name(new) if new else domain
        if not domain:
            raise InputError("No domain is chosen; choose the one of the product, or name a new one.")
        try:
            added = add_looks(
                domain, product, pictures, defect=name if shows == DEFECT else None, boxes=[box] * len(pictures),
                source=source, replace=True,
            )  # fmt: skip
        except OSError as error:
            raise InputError(
                f"The pack cannot be written ({error.strerror}); free some room or set SAGE_HOME."
            ) from None
        counts = taught(domain, product)
        told = [
            "Taught." if added.new else "The pack knew that already.",
            f"Of {product} the pack {domain} holds {', '.join(f'{count} {kind}' for kind, count in counts.items())}.",
        ]
        if len(counts.keys() - {"good"}) == 1:
            told.append("With a single kind of defect a name is listed but not asserted: teach a second kind.")
        if (note := unnamed_product(self.engine.store.packs()[domain], product)) is not None:
            told.append(note)
        return {self.domain: self.domains(domain), self.new: ""}, " ".join(told)


def names_for(engine: Engine, product: str | None, domain: str | None, first: Iterable[str] = ()) -> list[str]:
    """Names that a defect may have: those that come first, those that were taught, those of the pack's cards."""
    names = list(first)
    if domain:
        names += [look.defect for look in looks_of(domain, product or "") if look.defect is not None]
        names += [card.name for card in engine.store.cards(domain)]
    return list(dict.fromkeys(names))


class TeachPanel:
    """ "This is a stain", or "this part is good", of an inspected part whose picture was kept with its run.

    Args:
        engine: models, knowledge and kept runs.
        run: the component that holds the run's id.
        token: the browser's secret.
        prefix: begins the ids of the components.
    """

    def __init__(self, engine: Engine, run: gr.components.Component, token: gr.BrowserState, prefix: str) -> None:
        self.engine = engine
        with gr.Accordion(
            "Teach SAGE what this part shows", open=False, visible=False, elem_id=f"{prefix}-teach"
        ) as self.group:
            self.lesson = Lesson(engine, prefix)
            self.places = gr.CheckboxGroup(
                [],
                label="Where it is",
                info="the boxes on the picture, or the box around several; none: where the part departs from good ones",
                elem_id=f"{prefix}-places",
            )
            self.go = gr.Button("Teach this", elem_id=f"{prefix}-learn", variant="primary", size="md")
            self.told = gr.HTML(elem_id=f"{prefix}-told")
        self.lesson.shows.input(
            lambda shows: gr.CheckboxGroup(visible=shows == DEFECT), self.lesson.shows, self.places,
            api_visibility="private", show_progress="hidden",
        )  # fmt: skip
        self.go.click(
            self.teach, [run, self.places, *self.lesson.inputs, token],
            [self.told, self.lesson.domain, self.lesson.new], api_visibility="private",
            show_progress="hidden",
        )  # fmt: skip
        lesson = self.lesson
        self.outputs = [self.group, lesson.shows, lesson.name, lesson.product, lesson.domain, lesson.new, self.places,
                        self.told]  # fmt: skip

    def hidden(self) -> dict[Any, Any]:
        """The panel put away."""
        return {self.group: gr.Accordion(visible=False), self.told: ""}

    def offered(self, run: Run) -> dict[Any, Any]:
        """The panel with what the run suggests: its regions, product and domain, the likeliest names first."""
        trace, lesson = run.trace, self.lesson
        # A pack may be gone since; and where a product belongs that only the general pack serves is for people to say.
        domain = trace.domain if trace.domain in self.engine.store.packs() and trace.domain != GENERAL else ""
        names = names_for(self.engine, trace.product, domain, [one.name for one in trace.candidates])
        bad = trace.verdict == "anomalous"
        places = [(f"{number} · {region.place}", number) for number, region in enumerate(trace.regions, start=1)]
        return {
            self.group: gr.Accordion(visible=run.original is not None),
            lesson.shows: gr.Radio(value=DEFECT if bad else GOOD),
            lesson.name: gr.Dropdown(choices=names, value=trace.defect, visible=bad),
            lesson.product: trace.product or "",
            lesson.domain: lesson.domains(domain),
            lesson.new: "",
            self.places: gr.CheckboxGroup(choices=places, value=[1] if places else [], visible=bad),
            self.told: render.notice_html(SHARED, "plain"),
        }

    def teach(
        self, run: str | None, places: list[int] | None, shows: str, name: str | None, product: str, domain: str,
        new: str, token: Any, request: gr.Request,
    ) -> dict[Any, Any]:  # fmt: skip
        """Adds the part to the looks of the pack that the visitor confirmed; its picture is the one kept with the run."""
        try:
            kept = self.engine.runs.get(safety.owner_of(token, request), run or "")
            if kept.original is None:
                raise InputError("The picture of this run is no longer here; inspect the part again.")
            boxes = [kept.trace.regions[number - 1].box for number in places or ()]
            box = around(boxes) if boxes and shows == DEFECT else None
            source = f"{kept.part}, inspected {kept.created[:10]}"
            fields, told = self.lesson.learn([kept.original], box, source, shows, name, product, domain, new)
        except SageError as error:
            return {self.told: render.notice_html(str(error))}
        return {**fields, self.told: render.notice_html(told, "done")}


def around(boxes: Sequence[Sequence[int]]) -> Box:
    """The smallest box that holds all of them."""
    left, top, right, bottom = zip(*boxes, strict=True)
    return min(left), min(top), max(right), max(bottom)


class LooksPage:
    """Pictures of good parts and of defects for a pack, and what it was shown so far.

    Args:
        engine: holds the knowledge base.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.files = gr.State([])
        with gr.Row(equal_height=False):
            with gr.Column(scale=4, min_width=300):
                self.pictures = reference_gallery(engine, "Pictures that all show the same", "looks-pictures")
                self.lesson = Lesson(engine, "looks")
                self.go = gr.Button("Teach this", variant="primary", elem_id="looks-learn")
            with gr.Column(scale=7, min_width=300):
                self.told = gr.HTML(render.notice_html(LOOKS, "plain"), elem_id="looks-told")
                self.gallery = gr.Gallery(
                    label="What the pack was shown of this product", elem_id="looks-shown", columns=5,
                    object_fit="contain", height="auto", allow_preview=False, interactive=False, buttons=[],
                    visible=False,
                )  # fmt: skip
                self.remove = gr.Button("Take the chosen picture out", elem_id="looks-remove", visible=False)
        self.chosen = gr.State("")
        lesson = self.lesson
        private: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
        listed = [self.gallery, self.files, self.chosen, self.remove]
        self.go.click(
            self.teach, [self.pictures, *lesson.inputs],
            [self.told, self.pictures, lesson.domain, lesson.new, *listed], **private,
        )  # fmt: skip
        for field in (lesson.product, lesson.domain):
            field.input(self.listed, [lesson.product, lesson.domain], listed, trigger_mode="always_last", **private)
        self.gallery.select(self.choose, self.files, [self.chosen, self.remove], **private)
        self.remove.click(self.take_out, [self.chosen, lesson.product, lesson.domain], [self.told, *listed], **private)

    def teach(self, pictures: Any, shows: str, name: str | None, product: str, domain: str, new: str) -> dict[Any, Any]:
        """Adds the uploaded pictures to the looks of a pack."""
        try:
            paths = [checked_picture(self.engine, path) for path in safety.reference_paths(pictures)]
            if not paths:
                raise InputError("There is no picture to learn from; drop some into the field.")
            fields, told = self.lesson.learn(paths, None, "added on the page", shows, name, product, domain, new)
        except SageError as error:
            return {self.told: render.notice_html(str(error))}
        shown = self.listed(product, new.strip() or domain)
        return {**fields, self.told: render.notice_html(told, "done"), self.pictures: None, **shown}

    def listed(self, product: str | None, domain: str | None) -> dict[Any, Any]:
        """What the pack was shown of a product."""
        looks: list[Look] = []
        seen: list[tuple[Any, str]] = []
        try:
            if domain and product:
                looks, folder = looks_of(domain, product), looks_folder(domain)
                seen = [(marked(folder / look.file, look.box), look.defect or "good") for look in looks]
        except SageError as error:
            gr.Warning(safety.escaped(str(error)))
            looks, seen = [], []
        return {
            self.gallery: gr.Gallery(value=seen, selected_index=None, visible=bool(looks)),
            self.files: [[domain, look.file] for look in looks],
            self.chosen: "",
            self.remove: gr.Button(visible=False),
        }

    @staticmethod
    def choose(files: list[list[str]], picked: gr.SelectData) -> tuple[Any, Any]:
        """Remembers the picture that was clicked."""
        return files[picked.index], gr.Button(visible=True)

    def take_out(self, chosen: list[str], product: str, domain: str) -> dict[Any, Any]:
        """Takes the chosen picture out of its pack."""
        try:
            if not chosen:
                raise InputError("No picture is chosen; click one of the pictures.")
            gone = remove_look(*chosen)
        except SageError as error:
            return {self.told: render.notice_html(str(error))}
        told = f"The picture is no longer shown as {gone.defect or 'good'}."
        return {self.told: render.notice_html(told, "plain"), **self.listed(product, domain)}
