"""The vector index against a plain dictionary, its damage, its neighbours in other processes and threads."""

import sqlite3
import threading

import faiss
import numpy as np
import pytest

from sage_ad.knowledge.vectors.index import UnusableIndex, VectorIndex
from sage_ad.vlm.errors import BackendError

DIMENSIONS = 16


def unit(rng, count):
    vectors = rng.standard_normal((count, DIMENSIONS)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.fixture
def open_index(tmp_path):
    opened = []

    def make(folder=tmp_path / "index", model="m"):
        opened.append(VectorIndex(folder, DIMENSIONS, model))
        return opened[-1]

    yield make
    for index in opened:
        index.close()


@pytest.fixture
def filled(open_index):
    """An index of three additions, and what it should hold: key -> (vector, label)."""
    index, rng, expected = open_index(), np.random.default_rng(1), {}
    for start, count in ((0, 60), (60, 60), (120, 20)):
        keys, vectors = [f"k{start + n}" for n in range(count)], unit(rng, count)
        labels = [{"c": n % 3} for n in range(count)]
        index.upsert(keys, vectors, labels)
        expected.update(zip(keys, zip(vectors, labels, strict=True), strict=True))
    return index, expected


def agree(index, expected, rng, label=None):
    """Whether the index answers as a search through the dictionary does."""
    query = unit(rng, 1)[0]
    hits = index.search(query, 8, None if label is None else {"c": [label]})
    exact = sorted(
        (float(v @ query) for v, lab in expected.values() if label is None or lab["c"] == label), reverse=True
    )
    np.testing.assert_allclose([score for _, score in hits], exact[:8], atol=2e-3)
    for key, score in hits:
        np.testing.assert_allclose(score, float(expected[key][0] @ query), atol=2e-3)


def size(index):
    """Bytes of the files of vectors."""
    return sum(path.stat().st_size for path in index.folder.glob("vectors-*"))


def test_any_sequence_of_changes_agrees_with_a_dictionary(open_index):
    index, rng, expected, count = open_index(), np.random.default_rng(0), {}, 0
    for step in range(150):
        choice = rng.random()
        some = list(rng.choice(sorted(expected), size=min(len(expected), 10), replace=False)) if expected else []
        if choice < 0.7 or not expected:
            fresh = int(rng.integers(1, 20))
            keys = list(dict.fromkeys([*some[:2], *(f"k{count + n}" for n in range(fresh))]))
            count += fresh
            vectors, labels = unit(rng, len(keys)), [{"c": int(rng.integers(3))} for _ in keys]
            index.upsert(keys, vectors, labels)
            expected.update(zip(keys, zip(vectors, labels, strict=True), strict=True))
        else:
            index.delete([*some, "absent"])
            for key in some:
                del expected[key]
        if step % 30 == 7:
            index.compact()
        if step % 40 == 9:
            index.close()
            index = open_index()
        agree(index, expected, rng)
        agree(index, expected, rng, label=2)
    assert (len(index), sorted(index.keys())) == (len(expected), sorted(expected))
    index.verify()


def test_a_compaction_gives_the_same_answers_without_the_deleted(filled, open_index):
    index, expected = filled
    before = size(index)
    for key in [f"k{n}" for n in range(0, 140, 2)]:
        index.delete([key])
        del expected[key]
    other = open_index(index.folder)
    index.compact()
    assert size(index) == before / 2
    rng = np.random.default_rng(5)
    for same in (index, other, open_index(index.folder)):
        same.verify()
        for label in (None, 0, 1, 2):
            agree(same, expected, rng, label)


def test_a_file_that_is_mostly_deleted_vectors_is_compacted(open_index):
    index, rng = open_index(), np.random.default_rng(0)
    vectors, keys = unit(rng, 11_000), [f"k{n}" for n in range(11_000)]
    index.upsert(keys, vectors, [{}] * 11_000)
    index.delete(keys[10:])
    assert size(index) == 10 * 2 * DIMENSIONS
    assert index.search(vectors[3], 1)[0][0] == "k3"


def test_a_compaction_that_fails_changes_nothing(filled, open_index, monkeypatch):
    index, expected = filled
    index.delete(["k1"])
    del expected["k1"]

    def full(_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full)
        with pytest.raises(BackendError, match="No space left"):
            index.compact()
    assert len(list(index.folder.glob("vectors-*"))) == 1
    for same in (index, open_index(index.folder)):
        agree(same, expected, np.random.default_rng(2))


def test_an_addition_that_fails_changes_nothing(filled, open_index, monkeypatch):
    index, expected = filled

    def full(_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full)
        with pytest.raises(BackendError, match="No space left"):
            index.upsert(["k1", "more"], unit(np.random.default_rng(9), 2), [{"c": 0}, {"c": 0}])
    agree(index, expected, np.random.default_rng(2))
    vector = unit(np.random.default_rng(10), 1)
    index.upsert(["later"], vector, [{"c": 1}])
    expected["later"] = (vector[0], {"c": 1})
    for same in (index, open_index(index.folder)):
        same.verify()
        agree(same, expected, np.random.default_rng(2))


def test_clear_leaves_nothing(filled):
    index, expected = filled
    index.clear()
    assert (len(index), index.keys(), size(index)) == (0, [], 0)
    index.upsert(["k1"], expected["k2"][0][None], [{"c": 0}])
    assert [key for key, _ in index.search(expected["k2"][0], 3)] == ["k1"]


def test_a_reader_beside_a_writer_sees_each_state_whole(filled, open_index):
    writer, expected = filled
    reader = open_index(writer.folder)
    rng = np.random.default_rng(3)
    agree(reader, expected, rng)
    writer.compact()  # the file that the reader has mapped is gone
    agree(reader, expected, rng)
    writer.delete(["k5"])
    del expected["k5"]
    agree(reader, expected, rng)
    reader.upsert(["k5"], expected["k6"][0][None], [{"c": 1}])
    assert {key for key, _ in writer.search(expected["k6"][0], 2)} == {"k5", "k6"}


def test_threads_search_while_others_change(open_index):
    index, rng = open_index(), np.random.default_rng(0)
    fixed = unit(rng, 40)
    index.upsert([f"f{n}" for n in range(40)], fixed, [{"c": 0}] * 40)
    failures: list[object] = []
    done = threading.Event()

    def search():
        while not done.is_set():
            for n in (0, 17, 39):
                hits = index.search(fixed[n], 1, lambda label: label["c"] == 0)
                if not hits or hits[0][0] != f"f{n}":
                    failures.append((n, hits))

    threads = [threading.Thread(target=search) for _ in range(3)]
    for thread in threads:
        thread.start()
    for round_number in range(30):
        keys = [f"r{round_number}-{n}" for n in range(20)]
        index.upsert(keys, unit(rng, 20), [{"c": 1}] * 20)
        index.delete(keys[:10])
        if round_number % 10 == 5:
            index.compact()
    done.set()
    for thread in threads:
        thread.join()
    assert failures == []


class TestDamage:
    """A damaged or foreign index says so when it is opened."""

    @pytest.fixture
    def folder(self, filled):
        filled[0].close()
        return filled[0].folder

    @pytest.mark.parametrize(("harm", "word"), [("flip", "damaged"), ("cut", "cut off"), ("gone", "missing")])
    def test_vectors(self, folder, open_index, harm, word):
        (path,) = folder.glob("vectors-*")
        content = bytearray(path.read_bytes())
        if harm == "flip":
            content[len(content) // 2] ^= 1
            path.write_bytes(content)
        elif harm == "cut":
            path.write_bytes(content[: len(content) // 2])
        else:
            path.unlink()
        with pytest.raises(UnusableIndex, match=word):
            open_index(folder)

    def test_verify_reads_everything(self, filled):
        (path,) = filled[0].folder.glob("vectors-*")
        with path.open("r+b") as stream:
            stream.write(b"harm")
        with pytest.raises(UnusableIndex, match="damaged"):
            filled[0].verify()

    def test_entries(self, folder, open_index):
        (folder / "entries.sqlite").write_bytes(b"no database" * 1000)
        with pytest.raises(UnusableIndex, match="damaged"):
            open_index(folder)

    def test_entries_gone(self, folder, open_index):
        (folder / "entries.sqlite").unlink()
        with pytest.raises(UnusableIndex, match="empty"):
            open_index(folder)

    def test_another_model(self, folder, open_index):
        with pytest.raises(UnusableIndex, match=r"'m'.*'n'"):
            open_index(folder, model="n")

    def test_another_length(self, folder):
        with pytest.raises(UnusableIndex, match="dimensions"):
            VectorIndex(folder, 8, "m")

    def test_an_earlier_version(self, tmp_path, open_index):
        folder = tmp_path / "old"
        folder.mkdir()
        with sqlite3.connect(folder / "entries.sqlite") as db:
            db.execute("create table meta(key text primary key, value text)")
            old = {"format": "1", "model": "m", "dimensions": str(DIMENSIONS), "version": "3", "layout": "x"}
            db.executemany("insert into meta values(?,?)", old.items())
        db.close()
        with pytest.raises(UnusableIndex, match="format"):
            open_index(folder)

    def test_left_over_files_are_swept_up(self, folder, open_index):
        (folder / "vectors-crashed.f16").write_bytes(b"half")
        open_index(folder).compact()
        assert not (folder / "vectors-crashed.f16").exists()


@pytest.mark.parametrize(
    ("keys", "shape", "labels"), [(["a", "a"], (2, DIMENSIONS), 2), (["a"], (1, 3), 1), (["a"], (1, DIMENSIONS), 2)]
)
def test_unusable_additions_change_nothing(open_index, keys, shape, labels):
    index = open_index()
    with pytest.raises(ValueError):
        index.upsert(keys, np.zeros(shape), [{}] * labels)
    assert len(index) == 0


def test_asking_for_nothing_or_too_much(filled):
    index, expected = filled
    query = expected["k0"][0]
    assert index.search(query, 0) == []
    assert len(index.search(query, 1000)) == 140
    assert index.search(query, 5, keys=[]) == []
    assert index.search(query, 5, keys=["k0", "k139", "absent"])[0][0] == "k0"
    with pytest.raises(ValueError, match="numbers"):
        index.search(query[:3], 5)


class TestGpu:
    """Searching a copy gives what the mapped file gives; FAISS's CPU index stands in for its GPU one here."""

    @pytest.fixture
    def copies(self, monkeypatch):
        made = []

        def copy(resources, device, index):
            made.append(faiss.IndexFlatIP(index.d))
            made[-1].add(index.reconstruct_n(0, index.ntotal))
            return made[-1]

        monkeypatch.setattr(faiss, "get_num_gpus", lambda: 1)
        monkeypatch.setattr(faiss, "StandardGpuResources", object, raising=False)
        monkeypatch.setattr(faiss, "index_cpu_to_gpu", copy, raising=False)
        return made

    @pytest.fixture
    def large(self, open_index):
        """An index that is worth a copy; a few hundredths of its labels are 1, one is 2."""
        index, vectors = open_index(), unit(np.random.default_rng(0), 50_000)
        labels = [{"c": 2 if n == 7 else int(n % 40 == 0)} for n in range(50_000)]
        index.upsert([f"k{n}" for n in range(50_000)], vectors, labels)
        return index, {f"k{n}": pair for n, pair in enumerate(zip(vectors, labels, strict=True))}

    def test_few_vectors_are_not_copied(self, filled, copies):
        agree(*filled, np.random.default_rng(8))
        assert copies == []

    def test_answers_are_the_same(self, large, copies):
        index, expected = large
        rng = np.random.default_rng(8)
        agree(index, expected, rng)
        index.delete(["k3", "k70"])
        del expected["k3"], expected["k70"]
        vectors = unit(rng, 5)
        index.upsert([f"n{n}" for n in range(5)], vectors, [{"c": 1}] * 5)
        expected.update({f"n{n}": (vectors[n], {"c": 1}) for n in range(5)})
        assert index.search(vectors[4], 1)[0][0] == "n4"
        for label in (None, 0, 1, 2):
            agree(index, expected, rng, label)
        assert [copy.ntotal for copy in copies] == [50_005]
        index.compact()
        agree(index, expected, rng)
        assert copies[-1].ntotal == 50_003

    def test_more_than_a_gpu_can_find_is_left_to_the_mapped_file(self, large, copies):
        assert len(large[0].search(large[1]["k0"][0], 5000)) == 5000
        assert copies == []

    def test_full_memory_is_one_line(self, large, copies, monkeypatch, capsys):
        def full(*_):
            raise RuntimeError("out of memory")

        monkeypatch.setattr(faiss, "index_cpu_to_gpu", full)
        for _ in range(2):
            agree(*large, np.random.default_rng(8))
        assert capsys.readouterr().err.count("\n") == 1
