"""Reads preference data of every make as ranked answers: our lines, TRL's and LlamaFactory's columns, AD-PL records.

A row of TRL or LlamaFactory data is one pair, a chosen and a rejected answer, and becomes a list of two. Its pictures are
paths, data URLs or bytes in the file (Hugging Face's `Image` column); the reference comes first, the part last.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import io
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from sage_ad.evaluation.ranked import RankedAnswers, parse_record, read_ranked
from sage_ad.vlm.errors import InputError
from sage_ad.vlm.files import write_whole

TABLES = (".jsonl", ".json", ".parquet")
_FORMS = (
    "ranked answers (question, answers), TRL (prompt, chosen, rejected), LlamaFactory (conversations, messages or "
    "instruction, with chosen and rejected) or AD-PL (question_answer)"
)
_PLACEHOLDER = re.compile(r"\s*<\|?(?:image|image_pad|vision_start|vision_end)\|?>\s*")
_PATHS = ("image", "reference", "mask")


def read_preferences(
    path: Path, pictures: Path | None = None, unknown: Counter[str] | None = None
) -> list[RankedAnswers] | None:
    """Ranked answers of a file or set that holds such already; the paths of its pictures made absolute.

    Args:
        path: a file, or a folder of AD-PL records or Parquet files.
        pictures: folder for pictures that are embedded in the file; None keeps them in the cache.
        unknown: counts the keys of ranked lines that mean nothing here; None has them logged.

    Returns:
        The lines; None for a set of labelled images, for which answers have to be written.

    Raises:
        InputError: the file cannot be read, or a row is wrong; the message names it.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"{path} does not exist; give a file of {_FORMS}.")
    shards = sorted(path.glob("*.parquet")) if path.is_dir() else []
    if shards or (path.is_file() and path.suffix.lower() in TABLES):
        rows = [row for shard in shards or [path] for row in _rows(shard)]
        if not rows:
            raise InputError(f"{path} holds no ranked answers; give a file of {_FORMS}.")
        first = rows[0]
        if "question_answer" not in first and _is_table_of_answers(first):
            return _absolute(_lines(path, rows, pictures, unknown), path if shards else path.parent)
    from sage_ad.evaluation.datasets import detect_format

    try:
        name = detect_format(path)
    except InputError:
        if path.is_dir():
            raise
        raise InputError(f"{path} holds neither answers nor labelled images that are known; give {_FORMS}.") from None
    return _read_adpl(path) if name == "adpl" else None


def read_answers(path: Path, pictures: Path | None = None, unknown: Counter[str] | None = None) -> list[RankedAnswers]:
    """As `read_preferences`, for whoever cannot use labelled images without answers.

    Raises:
        InputError: as there, and for a set of labelled images.
    """
    lines = read_preferences(path, pictures, unknown)
    if lines is None:
        raise InputError(f"{path} holds labelled images but no answers; run sage-train build-preferences first.")
    return lines


def _is_table_of_answers(first: Mapping[str, Any]) -> bool:
    return bool({"answers", "chosen", "rejected", "completion", "conversations", "messages", "output"} & set(first))


def _lines(
    path: Path, rows: list[dict[str, Any]], pictures: Path | None, unknown: Counter[str] | None
) -> list[RankedAnswers]:
    if "answers" not in rows[0]:
        return list(from_pairs(rows, path.name, path.parent, pictures))
    if path.suffix.lower() == ".jsonl":
        return read_ranked(path, unknown)
    counted = Counter[str]() if unknown is None else unknown
    return [parse_record(path, number, row, counted) for number, row in enumerate(rows, start=1)]


def _read_adpl(path: Path) -> list[RankedAnswers]:
    from sage_ad.evaluation.datasets import open_dataset
    from sage_ad.evaluation.datasets.adpl import ADPL, ranked_lines

    dataset = open_dataset(path, "adpl")
    assert isinstance(dataset, ADPL)
    records = list(ranked_lines(dataset))
    if dataset.problems:
        more = f" (and {len(dataset.problems) - 1} more)" if len(dataset.problems) > 1 else ""
        raise InputError(f"{path}: {dataset.problems[0]}{more}; mend or remove it.")
    if alone := [record["id"] for record in records if len(record["answers"]) < 2]:
        raise InputError(f"{path}: {len(alone)} questions have fewer than two answers (the first: {alone[0]}).")
    if not records:
        raise InputError(f"{path} holds no question with two or more ranked answers; check its answer_options.")
    return _absolute(map(RankedAnswers.model_validate, records), Path())


def _absolute(lines: Iterable[RankedAnswers], folder: Path) -> list[RankedAnswers]:
    """The lines with paths that hold wherever they are written to; they start from the folder of the file."""
    return [
        line.model_copy(
            update={name: str((folder / value).resolve()) for name in _PATHS if (value := getattr(line, name))}
        )
        for line in lines
    ]


