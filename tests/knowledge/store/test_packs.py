"""Packs on disk: read what people write, name what is wrong, survive what crashes leave behind."""

import json
import os

import pytest

from sage_ad.knowledge.facts import KINDS
from sage_ad.knowledge.store.cards import card_words, read_card_file
from sage_ad.knowledge.store.new_pack import create_pack
from sage_ad.knowledge.store.packs import (
    SHIPPED,
    append_records,
    append_to_logs,
    list_pack_files,
    read_fact_yaml,
    read_log,
    read_pack,
)
from sage_ad.vlm.errors import BackendError, InputError


@pytest.fixture
def pack(tmp_path):
    """A small pack: (its root, a function that writes a file of it and returns that file as the store lists it)."""

    def write(name, content, domain="tyres"):
        path = tmp_path / domain / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
        return next(file for file in list_pack_files(tmp_path, shipped=False) if file.path == path)

    return write


def test_every_shipped_pack_can_be_read():
    files = list_pack_files(SHIPPED, shipped=True)
    names = {file.domain for file in files}
    assert {"photovoltaics", "casting", "bare-pcb", "general"} <= names
    for file in files:
        if file.path.name == "pack.yaml":
            assert read_pack(file.path).name == file.domain
        elif file.path.parent.name == "cards":
            assert read_card_file(file.path, file.label)
        else:
            assert read_fact_yaml(file)


def test_kind_comes_from_the_file_and_source_is_the_file(pack):
    file = pack("facts/cause.yaml", "- text: Under-inflation bends the sidewall.\n  products: [car tyre]\n")
    (fact,) = read_fact_yaml(file)
    assert (fact.kind, fact.status, fact.products) == ("cause", "approved", ("car tyre",))
    assert fact.source == "domains/tyres/facts/cause.yaml"


def test_an_entry_may_say_its_own_kind_and_status(pack):
    file = pack("facts/mixed.yaml", "- {text: Cords may show., kind: appearance, status: proposed}\n")
    assert [(fact.kind, fact.status) for fact in read_fact_yaml(file)] == [("appearance", "proposed")]


def test_an_empty_file_has_no_facts(pack):
    assert read_fact_yaml(pack("facts/cause.yaml", "# nothing yet\n")) == []


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("- text: [unclosed\n", "line 2"),
        ("text: not a list\n", "list of facts"),
        ("- just a sentence\n", "entry 1"),
        ("- text: Good.\n- txt: Misspelt.\n", "entry 2"),
        ("- text: ''\n", "entry 1"),
    ],
)
def test_what_cannot_be_used_is_named_with_its_place(pack, content, complaint):
    with pytest.raises(InputError, match=complaint) as caught:
        read_fact_yaml(pack("facts/cause.yaml", content))
    assert "domains/tyres/facts/cause.yaml" in str(caught.value)


def test_yaml_cannot_run_code(pack, tmp_path):
    file = pack("facts/cause.yaml", f"- text: !!python/object/apply:os.mkdir ['{tmp_path}/made']\n")
    with pytest.raises(InputError):
        read_fact_yaml(file)
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("content", ["[]", "title: no name\n", "name: x\nproduct: []\n", "name: ../x\n"])
def test_an_unusable_head_is_refused(pack, content):
    with pytest.raises(InputError):
        read_pack(pack("pack.yaml", content).path)


def test_a_number_may_be_a_version(pack):
    assert read_pack(pack("pack.yaml", "name: tyres\nversion: 1.0\n").path).version == "1.0"


def test_a_new_pack_is_readable_and_shows_how(tmp_path):
    folder = create_pack(tmp_path, "car-tyres")
    assert read_pack(folder / "pack.yaml").name == "car-tyres"
    example = (folder / "facts" / "appearance.yaml").read_text()
    assert all(kind in example for kind in KINDS)
    _, cards, facts = list_pack_files(tmp_path, shipped=False)
    assert read_fact_yaml(facts) == []
    assert [card.name for card in read_card_file(cards.path, cards.label)] == ["scratch"]
    assert all(words in cards.path.read_text(encoding="utf-8") for words in card_words().values())


@pytest.mark.parametrize("name", ["casting", "car-tyres"])
def test_a_taken_name_is_refused(tmp_path, name):
    create_pack(tmp_path, "car-tyres")
    with pytest.raises(InputError, match="exists"):
        create_pack(tmp_path, name)


class TestLog:
    """The append-only log."""

    @pytest.fixture
    def log(self, tmp_path):
        return tmp_path / "facts" / "records.jsonl"

    def test_what_is_appended_is_read(self, log):
        append_records(log, [{"id": "a", "text": "größer"}])
        append_records(log, [{"id": "b"}])
        assert [record["id"] for record in read_log(log, "log").records] == ["a", "b"]

    @pytest.mark.parametrize("torn", [b'{"id": "b", "te', b'{"id": "b"}', b"\xff\xfe", b"x" * 200_000])
    def test_a_torn_last_line_is_not_read_and_cut_off_by_the_next_write(self, log, torn):
        append_records(log, [{"id": "a"}])
        with log.open("ab") as stream:
            stream.write(torn)
        part = read_log(log, "log")
        assert ([record["id"] for record in part.records], part.problems) == (["a"], [])
        append_records(log, [{"id": "c"}])
        part = read_log(log, "log")
        assert ([record["id"] for record in part.records], part.problems) == (["a", "c"], [])

    def test_a_file_that_is_nothing_but_torn(self, log):
        append_records(log, [{"id": "a"}])
        log.write_bytes(b'{"id')
        append_records(log, [{"id": "b"}])
        assert log.read_bytes() == b'{"id": "b"}\n'

    def test_a_damaged_line_in_the_middle_is_reported_and_the_rest_read(self, log):
        append_records(log, [{"id": "a"}, {"id": "b"}])
        log.write_bytes(log.read_bytes().replace(b'{"id": "a"}', b'{"id: "a"}'))
        part = read_log(log, "the log")
        assert [record["id"] for record in part.records] == ["b"]
        assert "the log" in part.problems[0]

    def test_reading_goes_on_where_it_ended(self, log):
        append_records(log, [{"id": "a"}])
        offset = read_log(log, "log").offset
        append_records(log, [{"id": "b"}])
        assert [record["id"] for record in read_log(log, "log", offset).records] == ["b"]

    def test_a_full_disk_leaves_the_log_as_it_was(self, log, monkeypatch):
        append_records(log, [{"id": "a"}])
        before = log.read_bytes()
        real = os.write

        def half(descriptor, data):
            if len(data) > 10:
                return real(descriptor, bytes(data)[:10])
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "write", half)
        with pytest.raises(BackendError, match="No space left"):
            append_records(log, [{"id": "b", "text": "x" * 9}])
        monkeypatch.undo()
        assert log.read_bytes() == before
        append_records(log, [{"id": "c"}])
        assert json.loads(log.read_text().splitlines()[-1]) == {"id": "c"}


def test_several_logs_are_written_together_or_not_at_all(tmp_path):
    first, second = tmp_path / "a" / "records.jsonl", tmp_path / "b" / "records.jsonl"
    append_records(first, [{"id": "a"}])
    before = first.read_bytes()
    second.mkdir(parents=True)  # a folder where the log should be
    with pytest.raises(BackendError, match="Nothing was stored"):
        append_to_logs({first: [{"id": "b"}], second: [{"id": "c"}]})
    assert first.read_bytes() == before
    second.rmdir()
    append_to_logs({first: [{"id": "b"}], second: [{"id": "c"}]})
    assert [record["id"] for record in read_log(first, "log").records] == ["a", "b"]
