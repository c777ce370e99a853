"""`Fact`: one sentence that an inspection may cite, with everything needed to trace it to where it came from."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from sage_ad.vlm.errors import InputError

Kind = Literal["appearance", "cause", "consequence", "normal-variation", "inspection"]
Status = Literal["approved", "proposed", "rejected"]

KINDS: tuple[Kind, ...] = get_args(Kind)
"""What a fact tells: how a defect looks, why it arises, what it leads to, what is still normal, how to look for it."""

STATUSES: tuple[Status, ...] = get_args(Status)
"""An expert approved it; a machine proposed it and nobody judged it yet; an expert rejected it."""

MAX_TEXT = 2000
"""Longest text of a fact in characters: a fact is a sentence or two, not a chapter."""

_DOMAIN = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")


def now() -> str:
    """The present moment as ISO 8601 in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def normalise_text(text: str) -> str:
    """The form by which two texts are the same: compatible characters, lower case, single spaces, no full stop."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split()).rstrip(" .!;,")


def fact_id(domain: str, text: str) -> str:
    """The stable id of a fact: 16 hexadecimal digits of the SHA-256 of its domain and its normalised text."""
    return hashlib.sha256(f"{domain}\n{normalise_text(text)}".encode()).hexdigest()[:16]


def check_domain_name(name: str) -> str:
    """Returns `name`; raises `InputError` when it cannot name a domain (and so a folder)."""
    if not _DOMAIN.fullmatch(name):
        raise InputError(
            f"Domain name {name!r} cannot be used: take 1 to 64 lower-case letters, digits, '-' or '_', "
            "beginning with a letter or digit."
        )
    return name


class FactLocation(BaseModel):
    """Where in its source a fact stands.

    Attributes:
        page: page number from 1, for sources that have pages.
        span: first character and the one after the last, counted in the source's extracted text (of the page, if any).
        entry: path of a table row or JSON entry, such as "DS-MVTec/bottle/broken_large".
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    page: int | None = Field(default=None, ge=1)
    span: tuple[int, int] | None = None
    entry: str | None = None


class FactSource(BaseModel):
    """Where a fact came from: a file or a model, and how it was taken from there.

    Attributes:
        file: path or name of the source file; None when a model wrote the fact.
        model: name of the model that wrote the fact; None for a file.
        location: page, character span or table entry in the file.
        sha256: hash of the whole source file, so that a changed file is noticed.
        extractor: what took the fact from the source ("written by hand", "local-classifier", ...).
        date: when, ISO 8601.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    file: str | None = None
    model: str | None = None
    location: FactLocation | None = None
    sha256: str | None = None
    extractor: str | None = None
    date: str | None = None

    def __str__(self) -> str:
        """A short citation: `manual.pdf, page 3` or `model sage-tiny`."""
        name = self.file if self.file else f"model {self.model}" if self.model else "unknown source"
        place = self.location
        if place and place.page:
            name += f", page {place.page}"
        if place and place.entry:
            name += f", {place.entry}"
        return name


class Fact(BaseModel):
    """One sentence that an inspection may cite. Frozen: take `model_copy(update=...)` for a changed one.

    Attributes:
        id: `fact_id(domain, text)` of the text that it was first written with; an edit keeps the id, so that a citation
            in an old trace still finds its fact.
        text: the sentence itself, one line, single spaces.
        domain: name of the pack that it belongs to.
        kind: one of `KINDS`.
        status: one of `STATUSES`.
        products: names of the products that it is about; empty means every product of the domain.
        defects: names of the defects that it is about.
        sources: where it came from; several after near-duplicates were merged.
        flags: what the checks found, such as "contradicts 1234...", "instruction".
        added: when it was stored, ISO 8601; None before that and for shipped facts without a date.
        edited: when it was last changed by a person; None when never.

    Raises:
        pydantic.ValidationError: for an empty or overlong text, an unknown kind or status, or an unusable domain name
            (`fact_from_record` turns that into an `InputError`).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str = Field(default="", pattern=r"^[0-9a-f]{16}$")
    text: str = Field(min_length=1, max_length=MAX_TEXT)
    domain: str = Field(pattern=f"^{_DOMAIN.pattern}$")
    kind: Kind
    status: Status = "proposed"
    products: tuple[str, ...] = ()
    defects: tuple[str, ...] = ()
    sources: tuple[FactSource, ...] = ()
    flags: tuple[str, ...] = ()
    added: str | None = None
    edited: str | None = None

    @field_validator("text", mode="before")
    @classmethod
    def _one_line(cls, text: Any) -> Any:
        if not isinstance(text, str):
            return text
        if text.isprintable():  # nearly all texts: nothing hidden, no space but the plain one
            return " ".join(text.split())
        # Control and invisible formatting characters could hide text from the expert who approves the fact.
        visible = "".join(" " if char.isspace() else char for char in text if char.isspace() or not _hidden(char))
        return " ".join(visible.split())

    @model_validator(mode="before")
    @classmethod
    def _give_id(cls, record: Any) -> Any:
        if isinstance(record, Mapping) and not record.get("id") and isinstance(record.get("text"), str):
            return {**record, "id": fact_id(str(record.get("domain")), cls._one_line(record["text"]))}
        return record

    @property
    def key(self) -> str:
        """`fact_id` of the present text: equal for two facts that say the same in the same domain."""
        return fact_id(self.domain, self.text)

    @property
    def source(self) -> str:
        """The sources in words, best known first."""
        return "; ".join(str(source) for source in self.sources) or "unknown source"

    def record(self) -> dict[str, Any]:
        """The fact as plain JSON types, without fields that are empty."""
        return self.model_dump(mode="json", exclude_none=True, exclude_defaults=True) | {"status": self.status}


def _hidden(char: str) -> bool:
    return unicodedata.category(char) in {"Cc", "Cf", "Co", "Cs", "Cn"}


def field_fault(error: Mapping[str, Any]) -> str:
    """What is wrong with a field, in words for the author of a file; `error` is one of `ValidationError.errors()`."""
    field = f"field {'.'.join(part for part in error['loc'] if isinstance(part, str)) or 'entry'!r}"
    if numbers := [part + 1 for part in error["loc"] if isinstance(part, int)]:
        field += f" (entry {numbers[0]})"
    given, kind = error.get("input"), error["type"]
    if kind == "missing":
        return f"{field} is missing"
    if kind == "extra_forbidden":
        return f"{field} is not known"
    if given is None:
        return f"{field} is empty"
    if kind == "tuple_type":
        return f"{field} must be a list ([one, another])"
    if kind in ("model_type", "model_attributes_type"):
        return f"{field} must have fields of its own ('name: ...')"
    if kind == "string_type":
        hint = "; put it in quotation marks" if isinstance(given, bool | int | float) else ""
        return f"{field} must be text, not {given!r}{hint}"
    if kind == "literal_error":
        return f"{field} cannot be {given!r}; use {error['ctx']['expected']}"
    return f"{field}: {error['msg']}"


def fact_from_record(record: Any, where: str) -> Fact:
    """Makes a fact of a decoded JSON or YAML entry.

    Args:
        record: a mapping with the fields of `Fact`.
        where: what the error should name, such as "facts/cause.yaml, entry 3".

    Raises:
        InputError: when a field is missing, unknown or unusable.
    """
    if not isinstance(record, Mapping):
        raise InputError(f"{where}: a fact must be a mapping with text, kind and so on, not {type(record).__name__}.")
    try:
        return Fact.model_validate(dict(record))
    except ValidationError as error:
        raise InputError(
            f"{where}: {field_fault(error.errors(include_url=False)[0])}; mend it and try again."
        ) from None
