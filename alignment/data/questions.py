"""Questions and answers for stage 1 (fact-enhanced fine-tuning), made from measured parts and the knowledge base.

Each part is asked five questions of three families and both polarities (`sage_ad.evaluation.questions`), and to explain
what was found. An answer names the state first, then the verdict for the question as asked, then the reason:

    anomalous. False. There is a crack in the upper left area.

so that what was seen is said before how the question was turned. State, place and name are those that an inspection has at
hand (`as_measured`): the model learns to say what is known, and that a name is not. Facts are attached as they would be
recalled, never by the label: a good part gets facts about some defect of its kind too. Writing facts is a task of its own.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from sage_ad.alignment.data.labelled import LabelledPart, Picture, seeded
from sage_ad.vlm.errors import InputError

if TYPE_CHECKING:
    from sage_ad.evaluation.questions import GoldQuestion
    from sage_ad.knowledge.facts import Fact
    from sage_ad.knowledge.store.fact_store import FactStore
    from sage_ad.vlm.sage.visual_inputs import VisualInputs

TOPICS = 3
"""Defects that the facts of one part turn about."""

UNNAMED, UNTAUGHT, HIDDEN, SURE = 0.1, 0.3, 0.2, 0.5
"""Shares of the parts whose product is not named; of the anomalous ones, those for which no name was taught, of the rest
those whose own name was not, and of what remains those with a first name that is asserted."""

WORDINGS_FILE = Path(__file__).with_name("wordings.yaml")


@dataclass(frozen=True)
class Stage1Settings:
    """How examples are made.

    Attributes:
        seed: chooses wordings, references that are left out, facts.
        one_shot: share of the parts that come with a reference (where they have one); the others are zero-shot.
        facts: facts attached to a question, at most.
        no_facts: share of the parts that come without facts, so that the model does not depend on them.
        fact_tasks: tasks of writing facts for each product.
        own_wordings: share of the answers that use the wordings of this room beside those of `evaluation`.
    """

    seed: int = 0
    one_shot: float = 0.5
    facts: int = 6
    no_facts: float = 0.1
    fact_tasks: int = 4
    own_wordings: float = 0.6

    def __post_init__(self) -> None:
        for name in ("one_shot", "no_facts", "own_wordings"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"{name}={getattr(self, name)} is no share; give a number from 0 to 1.")


@dataclass(frozen=True, kw_only=True)
class Stage1Example:
    """One question with its answer.

    Attributes:
        id: unique and stable.
        group: the image; its five questions share it, and stay together when examples are split.
        task: "inspect" a picture, or write "facts".
        names: as `LabelledPart.names`.
        picture, reference: what is seen; no reference is zero-shot, no picture is the task of writing facts.
        question, answer: the words; the answer begins with the verdict token.
        family, polarity, verdict: of the question and its right answer; None for writing facts.
        anomalous, defect, place: the labels.
        product, domain, category: what it is about; `category` keeps train and test apart.
        facts: fact sentences that stand beside the question.
        source: "real", "drawn", "pasted" or "facts".
    """

    id: str
    group: str
    task: Literal["inspect", "facts"]
    picture: Picture | None = None
    reference: Picture | None = None
    question: str
    answer: str
    family: str | None = None
    polarity: str | None = None
    verdict: bool | None = None
    anomalous: bool | None = None
    defect: str | None = None
    place: str | None = None
    product: str
    domain: str | None
    category: str
    facts: tuple[str, ...] = ()
    names: tuple[tuple[str, float], ...] = ()
    source: str


class FactPool:
    """Facts of a product, chosen so that they tell nothing of the label.

    Args:
        store: the knowledge base.
    """

    def __init__(self, store: FactStore) -> None:
        self.store = store
        self._known: dict[tuple[str, str | None], tuple[str, list[Fact]]] = {}

    def about(self, product: str, domain: str | None = None) -> tuple[str, list[Fact]]:
        """The pack that serves a product, and its facts about the product or any product."""
        key = (product, domain)
        if key not in self._known:
            match = self.store.match_product(product)
            pack = domain if domain is not None and match.how == "unknown" else match.domain
            name = (match.product or product).casefold()
            facts = [
                fact
                for fact in self.store.facts(pack, status="approved")
                if not fact.products or name in (p.casefold() for p in fact.products)
            ]
            self._known[key] = pack, facts
        return self._known[key]

    def choose(self, part: LabelledPart, count: int, rng: random.Random) -> tuple[list[str], str | None]:
        """Facts for a part, and the one among them that tells what its defect leads to.

        The facts turn about `TOPICS` defects that such parts can have, in mixed order. The part's own defect is one of
        them, where the pack knows it; a good part gets as many. So neither how many defects the facts speak of nor
        which comes first tells the label: which of them it is must be seen.
        """
        _, facts = self.about(part.product, part.domain)
        named = sorted({d for fact in facts for d in fact.defects})
        own = _match(part.defect, named) if part.anomalous else None
        topics = rng.sample(
            [n for n in named if n != own], min(len(named) - (own is not None), TOPICS - (own is not None))
        )
        topics += [own] if own else []
        rng.shuffle(topics)
        picked: list[Fact] = []
        for kind in ("appearance", "consequence", None):
            for topic in topics:
                on_topic = [f for f in facts if topic in f.defects and f not in picked and kind in (None, f.kind)]
                picked += rng.sample(on_topic, min(1, len(on_topic)))
        picked = picked[:count]
        others = [f for f in facts if f not in picked]
        picked += rng.sample(others, min(len(others), count - len(picked)))
        rng.shuffle(picked)
        consequence = (
            next((f.text for f in picked if own in f.defects and f.kind == "consequence"), None) if own else None
        )
        return [fact.text for fact in picked], consequence


def stage1_examples(
    parts: Iterable[LabelledPart], pool: FactPool | None = None, settings: Stage1Settings | None = None
) -> Iterator[Stage1Example]:
    """Five examples of each part, then the tasks of writing facts about the products that were met.

    Args:
        parts: from `sage_ad.alignment.data.labelled` (real, pasted, drawn), in any order and mixture.
        pool: facts; None attaches none and leaves the tasks of writing them out.
        settings: shares and counts.
    """
    settings = settings or Stage1Settings()
    products: dict[str, str | None] = {}
    for part in parts:
        products.setdefault(part.product, part.domain)
        yield from inspection_examples(part, pool, settings)
    if pool is not None:
        for product, domain in products.items():
            yield from fact_examples(product, domain, pool, settings)


def shown_reference(part: LabelledPart, settings: Stage1Settings) -> Picture | None:
    """The reference that a part is compared with in training; None makes it zero-shot."""
    return part.reference if seeded(settings.seed, "shown", part.group).random() < settings.one_shot else None


def as_measured(part: LabelledPart, visual: VisualInputs, pool: FactPool, seed: int) -> LabelledPart:
    """A labelled part as an inspection has it: state, place and description by the evidence, names by what was taught.

    Taught names are drawn: none, those of other defects, or the own one among others. A first name of probability p is the
    right one in a share p of the parts, as the calibrated names of an inspection are. From the product's `ASSERTED` on it is
    the part's defect; below, and where the evidence passes the part, it has none.

    Args:
        part: as labelled.
        visual: what the evidence says of it.
        pool: knows the defects of the product.
        seed: of the draw.
    """
    from sage_ad.knowledge.looks.index import ASSERTED

    rng = seeded(seed, "measured", part.group)
    if rng.random() < UNNAMED:
        from sage_ad.evaluation.questions import product_words

        part = replace(part, product=product_words(None))
    names = _drawn_names(part, pool, ASSERTED, rng) if visual.anomalous else ()
    return replace(
        part,
        anomalous=visual.anomalous,
        place=visual.place if visual.anomalous else None,
        defect=names[0][0] if names and names[0][1] >= ASSERTED else None,
        description=visual.description,
        names=names,
    )


def _drawn_names(
    part: LabelledPart, pool: FactPool, asserted: float, rng: random.Random
) -> tuple[tuple[str, float], ...]:
    from sage_ad.alignment.synthetic.generate import DEFECTS

    if rng.random() < UNTAUGHT:
        return ()
    _, facts = pool.about(part.product, part.domain)
    known = sorted({d for fact in facts for d in fact.defects} | set(DEFECTS))
    own = part.defect if part.defect is not None and rng.random() >= HIDDEN else None
    others = rng.sample([name for name in known if name != part.defect], rng.randint(1, 4))
    if own is None:
        first = rng.uniform(0.1, 0.7)
    else:
        first = rng.uniform(asserted, 0.99) if rng.random() < SURE else rng.uniform(0.3, asserted)
        others = [own, *others] if rng.random() < first else [others[0], own, *others[1:]]
    rest = [rng.random() for _ in others]  # of the other names, and of none of them
    shares = sorted(((1 - first) * r / sum(rest) for r in rest[1:]), reverse=True)
    # The first name is the most probable one.
    return tuple(zip(others, (first, *(min(first, share) for share in shares)), strict=True))


def inspection_examples(part: LabelledPart, pool: FactPool | None, settings: Stage1Settings) -> Iterator[Stage1Example]:
    """Five questions about one part and its explanation; reference and facts are the same for all, as in an inspection."""
    rng = seeded(settings.seed, "part", part.group)
    reference = shown_reference(part, settings)
    facts, consequence = ([], None) if pool is None else pool.choose(part, settings.facts, rng)
    if rng.random() < settings.no_facts:
        facts, consequence = [], None
    shared: dict[str, Any] = {
        "group": part.group, "task": "inspect", "picture": part.picture, "reference": reference,
        "anomalous": part.anomalous, "defect": part.defect, "place": part.place, "product": part.product,
        "domain": part.domain if pool is None else pool.about(part.product, part.domain)[0],
        "category": part.category, "facts": tuple(facts), "names": part.names, "source": part.source,
    }  # fmt: skip
    for i, question in enumerate(questions_about(part, consequence, settings.seed)):
        text = question.text
        if reference is None:
            # Zero-shot there is nothing to compare with.
            text = text.replace("Compared with the reference, is", "Judging by its looks, is")
        yield Stage1Example(
            id=f"{part.group}#{i}",
            question=text,
            answer=_answer(question, part, consequence, rng, settings),
            family=question.family,
            polarity=question.polarity,
            verdict=question.verdict,
            **shared,
        )
    if part.description or not part.anomalous:
        prompt = rng.choice(_wordings()["explain"]["prompts"]).format(product=part.product)
        answer = explained(part, reference is not None, consequence, rng)
        yield Stage1Example(id=f"{part.group}#explain", question=prompt, answer=answer, **shared)


def questions_about(part: LabelledPart, consequence: str | None, seed: int) -> list[GoldQuestion]:
    """The five questions about a part; `consequence` is the fact that tells what its defect leads to."""
    from sage_ad.evaluation.questions import build_questions

    return build_questions(
        product=part.product,
        anomalous=part.anomalous,
        defect=part.defect,
        place=part.place,
        consequence=_clause(consequence),
        group=part.group,
        seed=seed,
    )


def fact_examples(
    product: str, domain: str | None, pool: FactPool, settings: Stage1Settings
) -> Iterator[Stage1Example]:
    """Tasks of writing facts about a product; the answers are facts of the knowledge base, one a line."""
    pack, facts = pool.about(product, domain)
    wordings = _wordings()["write_facts"]
    for i in range(settings.fact_tasks if facts else 0):
        rng = seeded(settings.seed, "facts", product, i)
        chosen = rng.sample(facts, min(len(facts), rng.randint(3, 5)))
        yield Stage1Example(
            id=f"facts/{product}#{i}",
            group=f"facts/{product}",
            task="facts",
            question=rng.choice(wordings["prompts"]).format(product=product, n=len(chosen)),
            answer="\n".join(wordings["line"].format(fact=fact.text) for fact in chosen),
            product=product,
            domain=pack,
            category=f"facts {product}",
            source="facts",
        )


def explained(part: LabelledPart, referenced: bool, consequence: str | None, rng: random.Random) -> str:
    """The explanation of a part as it was measured: what stands out and where, what it may be called, what follows."""
    from sage_ad.evaluation.questions import with_article

    data = _wordings()["explain"]
    fields = {"product": part.product, "against": data["against"]["reference" if referenced else "picture"]}
    if not part.anomalous:
        return f"normal. {rng.choice(data['normal']).format(**fields)}"
    fields |= {"place": part.place or "", "description": with_article(part.description)}
    listed = [(with_article(name), f"{share:.2f}") for name, share in part.names[:2]]
    if part.defect:
        kind = "named"
        fields |= {"defect": listed[0][0], "share": listed[0][1]}
    elif not part.names:
        kind = "untaught"
    elif 1 - sum(share for _, share in part.names) > part.names[0][1]:
        kind = "none"
    else:
        kind = "unsure"
        fields["names"] = " or ".join(f"{name} ({share})" for name, share in listed)
    lines = [rng.choice(data["found"]).format(**fields), rng.choice(data[kind]).format(**fields)]
    if consequence and part.defect:
        lines.append(consequence)
    return f"anomalous. {' '.join([*lines, rng.choice(data['action']).format(**fields)])}"


def _answer(
    question: GoldQuestion, part: LabelledPart, consequence: str | None, rng: random.Random, settings: Stage1Settings
) -> str:
    """State, verdict, reason."""
    from sage_ad.evaluation.questions import filled

    state = "anomalous" if part.anomalous else "normal"
    verdict = f"{question.verdict}. "
    reason = question.reference_answer.removeprefix(verdict)
    if rng.random() < settings.own_wordings:
        template = rng.choice(_wordings()["answers"][question.family][state])
        reason = filled(template, part.product, defect=part.defect, place=part.place, consequence=_clause(consequence))
    return f"{state}. {verdict}{reason}"


def _clause(sentence: str | None) -> str | None:
    """A fact sentence as it stands inside another: without its full stop, with a small first letter."""
    if not sentence:
        return None
    text = sentence.strip().rstrip(".")
    # "PCB", "X-ray": not every capital is the beginning of a sentence.
    return text if len(text) > 1 and not text[1].islower() and text[1] != " " else text[:1].lower() + text[1:]


def _match(defect: str | None, named: list[str]) -> str | None:
    """The pack's name for a defect: the same words, or a name of which one contains the other's last word."""
    if defect is None:
        return None
    words = defect.casefold()
    if words.startswith("missing "):
        words = "missing part"
    exact = [n for n in named if n.casefold() in (words, words.rstrip("s"))]
    head = words.split()[-1].rstrip("s")
    alike = [n for n in named if head in (w.rstrip("s") for w in n.casefold().split())]
    return next(iter([*exact, *alike]), None)


@cache
def _wordings() -> dict[str, Any]:
    import yaml

    return yaml.safe_load(WORDINGS_FILE.read_text(encoding="utf-8"))
