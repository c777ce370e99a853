"""Measures whole inspections: asks an inspector about a labelled set and scores every answer.

An inspector is known only by its protocol (`sage_ad.evaluation.inspection`), so a user's own is measured like ours. Each
inspected image is kept as soon as it is done; figures are computed from the kept rows (`evaluation.reports.answer_figures`).
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sage_ad.evaluation.datasets import InspectionDataset, Sample
from sage_ad.evaluation.datasets.sample_questions import questions_for
from sage_ad.evaluation.inspection import InspectionRequest, InspectionTrace, Inspector, load_inspector
from sage_ad.evaluation.questions import GoldQuestion, product_words
from sage_ad.evaluation.reports.answer_figures import CONSTANTS, constant_baseline, figures_of, report_json
from sage_ad.evaluation.reports.answer_scores import Answers, Task, add_similarity, image_row, score_batch
from sage_ad.evaluation.runs import ANSWERS, IMAGES, CellCache, Progress, cell_key, code_hash, write_rows
from sage_ad.vlm.errors import BackendError, InputError, SageError

if TYPE_CHECKING:
    from sage_ad.evaluation.inspection import Judge

PER_CLASS = 20
CHUNK = 16
"""Requests that go to an inspector together; so many images at most are lost when a run is killed."""

BATCH = 16
"""Images whose answers go to the judge together."""

TEMPLATE = "evidence-template"


@dataclass(frozen=True)
class AnswerSettings:
    """What is asked of whom.

    Attributes:
        inspector: name in the entry-point group `sage.inspectors`.
        options: settings passed to the inspector ("model", "facts", "device", ...), only those that were asked for.
        shots: 0 (no reference) or 1.
        judge: "local" or the URL of an OpenAI-compatible endpoint.
        per_class: at most so many good and so many defective images a category (0: all of them).
        limit: at most so many images in all, spread evenly; None sets no limit.
        seed: draws images, references and wordings.
    """

    inspector: str = "sage"
    options: dict[str, Any] = field(default_factory=dict)
    shots: int = 1
    judge: str = "local"
    per_class: int = PER_CLASS
    limit: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.shots not in (0, 1):
            raise InputError(f"Answers are measured with 0 or 1 reference, not {self.shots}.")
        if self.limit is not None and self.limit < 1:
            raise InputError(f"The limit must be at least 1 image, not {self.limit}.")
        if self.per_class < 0:
            raise InputError(f"The number of images a class cannot be negative ({self.per_class}); 0 takes all.")


# --- which images, which questions ----------------------------------------------------------------------------------


def standard_subset(dataset: InspectionDataset, settings: AnswerSettings) -> list[Sample]:
    """The images that are asked about: at most `per_class` good and defective ones a category, drawn by seed.

    With a limit, categories and states take turns until it is reached, so that a short run is still a balanced one.
    """
    queues: list[list[Sample]] = []
    for category in dataset.categories:
        tests = sorted(dataset.samples(category, "test"), key=lambda sample: sample.id)
        for state in (False, True, None):
            group = [sample for sample in tests if sample.anomalous is state]
            random.Random(f"{settings.seed}/{category}/{state}").shuffle(group)
            if group:
                queues.append(group[: settings.per_class or None])
    if settings.limit is None:
        return [sample for group in queues for sample in group]
    chosen: list[Sample] = []
    while len(chosen) < settings.limit and any(queues):
        for group in queues:
            if group and len(chosen) < settings.limit:
                chosen.append(group.pop(0))
    order = {name: place for place, name in enumerate(dataset.categories)}
    return sorted(chosen, key=lambda sample: (order[sample.category], bool(sample.anomalous), sample.id))


def reference_for(dataset: InspectionDataset, sample: Sample, settings: AnswerSettings) -> Path | None:
    """The one reference of an image: its own, else one good training image of its category, the same for all."""
    if settings.shots == 0:
        return None
    if sample.reference:
        return sample.reference
    pool = sorted(dataset.normals(sample.category), key=lambda other: other.id)
    if not pool:
        return None
    # The same draw as draw `seed` of `sage-eval detect`.
    return random.Random(f"{settings.seed}/{sample.category}").sample(pool, 1)[0].image


def asked(question: GoldQuestion) -> str:
    """The question as it is put to the inspector: a multiple-choice question brings its choices along."""
    if not question.options:
        return question.text
    choices = "\n".join(f"{letter}: {text}" for letter, text in question.options)
    return f"{question.text}\n{choices}\nAnswer with the letter of the right choice."


def tasks_of(dataset: InspectionDataset, settings: AnswerSettings) -> list[Task]:
    """One request an image; what a reader must know of it is added to the data set's notes."""
    tasks, alone = [], 0
    references: dict[str, Path | None] = {}
    for sample in standard_subset(dataset, settings):
        key = sample.id if sample.reference else sample.category
        if key not in references:
            references[key] = reference_for(dataset, sample, settings)
        reference = references[key]
        alone += settings.shots == 1 and reference is None
        questions = sample.questions or tuple(_built(dataset, sample, settings.seed))
        request = InspectionRequest(
            image=sample.image,
            references=[reference] if reference else [],
            questions=[asked(question) for question in questions],
            product=product_words(sample.category.rpartition("/")[2]),
        )
        tasks.append(Task(sample, questions, request))
    if alone:
        dataset.notes.append(f"{alone} images have no reference in the set and were inspected without one.")
    return tasks