def beside(lines: Iterable[RankedAnswers], folder: Path) -> list[RankedAnswers]:
    """The lines as they are written into `folder`: pictures inside it by relative paths, so that it can be moved."""
    root = folder.resolve()

    def placed(value: str) -> str:
        there = Path(value)
        return there.relative_to(root).as_posix() if there.is_relative_to(root) else value

    return [
        line.model_copy(update={name: placed(value) for name in _PATHS if (value := getattr(line, name))})
        for line in lines
    ]


def missing_pictures(lines: Iterable[RankedAnswers]) -> list[str]:
    """The pictures (parts and references) that lines name and that do not exist, each once."""
    named = dict.fromkeys(name for line in lines for name in (line.image, line.reference) if name)
    return [name for name in named if not Path(name).is_file()]


def require_pictures(lines: Iterable[RankedAnswers], source: Path) -> None:
    """Raises `InputError`, naming the first, where pictures that lines name do not exist."""
    if missing := missing_pictures(lines):
        count = "a picture is" if len(missing) == 1 else f"{len(missing)} pictures are"
        raise InputError(f"{source}: {count} missing (the first: {missing[0]}); mend the path, or set it to null.")


# --------------------------------------------------------------------------------------------------------------- rows


def _rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a table; JSON may be an array, or lines."""
    if path.suffix.lower() == ".parquet":
        import pyarrow
        import pyarrow.parquet

        try:
            return pyarrow.parquet.read_table(path).to_pylist()
        except (OSError, pyarrow.ArrowException) as error:
            raise InputError(f"{path} cannot be read as Parquet ({error}); give another file.") from None
    try:
        text = path.read_text(encoding="utf-8-sig")
        rows = json.loads(text) if text.lstrip().startswith("[") else None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise InputError(f"{path} cannot be read as JSON ({error}); mend it or give another file.") from None
    if rows is None and path.suffix.lower() == ".json":
        try:
            rows = [json.loads(text)]
        except json.JSONDecodeError:
            rows = None
    if rows is None:
        rows = [_row(path, number, line) for number, line in enumerate(text.split("\n"), start=1) if line.strip()]
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, dict):
            raise InputError(f"{path}, row {number}: this is no JSON object; mend or remove it.")
    return rows


def _row(path: Path, number: int, line: str) -> Any:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise InputError(f"{path}, line {number}: this is no JSON ({error.msg}); mend or remove this line.") from None
    if not isinstance(row, dict):
        raise InputError(f"{path}, line {number}: this is no JSON object; mend or remove this line.")
    return row


def from_pairs(
    rows: Iterable[Mapping[str, Any]],
    source: str = "the data",
    folder: Path = Path("."),
    pictures: Path | None = None,
) -> Iterator[RankedAnswers]:
    """Rows of TRL or LlamaFactory preference data as ranked answers, the chosen one first.

    Args:
        rows: with a prompt (`prompt`, `conversations`, `messages`, `instruction` and `input`, or what `chosen` and
            `rejected` share), `chosen` and `rejected` (or `output`, a list with the better one first), and pictures in
            `images`, `image` and `reference`, or in the messages.
        source: name of the file, for errors.
        folder: where relative paths start from.
        pictures: folder for embedded pictures; None keeps them in the cache.

    Raises:
        InputError: a row has no question, the two answers are missing or alike, or there are too many pictures.
    """
    for number, row in enumerate(rows, start=1):
        where = f"{source}, row {number}"
        prompt, chosen, rejected = _parts(row, where)
        question, better, worse = _text(prompt, of_user=True), _text(chosen), _text(rejected)
        question = _PLACEHOLDER.sub(" ", question).strip()
        if not question or not better or not worse or better == worse:
            raise InputError(
                f"{where}: prompt, chosen or rejected is empty, or the answers are alike; mend or remove it."
            )
        image, reference = _part_and_reference(row, prompt, where, folder, pictures)
        yield RankedAnswers(
            id=str(row.get("id") or number),
            image=image,
            reference=reference,
            question=question,
            answers=[better, worse],
            rank_source="expert",
        )


def _parts(row: Mapping[str, Any], where: str) -> tuple[Any, Any, Any]:
    """Prompt, chosen and rejected of a row, each as text, message or messages."""
    chosen, rejected, output = row.get("chosen"), row.get("rejected"), row.get("output")
    if chosen is None and isinstance(output, list) and len(output) == 2:
        chosen, rejected = output
    if chosen is None and rejected is None:
        if "completion" in row or "label" in row or "kto_tag" in row:
            raise InputError(f"{where}: single answers with a label are no ranking; give pairs of chosen and rejected.")
        raise InputError(f"{where}: there is no chosen and no rejected answer; give {_FORMS}.")
    prompt = next((row[key] for key in ("prompt", "conversations", "messages") if row.get(key)), None)
    if prompt is None and row.get("instruction"):
        prompt = "\n".join(text for key in ("instruction", "input") if (text := row.get(key)))
    if prompt is None and row.get("question"):
        prompt = row["question"]
    if prompt is None and isinstance(chosen, list) and isinstance(rejected, list):
        shared = next((i for i, (a, b) in enumerate(zip(chosen, rejected, strict=False)) if a != b), 0)
        prompt, chosen, rejected = chosen[:shared], chosen[shared:], rejected[shared:]
    return prompt, chosen, rejected


def _messages(part: Any) -> list[Mapping[str, Any]]:
    found = [part] if isinstance(part, Mapping) else part if isinstance(part, list) else []
    return [message for message in found if isinstance(message, Mapping)]


def _content(message: Mapping[str, Any]) -> Any:
    """What a message says: TRL's and OpenAI's `content`, ShareGPT's `value`."""
    return message["content"] if message.get("content") is not None else message.get("value")


