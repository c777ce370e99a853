"""The segmented index against a plain dictionary, its damage, its neighbours in other processes and threads."""

import threading

import faiss
import numpy as np
import pytest

from sage_ad.knowledge.vectors import gpu
from sage_ad.knowledge.vectors.index import VectorIndex
from sage_ad.knowledge.vectors.segments import UnusableIndex

DIMENSIONS = 16


def unit(rng, count):
    vectors = rng.standard_normal((count, DIMENSIONS)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.fixture
def open_index(tmp_path):
    opened = []

    def make(folder=tmp_path / "index", model="m", **settings):
        options = {"flush_at": 50, "most_segments": 3, "background": False, **settings}
        opened.append(VectorIndex(folder, DIMENSIONS, model, **options))
        return opened[-1]

    yield make
    for index in opened:
        index.close()


@pytest.fixture
def filled(open_index):
    """An index over two segments and a delta, and the truth: key -> (vector, label)."""
    index, rng, truth = open_index(most_segments=99), np.random.default_rng(1), {}
    for start, count in ((0, 60), (60, 60), (120, 20)):
        keys, vectors = [f"k{start + n}" for n in range(count)], unit(rng, count)
        labels = [{"c": n % 3} for n in range(count)]
        index.upsert(keys, vectors, labels)
        truth.update(zip(keys, zip(vectors, labels, strict=True), strict=True))
    return index, truth


def agree(index, truth, rng, label=None):
    """Whether the index answers as a search through the dictionary does."""
    query = unit(rng, 1)[0]
    hits = index.search(query, 8, None if label is None else lambda found: found["c"] == label)
    exact = sorted((float(v @ query) for v, lab in truth.values() if label is None or lab["c"] == label), reverse=True)
    np.testing.assert_allclose([hit.score for hit in hits], exact[:8], atol=2e-3)
    for hit in hits:
        np.testing.assert_allclose(hit.score, float(truth[hit.key][0] @ query), atol=2e-3)


def test_any_sequence_of_changes_agrees_with_a_dictionary(open_index):
    index, rng, truth, count = open_index(), np.random.default_rng(0), {}, 0
    for step in range(150):
        choice = rng.random()
        some = list(rng.choice(sorted(truth), size=min(len(truth), 10), replace=False)) if truth else []
        if choice < 0.6 or not truth:
            size = 60 if choice < 0.03 else int(rng.integers(1, 20))
            keys = list(dict.fromkeys([*some[:2], *(f"k{count + n}" for n in range(size))]))
            count += size
            vectors, labels = unit(rng, len(keys)), [{"c": int(rng.integers(3))} for _ in keys]
            index.upsert(keys, vectors, labels)
            truth.update(zip(keys, zip(vectors, labels, strict=True), strict=True))
        elif choice < 0.8:
            assert index.delete([*some, "absent"]) == len(some)
            for key in some:
                del truth[key]
        else:
            index.relabel(some, [{"c": 2}] * len(some))
            truth.update({key: (truth[key][0], {"c": 2}) for key in some})
        if step % 30 == 7:
            index.merge(everything=step % 60 == 7)
        if step % 40 == 9:
            index.close()
            index = open_index()
        agree(index, truth, rng)
        agree(index, truth, rng, label=2)
    assert (len(index), sorted(index.keys())) == (len(truth), sorted(truth))
    index.verify()


def test_row_numbers_are_never_used_twice(open_index):
    index, rng = open_index(), np.random.default_rng(0)
    seen = set()
    for _ in range(5):
        index.upsert(["a", "b"], unit(rng, 2), [{}, {}])
        rows = {row for (row,) in index.db.execute("select row from entries")}
        assert not rows & seen
        seen |= rows
        index.delete(["a", "b"])
    index.clear()
    index.upsert(["a"], unit(rng, 1), [{}])
    assert index.db.execute("select min(row) from entries").fetchone()[0] > max(seen)


def test_a_merge_gives_the_same_answers_without_the_deleted(filled, open_index):
    index, truth = filled
    for key in [f"k{n}" for n in range(0, 140, 2)]:
        index.delete([key])
        del truth[key]
    index.merge(everything=True)
    view = index.refresh()
    assert ([len(segment) for segment in view.segments], len(view.delta)) == ([70], 0)
    assert index.db.execute("select count(*) from dead").fetchone()[0] == 0
    rng = np.random.default_rng(5)
    for same in (index, open_index(index.folder)):
        for label in (None, 0, 1, 2):
            agree(same, truth, rng, label)


def test_changes_during_a_merge_are_kept(filled, monkeypatch):
    import sage_ad.knowledge.vectors.index as module

    index, truth = filled
    write = module.write_segment

    def meanwhile(*arguments):
        info = write(*arguments)
        monkeypatch.undo()
        index.delete(["k1"])
        index.relabel(["k2"], [{"c": 9}])
        vectors = unit(np.random.default_rng(9), 1)
        index.upsert(["new"], vectors, [{"c": 0}])
        truth.update({"new": (vectors[0], {"c": 0}), "k2": (truth["k2"][0], {"c": 9})})
        del truth["k1"]
        return info

    monkeypatch.setattr(module, "write_segment", meanwhile)
    index.merge(everything=True)
    assert sorted(index.keys()) == sorted(truth)
    rng = np.random.default_rng(6)
    for label in (None, 0, 9):
        agree(index, truth, rng, label)


def test_a_merge_is_given_up_when_the_segments_changed(filled, monkeypatch):
    import sage_ad.knowledge.vectors.index as module

    index, truth = filled
    write = module.write_segment

    def meanwhile(*arguments):
        info = write(*arguments)
        monkeypatch.undo()
        index.clear()
        return info

    monkeypatch.setattr(module, "write_segment", meanwhile)
    index.merge(everything=True)
    assert (len(index), index.search(truth["k1"][0], 3)) == (0, [])
    assert not list(index.folder.glob("segment-*"))


def test_a_reader_beside_a_writer_sees_each_state_whole(filled, open_index):
    writer, truth = filled
    reader = open_index(writer.folder, most_segments=99)
    rng = np.random.default_rng(3)
    agree(reader, truth, rng)
    writer.merge(everything=True)  # the files that the reader has mapped are gone
    agree(reader, truth, rng)
    writer.delete(["k5"])
    del truth["k5"]
    agree(reader, truth, rng)
    reader.upsert(["k5"], truth["k6"][0][None], [{"c": 1}])
    assert {hit.key for hit in writer.search(truth["k6"][0], 2)} == {"k5", "k6"}


def test_threads_search_while_others_change(open_index):
    index, rng = open_index(background=True), np.random.default_rng(0)
    fixed = unit(rng, 40)
    index.upsert([f"f{n}" for n in range(40)], fixed, [{"c": 0}] * 40)
    failures: list[object] = []
    done = threading.Event()

    def search():
        while not done.is_set():
            for n in (0, 17, 39):
                hits = index.search(fixed[n], 1, lambda label: label["c"] == 0)
                if not hits or hits[0].key != f"f{n}":
                    failures.append((n, hits))

    threads = [threading.Thread(target=search) for _ in range(3)]
    for thread in threads:
        thread.start()
    for round_number in range(30):
        keys = [f"r{round_number}-{n}" for n in range(20)]
        index.upsert(keys, unit(rng, 20), [{"c": 1}] * 20)
        index.delete(keys[:10])
    index.wait()
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

    @pytest.mark.parametrize("ending", ["faiss", "rows.npy", "codes.npy"])
    @pytest.mark.parametrize("harm", ["flip", "cut", "gone"])
    def test_segment(self, folder, open_index, ending, harm):
        path = sorted(folder.glob(f"segment-*.{ending}"))[0]
        content = bytearray(path.read_bytes())
        if harm == "flip":
            content[len(content) // 2] ^= 1
            path.write_bytes(content)
        elif harm == "cut":
            path.write_bytes(content[: len(content) // 2])
        else:
            path.unlink()
        with pytest.raises(UnusableIndex, match="segment"):
            open_index(folder)

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

    def test_left_over_files_are_swept_up(self, folder, open_index):
        (folder / "segment-crashed.faiss").write_bytes(b"half")
        open_index(folder).merge(everything=True)
        assert not (folder / "segment-crashed.faiss").exists()


@pytest.mark.parametrize(
    ("keys", "shape", "labels"), [(["a", "a"], (2, DIMENSIONS), 2), (["a"], (1, 3), 1), (["a"], (1, DIMENSIONS), 2)]
)
def test_unusable_additions_change_nothing(open_index, keys, shape, labels):
    index = open_index()
    with pytest.raises(ValueError):
        index.upsert(keys, np.zeros(shape), [{}] * labels)
    assert len(index) == 0


def test_asking_for_nothing_or_too_much(filled):
    index, truth = filled
    query = truth["k0"][0]
    assert index.search(query, 0) == []
    assert len(index.search(query, 1000)) == 140
    assert index.search(query, 5, keys=[]) == []
    assert index.search(query, 5, keys=["k0", "k139", "absent"])[0].key == "k0"
    with pytest.raises(ValueError, match="numbers"):
        index.search(query[:3], 5)


class TestGpu:
    """Searching a copy gives what the mapped segment gives; a CPU index stands in for the GPU's here."""

    @pytest.fixture
    def stand_in(self, monkeypatch):
        made = []

        def empty(dimensions):
            made.append(faiss.IndexFlatIP(dimensions))
            return made[-1]

        monkeypatch.setattr(gpu, "gpu_count", lambda: 1)
        monkeypatch.setattr(gpu, "_empty", empty)
        monkeypatch.setattr(gpu, "SMALLEST", 10)
        return made

    def test_without_one_nothing_is_copied(self, filled):
        assert gpu.on_gpu(DIMENSIONS, 10**9, []) is None
        assert filled[0].refresh().segments[0].gpu is None

    def test_answers_are_the_same(self, filled, stand_in):
        index, truth = filled
        index.delete(["k3", "k70"])
        del truth["k3"], truth["k70"]
        rng = np.random.default_rng(8)
        for label in (None, 0, 1, 2):
            agree(index, truth, rng, label)
        assert [copy.ntotal for copy in stand_in] == [60, 60]

    def test_a_narrow_filter_is_left_to_the_mapped_segment(self, stand_in):
        copy = faiss.IndexFlatIP(DIMENSIONS)
        vectors = unit(np.random.default_rng(0), 5000)
        copy.add(vectors)
        bits = np.packbits(np.arange(5000) == 4999, bitorder="little")
        assert gpu.search_copy(copy, -vectors[4999:], 1, faiss.IDSelectorBitmap(bits)) is None
        assert gpu.search_copy(copy, vectors[:1], 5000, None) is None

    def test_full_memory_is_one_line(self, stand_in, monkeypatch, capsys):
        def full(_):
            raise RuntimeError("out of memory")

        monkeypatch.setattr(gpu, "_empty", full)
        assert gpu.on_gpu(DIMENSIONS, 100, []) is None
        assert capsys.readouterr().err.count("\n") == 1
