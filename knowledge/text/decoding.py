"""Bytes of a text file as text, whatever program wrote them."""

from __future__ import annotations

import re
from pathlib import Path

from sage_ad.vlm.errors import InputError


def decode(path: Path, content: bytes) -> str:
    """Bytes of a text file (UTF-8, UTF-16 with or without its mark, Windows-1252) as text with "\\n" at line ends.

    Raises:
        InputError: when the bytes are no text, or text of another encoding.
    """
    encodings = ["utf-8-sig", "cp1252"]
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        encodings = ["utf-16"]
    elif b"\x00" in content:
        sample = content[:4096]
        little, big = sample[1::2].count(0), sample[0::2].count(0)
        if max(little, big) < len(sample) / 5 or min(little, big) > len(sample) / 50:
            raise InputError(
                f"{path} is no text file (it holds binary data); give text, or name it by its real format."
            )
        encodings = ["utf-16-le" if little > big else "utf-16-be"]
    for encoding in encodings:
        try:
            text = content.decode(encoding)
        except UnicodeDecodeError:
            continue
        if encoding != "cp1252" or not _NOT_WESTERN.search(text):
            return text.replace("\r\n", "\n").replace("\r", "\n")
    raise InputError(f"{path} is neither UTF-8 nor Windows-1252 text; save it as UTF-8.")


# Windows-1252 gives nearly every byte a character. These are signs of another encoding: rare characters, runs of accented
# letters (Cyrillic, Greek, Chinese), signs within words (Polish), and letters where DOS has its degree and micro signs.
_NOT_WESTERN = re.compile(
    "[^\x00-\x7f\xa0£§©«®°±²³´µ·¹º»¼½¾×÷€‚„…†‡‰‹‘’“”•–—™›ŠšŒœŽžŸÀ-ÿ¿¡ª¢¥¨]|[À-ÿ]{5}"
    "|(?<=[a-zA-Z])[¹³£¿¥¼¾º](?=[a-z])|\\d ?[æøñ](?:[^a-zà-ÿ]|[mCF]\\b)"
)
