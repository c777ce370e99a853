"""What strangers may not do: read other files, claim other names, send what is no picture."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image

from sage_ad.demo.services import safety
from sage_ad.demo.services.settings import DemoSettings, password_from_environment
from sage_ad.vlm.errors import InputError

LIMITS = {"max_bytes": 2**20, "max_pixels": 1_000_000}


@pytest.fixture
def uploads(tmp_path: Path) -> Path:
    folder = tmp_path / "uploads"
    folder.mkdir()
    return folder


def picture(path: Path, side: int = 64) -> Path:
    Image.new("RGB", (side, side), "grey").save(path)
    return path


def test_an_uploaded_picture_is_taken(uploads: Path) -> None:
    path = picture(uploads / "part.png")
    assert safety.check_picture(path, uploads, **LIMITS).name == "part.png"
    # As programs send it that give no file name.
    assert safety.check_picture(path.rename(uploads / "image"), uploads, **LIMITS).name == "image"


def test_files_outside_the_uploads_are_refused_whether_they_exist_or_not(uploads: Path, tmp_path: Path) -> None:
    outside = picture(tmp_path / "secret.png")
    link = uploads / "link.png"
    link.symlink_to(outside)
    said = set()
    for path in (outside, tmp_path / "absent.png", uploads / ".." / "secret.png", link, "/etc/passwd"):
        with pytest.raises(InputError) as caught:
            safety.check_picture(path, uploads, **LIMITS)
        said.add(str(caught.value))
    assert len(said) == 1, "the message tells whether a file exists"


@pytest.mark.parametrize(
    ("name", "content", "word"),
    [
        ("page.html", b"<script>alert(1)</script>", "ending"),
        ("drawing.svg", b"<svg xmlns='http://www.w3.org/2000/svg'/>", "ending"),
        ("noending", b"this is no picture", "ending"),
        ("text.png", b"this is no picture", "picture"),
        ("empty.jpg", b"", "empty"),
        ("cut.png", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", ""),
    ],
)
def test_bad_files_are_named_without_the_servers_folders(uploads: Path, name: str, content: bytes, word: str) -> None:
    path = uploads / name
    path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        safety.check_picture(path, uploads, **LIMITS)
    assert name in str(caught.value)
    assert word in str(caught.value)
    assert str(uploads) not in str(caught.value)


def test_too_large_pictures_are_refused(uploads: Path) -> None:
    path = picture(uploads / "wide.png", 1200)
    with pytest.raises(InputError, match="million"):
        safety.check_picture(path, uploads, **LIMITS)
    with pytest.raises(InputError, match="MB"):
        safety.check_picture(path, uploads, max_bytes=10, max_pixels=10**8)


def test_visitors_are_told_apart() -> None:
    def request(user: str | None = None, session: str = "s") -> SimpleNamespace:
        return SimpleNamespace(username=user, session_hash=session)

    owners = {
        safety.owner_of("a" * 32, request()),
        safety.owner_of("b" * 32, request()),
        safety.owner_of("", request(session="one")),
        safety.owner_of("", request(session="two")),
        safety.owner_of("a" * 32, request(user="ann")),
        safety.owner_of("a" * 32, request(user="bob")),
    }
    assert len(owners) == 6
    assert safety.owner_of("../../etc", request()) == safety.owner_of(None, request()), "no token: the session counts"
    assert safety.owner_of("a" * 32, request(user="ann")) == safety.owner_of("c" * 32, request(user="ann"))


def test_sources_show_file_names_and_not_folders() -> None:
    assert (
        safety.short_source("/srv/secret/manual.pdf, page 3; model sage-tiny") == "manual.pdf, page 3; model sage-tiny"
    )
    kept = "knowledge/domains/casting/facts/cause.yaml"
    assert safety.short_source(kept) == kept


def test_questions_are_lines_and_not_too_many() -> None:
    assert safety.questions_of(" Is it fine? \n\n Where? ") == ["Is it fine?", "Where?"]
    assert safety.questions_of(None) == []
    with pytest.raises(InputError, match="ten"):
        safety.questions_of("\n".join(f"Question {n}?" for n in range(11)))
    with pytest.raises(InputError, match="characters"):
        safety.questions_of("x" * 5000)


def test_control_characters_and_marks_that_turn_text_round_are_taken_out() -> None:
    assert safety.check_text("\u202evalve\x00\x1b[31m 3\u2066 é שלום", "The name") == "valve[31m 3 é שלום"
    assert safety.questions_of("Is it\u202e good?\x07\r\nWhere?") == ["Is it good?", "Where?"]


def test_a_message_does_not_tell_where_the_server_keeps_things(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAGE_HOME", str(tmp_path))
    told = safety.without_places(f"{tmp_path / 'domains' / 'x.yaml'} cannot be written; free room in {tmp_path}.")
    assert told == "domains/x.yaml cannot be written; free room in its folder."


def test_a_login_needs_name_and_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SAGE_DEMO_PASSWORD", raising=False)
    with pytest.raises(InputError, match="SAGE_DEMO_PASSWORD"):
        password_from_environment("ann")
    monkeypatch.setenv("SAGE_DEMO_PASSWORD", "secret")
    settings = DemoSettings(user="ann", password=password_from_environment("ann"))
    assert "secret" not in repr(settings)
    with pytest.raises(InputError, match="password"):
        DemoSettings(user="ann")
    with pytest.raises(InputError, match="--mcp or --user"):
        DemoSettings(user="ann", password="secret", mcp=True)


def test_only_an_address_open_to_others_is_warned_of() -> None:
    assert not DemoSettings().open_to_others
    assert DemoSettings(host="0.0.0.0").open_to_others
    assert DemoSettings(share=True).open_to_others
    assert not DemoSettings(share=True, user="ann", password="secret").open_to_others


@pytest.mark.parametrize("ending", [".jfif", ".jpe", ".jp2", ".gif", ".avif"])
def test_the_page_takes_what_the_command_takes(uploads: Path, ending: str) -> None:
    path = uploads / f"part{ending}"
    kind = {".jp2": "JPEG2000", ".gif": "GIF", ".avif": "AVIF"}.get(ending, "JPEG")
    Image.new("RGB", (64, 64), "grey").save(path, kind)
    assert safety.check_picture(path, uploads, **LIMITS) == path
