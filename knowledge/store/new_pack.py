"""The folder of a new pack, with examples to fill in."""

from __future__ import annotations

from pathlib import Path

from sage_ad.knowledge.facts import check_domain_name
from sage_ad.knowledge.store.cards import card_words
from sage_ad.knowledge.store.packs import SHIPPED, make_folder
from sage_ad.vlm.errors import BackendError, InputError
from sage_ad.vlm.files import sync, write_whole

_EXAMPLE_PACK = """\
# A pack: what is inspected, under which names. Its defects stand in cards/, what is known about it in facts/.
name: {name}
title: {title}
description: One sentence on what is inspected and how it is seen.
version: 0.1.0
licence: ""
products:
  - name: {product}
    synonyms: []
    de: []  # German names
    zh: []  # Chinese names
hints: []  # processes and materials ([anodised]) that speak for this pack where a product is typed under no known name
"""

_EXAMPLE_CARDS = """\
# One card a defect. Change this one to a defect of yours, add more, then run: sage-kb check
- name: scratch
  synonyms: [score mark, scrape]
  de: [Kratzer]
  zh: [划痕]
  products: []  # names of products in pack.yaml on which it occurs; [] means all of them
  look:  # against a good part at the same place; several words may stand in each list
    tone: [lighter]  # {tone}
    colour: []  # {colour}
    shape: [line]  # {shape}
    size: [tiny, small]  # {size}: below 0.1 %, 1 %, 10 % of the picture of the part, and above
    texture: [sharper]  # {texture}
    place: [surface]  # {place}
    number: [single, several]  # {number}
    text: A thin bright line with sharp edges that crosses the grain of the surface.
  taken_for:
    - name: hair or fibre
      difference: A fibre lies on the surface, throws a shadow and can be blown away.
  causes:
    - Parts that slide over one another or over grit.
  consequence: It spoils the look; on a sealing face it can leak.
  severity: cosmetic  # {severity}
  action: Compare with the limit sample; rework by polishing where the drawing allows it.
  standards: []  # numbers only, such as ISO 8785
"""

_EXAMPLE_FACTS = """\
# One entry a fact: a sentence that stands alone. Files are named for their kind:
# appearance, cause, consequence, normal-variation, inspection.
# Take the '#' away and write your own.
# - text: A scratch shows as a thin bright line with sharp edges that crosses the grain of the surface.
#   products: [{product}]
#   defects: [scratch]
"""


def create_pack(root: Path, name: str) -> Path:
    """Writes the folder of a new pack with an example to fill in.

    Args:
        root: the user's folder of packs.
        name: the new domain.

    Returns:
        The new folder.

    Raises:
        InputError: when the name cannot be used or is taken.
    """
    check_domain_name(name)
    folder = root / name
    if folder.exists() or (SHIPPED / name).is_dir():
        raise InputError(
            f"Domain {name!r} exists already; add to it with sage-kb add {name} FILE, or take another name."
        )
    product = name.replace("-", " ").replace("_", " ")
    try:
        make_folder(folder / "facts")
        make_folder(folder / "cards")
        write_whole(folder / "facts" / "appearance.yaml", _EXAMPLE_FACTS.format(product=product))
        write_whole(folder / "cards" / "cards.yaml", _EXAMPLE_CARDS.format(**card_words()))
        title = product[0].upper() + product[1:]
        write_whole(folder / "pack.yaml", _EXAMPLE_PACK.format(name=name, title=title, product=product))
        sync(folder / "facts")
        sync(folder)
    except OSError as error:
        raise BackendError(f"{folder} cannot be written ({error.strerror}); make room or mend its rights.") from None
    return folder
