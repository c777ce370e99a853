"""Text that gives orders to a model, whatever it hides behind, and how a fact is quoted so that it stays data.

Facts come from anybody's documents, and their text reaches prompts. Three things keep it from steering a verdict: text
that reads like an order is never stored as a fact (`instruction_reason`); every fact in a prompt stands inside
quotation marks with everything taken out that could end them (`quote_fact`); and the verdict comes from the measured
evidence. The patterns are a net, not a proof: the other two hold where it has a hole.
"""

from __future__ import annotations

import base64
import binascii
import codecs
import functools
import html
import re
import unicodedata
from collections.abc import Iterator
from urllib.parse import unquote

from sage_ad.knowledge.text.resources import resource

_LONGEST = 20_000  # characters that are looked at; a fact has at most 2,000

# Letters of other scripts that look like Latin ones.
_LOOKALIKES = str.maketrans(
    "аеорсухіјѕԁһӏմոԛԝАВЕКМНОРСТУХІЈЅαβεικνορτυχΑΒΕΖΗΙΚΜΝΟΡΤΥΧıɡⅼ",
    "aeopcyxijsdhlunqwABEKMHOPCTYXIJSabeiknoptuxABEZHIKMNOPTYXigl",
)
_LEET = (str.maketrans("0134578@$!", "oieastbasi"), str.maketrans("0134578@$!|", "oleastbasil"))
_SPACED = re.compile(r"(?<!\w)(?:\w[\s.\-_*·|/]){4,}\w(?!\w)")
_INNER_DOTS = re.compile(r"(?<=[a-z])[.\-_*·|/'](?=[a-z](?:[.\-_*·|/'][a-z]){2,})")
_BASE64 = re.compile(r"[A-Za-z0-9+/_-]{16,}={0,2}")
_HEX = re.compile(r"(?:(?:\\x|0x|%)?[0-9a-fA-F]{2}[\s,:]?){12,}")


def instruction_reason(text: str) -> str | None:
    """Why a text reads like an order to a model, in a few words with the place; None when it does not.

    Encodings (base64, hexadecimal, URL, HTML entities, rot13), invisible characters, letters of other scripts, figures
    for letters and letters set apart are undone first.
    """
    for version, how in _versions(text[:_LONGEST]):
        for reason, pattern in _patterns():
            if match := pattern.search(version):
                if how == "" and _benign(version):
                    return None
                shown = " ".join(match.group().split())[:60]
                return f"{reason} ({how + ': ' if how else ''}{shown!r})"
    return None


def quote_fact(text: str, limit: int = 600) -> str:
    """A fact as quoted data for a prompt: one line in double quotes, with nothing inside that could end or open a part.

    Args:
        text: the fact.
        limit: longest quotation in characters, marks included; a longer one ends in "...".
    """
    plain = "".join(" " if char.isspace() else char for char in unicodedata.normalize("NFKC", text) if _shown(char))
    plain = plain.translate(_QUOTED)
    plain = re.sub(r"`{2,}", "'", plain)
    plain = re.sub(r"([#=*~-])\1{2,}", r"\1", plain)
    plain = re.sub(r"\{[{%]|[%}]\}", " ", plain)
    plain = re.sub(r"\b(system|assistant|user|developer|human|tool|ai)\s*:", r"\1 -", plain, flags=re.I)
    plain = re.sub(r"\[\s*/?\s*(inst|sys)\w*\s*\]", r"(\1)", plain, flags=re.I)
    plain = " ".join(plain.split())
    if len(plain) > limit - 2:
        plain = plain[: max(0, limit - 5)].rstrip() + "..."
    return f'"{plain}"'


_QUOTED = str.maketrans({'"': "'", "“": "'", "”": "'", "„": "'", "«": "'", "»": "'", "<": "(", ">": ")", "\\": "/"})


def _shown(char: str) -> bool:
    return char.isspace() or unicodedata.category(char) not in {"Cc", "Cf", "Co", "Cs", "Cn"}


