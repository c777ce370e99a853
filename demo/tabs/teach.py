"""Teaching by showing: "this is a stain" of an inspected part, and whole sets of pictures, into the looks of a pack."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import gradio as gr

from sage_ad.demo.services import safety
from sage_ad.demo.services.engine import Engine
from sage_ad.demo.services.pictures import fitted, marked, webp
from sage_ad.demo.services.run_store import Run
from sage_ad.demo.tabs.region import Box, marked_box, region_field, showing
from sage_ad.demo.tabs.widgets import checked_picture, domain_list, reference_gallery
from sage_ad.demo.view import render
from sage_ad.knowledge.facts import check_domain_name
from sage_ad.knowledge.looks.naming import candidates, card_name, good_references, looks_of, taught, unnamed_product
from sage_ad.knowledge.looks.pictures import Look, add_looks, looks_folder, remove_look
from sage_ad.knowledge.store.packs import GENERAL
from sage_ad.vlm.errors import InputError, SageError
from sage_ad.vlm.images import load_image

DEFECT, GOOD = "a defect", "a good part"
SHARED = "The picture is copied into the pack, which everybody who uses this page sees."
LOOKS = (
    "A few pictures of good parts serve as references of the product; three of a defect teach its name. They go into "
    "the pack, which everybody who uses this page sees. You may mark where the defect is: that counts when you point at "
    "a region of an inspected part (Inspect, Runs)."
)


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
        self, pictures: Sequence[Path], boxes: Sequence[Box | None], source: str, shows: str, name: str | None,
        product: str, domain: str, new: str,
    ) -> tuple[dict[Any, Any], str]:  # fmt: skip
        """Adds pictures to the pack that the fields name; returns what changed in the fields, and what the pack holds now.

        Args:
            pictures: the files.
            boxes: where the defect is, one for each picture; a good part has none.
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
        note, pack = None, self.engine.store.packs().get(domain)
        if shows == DEFECT and pack is not None:
            name, note = card_name(pack, name)
        try:
            added = add_looks(
                domain, product, pictures, defect=name if shows == DEFECT else None,
                boxes=boxes if shows == DEFECT else None, source=source, replace=True,
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
        told += [note] if note else []
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
            self.region = region_field(f"{prefix}-region")
            self.like = gr.HTML(elem_id=f"{prefix}-like")
            self.go = gr.Button("Teach this", elem_id=f"{prefix}-learn", variant="primary", size="md")
            self.told = gr.HTML(elem_id=f"{prefix}-told")
        lesson = self.lesson
        private: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
        lesson.shows.input(
            lambda shows: (gr.CheckboxGroup(visible=shows == DEFECT), gr.HTML(visible=shows == DEFECT), ""),
            lesson.shows, [self.places, self.region, self.like], **private,
        )  # fmt: skip
        self.places.input(lambda: (None, ""), None, [self.region, self.like], **private)
        self.region.input(
            self.marked, [run, self.region, lesson.product, lesson.domain, token], [self.places, self.like],
            trigger_mode="always_last", **private,
        )  # fmt: skip
        self.go.click(
            self.teach, [run, self.places, self.region, *lesson.inputs, token], [self.told, lesson.domain, lesson.new],
            **private,
        )  # fmt: skip
        self.outputs = [self.group, lesson.shows, lesson.name, lesson.product, lesson.domain, lesson.new, self.places,
                        self.region, self.like, self.told]  # fmt: skip

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
            self.region: showing(run.pictures.test, run.pictures.size, trace.regions, visible=bad),
            self.like: "",
            self.told: render.notice_html(SHARED, "plain"),
        }

    def marked(
        self, run: str | None, region: Any, product: str, domain: str, token: Any, request: gr.Request
    ) -> Iterator[dict[Any, Any]]:
        """A region marked by hand takes the place of those that were found; says what the pack would call it."""
        owner = safety.owner_of(token, request)
        yield {self.places: [], self.like: ""}
        try:
            box, product = marked_box(region), safety.check_text(product, "The product's name", 120)
            if box is None or not product or not domain:
                return
            picture = self._picture(owner, run)[1]
            work = lambda: named_at(self.engine, picture, box, product, domain)  # noqa: E731
            for event in self.engine.queue.submit(owner, work):
                if event["event"] == "named":
                    yield {self.like: render.notice_html(event["words"], "plain")}
        except SageError as error:
            yield {self.like: render.notice_html(str(error))}

    def _picture(self, owner: str, run: str | None) -> tuple[Run, Path]:
        """A run, and its part as it was uploaded; raises `InputError` if it is gone."""
        kept = self.engine.runs.get(owner, run or "")
        if kept.original is None:
            raise InputError("The picture of this run is no longer here; inspect the part again.")
        return kept, kept.original

    def teach(
        self, run: str | None, places: list[int] | None, region: Any, shows: str, name: str | None, product: str,
        domain: str, new: str, token: Any, request: gr.Request,
    ) -> dict[Any, Any]:  # fmt: skip
        """Adds the part to the looks of the pack that the visitor confirmed; its picture is the one kept with the run."""
        try:
            kept, picture = self._picture(safety.owner_of(token, request), run)
            found = [kept.trace.regions[number - 1].box for number in places or ()]
            box = marked_box(region) or (around(found) if found else None)
            source = f"{kept.part}, inspected {kept.created[:10]}"
            fields, told = self.lesson.learn([picture], [box], source, shows, name, product, domain, new)
        except SageError as error:
            return {self.told: render.notice_html(str(error))}
        return {**fields, self.told: render.notice_html(told, "done")}