def _text(part: Any, of_user: bool = False) -> str:
    """The words of a text, of a message or of messages; of a prompt only what the user says."""
    if isinstance(part, str):
        return part.strip()
    texts: list[Any] = []
    for message in _messages(part):
        if of_user and str(message.get("role") or message.get("from") or "user") not in ("user", "human"):
            continue
        content = _content(message)
        if isinstance(content, str):
            texts.append(content)
        else:
            texts += [piece.get("text") for piece in content or [] if piece.get("type", "text") == "text"]
    return "\n".join(text.strip() for text in texts if text and text.strip())


# ----------------------------------------------------------------------------------------------------------- pictures


def _part_and_reference(
    row: Mapping[str, Any], prompt: Any, where: str, folder: Path, pictures: Path | None
) -> tuple[str | None, str | None]:
    """The files of the part and of its reference."""
    named = row.get("reference") or row.get("reference_image")
    found = _listed(row.get("images")) or _listed(row.get("image")) or list(_inline(prompt))
    shown = [*_listed(named), *found]
    if len(shown) > 2:
        raise InputError(
            f"{where}: there are {len(shown)} pictures, but a list is about one part and at most one reference (the "
            "reference first, the part last); leave the others out."
        )
    files = [file for image in shown if (file := _file(image, where, folder, pictures))]
    if len(files) < len(shown):
        raise InputError(f"{where}: a picture has neither a path nor bytes; mend or remove it.")
    return (files[-1] if files else None), (files[0] if len(files) == 2 else None)


def _listed(images: Any) -> list[Any]:
    if images is None or images == "":
        return []
    return [image for image in images if image is not None] if isinstance(images, list) else [images]


def _inline(prompt: Any) -> Iterator[Any]:
    """Pictures inside the messages of a prompt."""
    for message in _messages(prompt):
        content = _content(message)
        for piece in content if isinstance(content, list) else []:
            if piece.get("type") in ("image", "image_url"):
                value = next((piece[key] for key in ("image", "image_url", "path", "url") if piece.get(key)), None)
                if value is not None:
                    yield value


def _file(image: Any, where: str, folder: Path, pictures: Path | None) -> str | None:
    """The file of a picture, written first where it is embedded."""
    data = None
    if isinstance(image, Mapping):
        data, image = image.get("bytes"), image.get("path") or image.get("url")
    if data is None and isinstance(image, str) and image.startswith("data:"):
        try:
            data = base64.b64decode(image.partition(",")[2], validate=True)
        except binascii.Error:
            raise InputError(f"{where}: the picture's data URL is no Base64; mend or remove it.") from None
    if data is not None:
        return _written(bytes(data), where, pictures)
    if not isinstance(image, str) or not image:
        return None
    if image.startswith(("http://", "https://")):
        raise InputError(f"{where}: the picture {image} is on the web; download it and give its path.")
    if image.startswith("file://"):
        image = unquote(urlsplit(image).path)
    return str((folder / image).resolve())


def _written(data: bytes, where: str, pictures: Path | None) -> str:
    """A file with an embedded picture, named by its content."""
    from PIL import Image, UnidentifiedImageError

    from sage_ad.vlm.paths import cache_home

    try:
        with Image.open(io.BytesIO(data)) as opened:
            ending = (opened.format or "png").lower()
    except (UnidentifiedImageError, OSError, Image.DecompressionBombError):
        raise InputError(f"{where}: the embedded picture cannot be read; mend or remove it.") from None
    file = (pictures or cache_home() / "preference-pictures") / f"{hashlib.sha256(data).hexdigest()[:24]}.{ending}"
    try:
        if not file.is_file():
            write_whole(file, data)
    except OSError as error:
        raise InputError(f"{file} cannot be written ({error.strerror}); free space or choose another folder.") from None
    return str(file.resolve())