def _built(dataset: InspectionDataset, sample: Sample, seed: int) -> list[GoldQuestion]:
    try:
        return questions_for(sample, seed=seed)
    except InputError as error:
        # Only the place comes from the mask; the image can still be asked about.
        dataset.report(sample.masks[0] if sample.masks else sample.image, str(error))
        return questions_for(replace(sample, masks=(), boxes=()), seed=seed)


# --- asking ---------------------------------------------------------------------------------------------------------


def make_inspector(settings: AnswerSettings) -> Inspector:
    """Loads the inspector with the settings that were asked for.

    Raises:
        InputError: there is no such inspector, or it does not take one of the settings.
    """
    try:
        return load_inspector(settings.inspector, **settings.options)
    except TypeError as error:
        names = ", ".join(settings.options)
        raise InputError(
            f"The inspector {settings.inspector!r} does not take the settings {names} ({error})."
        ) from None


def ask(
    inspector: Inspector, tasks: Sequence[Task], settings: AnswerSettings, cache: CellCache
) -> Iterator[tuple[Task, InspectionTrace | str]]:
    """Traces of all tasks in order, kept ones first looked up; a failed inspection gives its reason instead."""
    for start in range(0, len(tasks), CHUNK):
        chunk = tasks[start : start + CHUNK]
        keys = [_key(task, settings) for task in chunk]
        kept = [cache.get(key) for key in keys]
        todo = [task for task, value in zip(chunk, kept, strict=True) if value is None]
        fresh = _inspect(inspector, [task.request for task in todo])
        for task, key, value in zip(chunk, keys, kept, strict=True):
            trace = InspectionTrace.model_validate(value) if value is not None else next(fresh)
            if value is None and isinstance(trace, InspectionTrace):
                cache.put(key, trace.model_dump(mode="json"))
            yield task, trace


def _inspect(inspector: Inspector, requests: Sequence[InspectionRequest]) -> Iterator[InspectionTrace | str]:
    """Traces in order; after a failure the rest is inspected one by one, so that only what failed is lost."""
    traces = iter(inspector.inspect_many(requests))
    for place in range(len(requests)):
        try:
            yield next(traces)
        except StopIteration:
            yield "the inspector gave no trace for it"
        except Exception as error:  # an inspector may be anybody's: whatever it raises is named, and costs one image
            known = isinstance(error, SageError)
            yield str(error) if known else f"the inspector failed with {type(error).__name__}: {error}"
            # A generator that raised is spent.
            traces = iter(inspector.inspect_many(requests[place + 1 :]))


def _key(task: Task, settings: AnswerSettings) -> str:
    files = [task.request.image, *task.request.references]
    return cell_key(
        kind="answer",
        inspector=settings.inspector,
        options=settings.options,
        model=_model_stamp(settings.options.get("model")),
        request=task.request.model_dump(mode="json", exclude={"image", "references"}),
        image=task.sample.id,
        files=[(path.stat().st_size, path.stat().st_mtime_ns) if path.exists() else None for path in files],
        code=code_hash("agents", "vlm", "knowledge"),
    )