@functools.cache
def _patterns() -> tuple[tuple[str, re.Pattern[str]], ...]:
    rules = resource("instructions.yaml")
    return tuple(
        (rule["reason"], re.compile(pattern, re.I | re.S))
        for rule in (*rules["patterns"], *rules["foreign"])
        for pattern in rule["match"]
    )


@functools.cache
def _benign_patterns() -> tuple[re.Pattern[str], ...]:
    return tuple(re.compile(pattern, re.I) for pattern in resource("instructions.yaml")["benign"])


def _benign(text: str) -> bool:
    return any(pattern.search(text.strip()) for pattern in _benign_patterns())


def _versions(text: str) -> Iterator[tuple[str, str]]:
    """The text as it is read, then with every disguise undone that changes it; with a word on the disguise."""
    plain = unicodedata.normalize("NFKC", html.unescape(text))
    plain = "".join(" " if char.isspace() and char != "\n" else char for char in plain if _shown(char))
    yield plain, ""
    seen = {plain}
    for version, how in _undone(plain):
        if version not in seen:
            seen.add(version)
            yield version, how


def _undone(plain: str) -> Iterator[tuple[str, str]]:
    accents = "".join(c for c in unicodedata.normalize("NFD", plain) if unicodedata.category(c) != "Mn")
    latin = accents.translate(_LOOKALIKES)
    yield latin, "in look-alike letters"
    yield re.sub(r"[*_`~]+", "", latin), "in marked-up letters"
    if re.search(r"[a-zA-Z][0134578@$!]|[0134578@$!][a-zA-Z]", latin):
        for figures in _LEET:  # "1" stands for i as often as for l
            yield latin.translate(figures), "in figures for letters"
    joined = _INNER_DOTS.sub("", _SPACED.sub(lambda m: re.sub(r"[\s.\-_*·|/]", "", m.group()), latin))
    if joined != latin:
        yield joined, "in letters set apart"
        yield _words_apart(joined), "in letters set apart"
    yield re.sub(r"(?<=\w)-?\n\s*(?=\w)", "", plain), "over two lines"
    yield re.sub(r"\s+", " ", plain), "over several lines"
    if "%" in plain:
        yield unquote(plain), "URL-encoded"
    for match in _BASE64.finditer(plain):
        if decoded := _decoded(match.group()):
            yield decoded, "in base64"
    for match in _HEX.finditer(plain):
        if decoded := _from_hex(match.group()):
            yield decoded, "in hexadecimal"
    # Every text can be turned round, so these two are tried only where a telling word comes out.
    for version, how in ((codecs.encode(plain, "rot13"), "in rot13"), (plain[::-1], "backwards")):
        if any(word in version.lower() for word in _TELLING):
            yield version, how


_TELLING = ("ignore", "instruct", "disregard", "forget", "prompt", "system", "answer", "always", "respond", "verdict")
_KEYWORDS = ("ignore", "all", "previous", "prior", "instructions", "instruction", "rules", "system", "answer", "always")


def _words_apart(text: str) -> str:
    """Words that stand together once the letters are joined ("ignoreallpreviousinstructions"), set apart again."""
    for word in _KEYWORDS:
        text = re.sub(word, f" {word} ", text, flags=re.I)
    return re.sub(r"\s+", " ", text)


def _decoded(token: str) -> str | None:
    try:
        raw = base64.b64decode(token.replace("-", "+").replace("_", "/") + "=" * (-len(token) % 4), validate=True)
    except (binascii.Error, ValueError):
        return None
    return _readable(raw)


def _from_hex(token: str) -> str | None:
    digits = re.sub(r"\\x|0x|[%\s,:]", "", token)
    try:
        return _readable(bytes.fromhex(digits[: len(digits) // 2 * 2]))
    except ValueError:
        return None


def _readable(raw: bytes) -> str | None:
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        return None
    return text if sum(char.isalpha() or char == " " for char in text) > 0.8 * len(text) else None