def named_at(engine: Engine, picture: Path, box: Box, product: str, domain: str) -> Iterator[dict[str, Any]]:
    """What the looks of a pack call a region that was pointed at.

    Yields:
        {"event": "named", "words"}; nothing if fewer than two kinds of defect were taught.
    """
    extractor = engine.inspector().resources.extractor
    goods = [load_image(path) for path in good_references(domain, product)]
    naming = candidates(domain, product, load_image(picture), None, extractor, references=goods, box=box)
    if naming is not None and len(naming.candidates) > 1:
        words = naming.in_words()
        yield {"event": "named", "words": f"What you marked: {words[0].lower()}{words[1:]}."}


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
        self.boxes = gr.State({})
        self.shown = gr.State("")
        with gr.Row(equal_height=False):
            with gr.Column(scale=4, min_width=300):
                self.pictures = reference_gallery(engine, "Pictures that all show the same", "looks-pictures")
                self.region = region_field("looks-region")
                self.marks = gr.HTML(elem_id="looks-marks")
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
        pointing = [self.region, self.marks, self.shown]
        about = [self.pictures, self.boxes, lesson.shows]
        self.pictures.change(self.offer, [*about, self.shown], pointing, **private)
        lesson.shows.input(self.offer, [*about, self.shown], pointing, **private)
        self.pictures.select(self.point_at, about, pointing, **private)
        # Each change in its turn: one that came while another was under way would be lost.
        self.region.input(
            self.mark, [self.region, self.pictures, self.boxes, self.shown], [self.boxes, self.marks],
            trigger_mode="multiple", concurrency_limit=1, **private,
        )  # fmt: skip
        self.go.click(
            self.teach, [self.pictures, self.boxes, *lesson.inputs],
            [self.told, self.pictures, self.boxes, lesson.domain, lesson.new, *pointing, *listed], **private,
        )  # fmt: skip
        for field in (lesson.product, lesson.domain):
            field.input(self.listed, [lesson.product, lesson.domain], listed, trigger_mode="always_last", **private)
        self.gallery.select(self.choose, self.files, [self.chosen, self.remove], **private)
        self.remove.click(self.take_out, [self.chosen, lesson.product, lesson.domain], [self.told, *listed], **private)

    def offer(self, pictures: Any, boxes: dict[str, Box], shows: str, shown: str) -> dict[Any, Any]:
        """A picture in which the defect can be marked: the one that was shown, else the first."""
        paths = safety.reference_paths(pictures)
        if not paths or shows != DEFECT:
            return {self.region: gr.HTML(visible=False), self.marks: "", self.shown: ""}
        shown = shown if shown in paths else paths[0]
        try:
            image = load_image(checked_picture(self.engine, shown))
        except SageError as error:
            return {self.region: gr.HTML(visible=False), self.marks: render.notice_html(str(error)), self.shown: ""}
        return {
            self.region: showing(webp(fitted(image)), image.size, box=boxes.get(shown)),
            self.marks: marks_html(paths, boxes, shown),
            self.shown: shown,
        }

    def point_at(self, pictures: Any, boxes: dict[str, Box], shows: str, picked: gr.SelectData) -> dict[Any, Any]:
        """The picture that was clicked, to be marked."""
        return self.offer(pictures, boxes, shows, safety.reference_paths(pictures)[picked.index])

    def mark(self, region: Any, pictures: Any, boxes: dict[str, Box], shown: str) -> dict[Any, Any]:
        """Keeps what was marked in the picture that is shown."""
        try:
            box = marked_box(region)
        except SageError as error:
            return {self.boxes: boxes, self.marks: render.notice_html(str(error))}
        kept = {path: one for path, one in boxes.items() if path != shown} | ({shown: box} if box else {})
        return {self.boxes: kept, self.marks: marks_html(safety.reference_paths(pictures), kept, shown)}

    def teach(
        self, pictures: Any, boxes: dict[str, Box], shows: str, name: str | None, product: str, domain: str, new: str
    ) -> dict[Any, Any]:
        """Adds the uploaded pictures to the looks of a pack."""
        try:
            given = safety.reference_paths(pictures)
            paths = [checked_picture(self.engine, path) for path in given]
            if not paths:
                raise InputError("There is no picture to learn from; drop some into the field.")
            places = [boxes.get(path) for path in given]
            fields, told = self.lesson.learn(paths, places, "added on the page", shows, name, product, domain, new)
        except SageError as error:
            return {self.told: render.notice_html(str(error))}
        shown = self.listed(product, new.strip() or domain)
        emptied = {self.pictures: None, self.boxes: {}, **self.offer(None, {}, shows, "")}
        return {**fields, **emptied, **shown, self.told: render.notice_html(told, "done")}

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


def marks_html(paths: Sequence[str], boxes: dict[str, Box], shown: str) -> str:
    """Which picture is shown, and in how many the defect is marked; nothing where that goes without saying."""
    if len(paths) == 1:
        return ""
    marked = sum(path in boxes for path in paths)
    said = f"Picture {paths.index(shown) + 1} of {len(paths)}; marked in {marked}. Click another one above to mark it, too."
    return render.notice_html(said, "plain")