def _model_stamp(model: Any) -> list[tuple[str, int, int]] | None:
    """Files of a model that lies in a folder, so that a newly trained one is not mistaken for the old."""
    folder = Path(str(model)) if model else None
    if folder is None or not folder.is_dir():
        return None
    return [(p.name, p.stat().st_size, p.stat().st_mtime_ns) for p in sorted(folder.rglob("*")) if p.is_file()]


def inspect_and_score(
    dataset: InspectionDataset,
    tasks: Sequence[Task],
    settings: AnswerSettings,
    inspector: Inspector,
    judge: Judge,
    cache: CellCache,
    progress: Progress,
) -> Answers:
    """Asks one inspector about all tasks and scores its answers.

    Images whose inspection failed are named in `problems` and have no rows: they are no wrong answers, and no right
    ones.
    """
    result = Answers(settings.inspector, str(settings.options.get("model") or settings.inspector))
    seen: list[tuple[Task, InspectionTrace]] = []
    pairs = ask(inspector, tasks, settings, cache)
    for task, trace in progress.count(pairs, f"{settings.inspector}, images", len(tasks)):
        fault = trace if isinstance(trace, str) else _fault(task, trace)
        if fault or isinstance(trace, str):
            result.problems.append(f"{task.sample.id}: {fault}")
            continue
        seen.append((task, trace))
        result.images.append(image_row(task, trace))
        result.model = trace.model
    if not seen:
        raise BackendError(f"Every inspection by {settings.inspector!r} failed; the first: {result.problems[0]}")
    for start in progress.count(range(0, len(seen), BATCH), "Judging, batches", -(-len(seen) // BATCH)):
        result.rows += score_batch(seen[start : start + BATCH], dataset, judge, cache)
    add_similarity(result.rows)
    return result


def _fault(task: Task, trace: InspectionTrace) -> str | None:
    expected, given = len(task.questions), len(trace.answers)
    return f"{expected} questions were asked and {given} answers came back" if expected != given else None


def measure(
    dataset: InspectionDataset, settings: AnswerSettings, *, out: Path | None = None, progress: Progress | None = None
) -> dict[str, Any]:
    """Measures an inspector on a set, beside baselines that cost nothing.

    Args:
        dataset: the set, opened with `open_dataset`.
        settings: what is asked of whom.
        out: folder for answers.jsonl and images.jsonl; inspected images are kept there and found again.
        progress: where progress is said; None says nothing.

    Returns:
        The object that `sage-eval answer --json` prints.

    Raises:
        InputError: the set has no image to ask about, or inspector, judge or folder cannot be used.
    """
    from sage_ad.evaluation.judge.loading import load_judge

    progress = progress or Progress(quiet=True)
    cache = CellCache(out)
    tasks = tasks_of(dataset, settings)
    if not tasks:
        raise InputError(f"{dataset.root} has no readable test image to ask about; check the path and --categories.")
    judge = load_judge(settings.judge)
    answers = inspect_and_score(dataset, tasks, settings, make_inspector(settings), judge, cache, progress)
    if out:
        write_rows(out / ANSWERS, answers.rows)
        write_rows(out / IMAGES, answers.images)
    baselines = {name: constant_baseline(answers.rows, state) for name, state in CONSTANTS.items()}
    problems = list(answers.problems)
    if settings.inspector != TEMPLATE:
        plain = _template_baseline(dataset, tasks, settings, judge, cache, progress)
        baselines[TEMPLATE] = figures_of(plain)
        problems += [f"{TEMPLATE}: {problem}" for problem in plain.problems]
    problems += map(str, dataset.problems)
    return report_json(dataset.name, settings.shots, judge.name, answers, baselines, dataset.notes, problems)


def _template_baseline(
    dataset: InspectionDataset,
    tasks: Sequence[Task],
    settings: AnswerSettings,
    judge: Judge,
    cache: CellCache,
    progress: Progress,
) -> Answers:
    """The same questions, answered by the evidence threshold and a template."""
    from sage_ad.evaluation.template_inspector import EvidenceTemplateInspector

    options = {"device": settings.options["device"]} if "device" in settings.options else {}
    plain = replace(settings, inspector=TEMPLATE, options=options)
    return inspect_and_score(dataset, tasks, plain, EvidenceTemplateInspector(**options), judge, cache, progress)
