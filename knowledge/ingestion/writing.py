"""How a language model writes facts about a product itself, when the knowledge base says too little about it.

Stage 1 of the paper begins so: the model, before any training, writes what it knows of the object, of the anomalies
that it tends to show and of their consequences (method.md, section 1). One short request a kind of fact, with two
worked examples of other products, is what even a very small model can follow. What it writes is *proposed*, names the
model as its source, and must pass `sage_ad.knowledge.ingestion.checks` like everything else.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sage_ad.knowledge.facts import KINDS, MAX_TEXT, Fact, FactSource, Kind, now
from sage_ad.knowledge.ingestion.extraction import parse_written, tidy
from sage_ad.knowledge.text.contradictions import profile
from sage_ad.knowledge.text.instructions import quote_fact
from sage_ad.knowledge.text.resources import resource
from sage_ad.knowledge.text.segmentation import split_sentences
from sage_ad.vlm.errors import InputError

if TYPE_CHECKING:
    from PIL import Image

    from sage_ad.vlm.backends.base import LanguageBackend

EXTRACTOR = "self-written"

_ORDER: tuple[Kind, ...] = ("appearance", "cause", "consequence", "normal-variation", "inspection")
_VARIED = 0.7  # temperature of the second and later requests for one kind, which would repeat the first otherwise


def write_facts(
    backend: LanguageBackend,
    *,
    product: str | None,
    domain: str | None,
    defect_hint: str | None = None,
    image: Image.Image | Path | str | None = None,
    caption: str | None = None,
    n: int = 6,
    seed: int = 0,
) -> list[Fact]:
    """Lets a model write facts about a product.

    Args:
        backend: the language model.
        product: name of the product; None when it is not known.
        domain: pack that the facts are for; None takes "general".
        defect_hint: what the evidence suggests ("thin dark line").
        image: a picture of the part, for models that read images; others go by the words.
        caption: what the picture shows, in words.
        n: number of requests; fewer facts come back when the model repeats itself or the examples it was shown, or
            writes no sentence.
        seed: for the requests that are sampled (the first of each kind is not).

    Returns:
        Facts that are proposed and have the model as their source; not checked and not stored.

    Raises:
        InputError: when there is nothing to write about, or n is below 1.
        BackendError: when the model fails.
    """
    if n < 1:
        raise InputError(f"{n} facts cannot be written; ask for 1 or more.")
    sees = image is not None and backend.capabilities.images
    if not (product or caption or defect_hint or sees):
        raise InputError("There is nothing to write facts about; give a product name, a caption, or a model with eyes.")
    kinds = [_ORDER[i % len(_ORDER)] for i in range(n)]
    shown = image if sees else None
    facts: dict[str, Fact] = {}
    for first in range(0, n, len(_ORDER)):
        part = kinds[first : first + len(_ORDER)]
        requests = [_request(kind, product, defect_hint, caption, shown) for kind in part]
        temperature = _VARIED if first else 0.0
        replies = backend.generate_batch(requests, max_new_tokens=64, temperature=temperature, seed=seed + first)
        for kind, reply in zip(part, replies, strict=True):
            for fact in _facts(reply, kind, product, domain or "general", backend.name):
                facts.setdefault(fact.key, fact)
    return list(facts.values())


def _request(
    kind: Kind, product: str | None, defect_hint: str | None, caption: str | None, image: Any
) -> list[dict[str, Any]]:
    """A chat with two worked examples of other products before the real question."""
    wording = resource("writing.yaml")
    messages: list[dict[str, Any]] = [{"role": "system", "content": wording["role"]}]
    for example in wording["examples"]:
        question = wording["questions"][kind].format(product=example["product"])
        messages.append({"role": "user", "content": question})
        messages.append({"role": "assistant", "content": example[kind]})
    question = wording["questions"][kind].format(product=_name(product))
    # Names and captions come from file names and from documents: they are quoted like facts.
    hints = [f"Picture: {quote_fact(caption)}"] if caption else []
    hints += [f"Seen on it: {quote_fact(defect_hint)}"] if defect_hint else []
    text = "\n".join([*hints, question])
    content: Any = text if image is None else [{"type": "image", "image": image}, {"type": "text", "text": text}]
    return [*messages, {"role": "user", "content": content}]


def _name(product: str | None) -> str:
    return quote_fact(product, limit=80).strip('"') if product else "part"


def _facts(reply: str, kind: Kind, product: str | None, domain: str, model: str) -> Iterator[Fact]:
    """The first sentence of a reply (or the entries of a list, where the model wrote one) as facts."""
    source = FactSource(model=model, extractor=EXTRACTOR, date=now())
    for text, own_kind in list(_sentences(reply))[:2]:
        if not text or _parrots(text):
            continue
        yield Fact(
            text=text[:MAX_TEXT],
            domain=domain,
            kind=own_kind or kind,
            status="proposed",
            products=(product,) if product else (),
            sources=(source,),
        )


def _parrots(text: str) -> bool:
    """Whether a sentence is a worked example with another product's name in it, which small models love to write."""
    words = profile(text).stems
    for example in resource("writing.yaml")["examples"]:
        theme = profile(example["product"]).stems
        copied = [profile(example[kind]).stems - theme for kind in KINDS]
        if any(len(words & theirs) >= 0.6 * len(theirs) for theirs in copied):
            return True
    return False


def _sentences(reply: str) -> Iterator[tuple[str, Kind | None]]:
    listed: Sequence[Any] = (
        parse_written(reply) or () if reply.lstrip().startswith(("[", "{", "-", "1.", "```")) else ()
    )
    if listed:
        yield from ((entry.text, entry.kind) for entry in listed)
        return
    sentences = split_sentences(reply)
    if sentences and sentences[0].text[-1:] in ".!":  # one that was cut off in the middle is none
        yield tidy(sentences[0].text), None
