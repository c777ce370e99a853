"""Parts a second of a batch: a loop over the function behind `sage-inspect`, the local engine, and Ray with two workers.

    .venv/bin/python benchmarks/batch.py [--parts 96] [--references 1 2 4] [--rounds 3] [--ray] [--language] [--out FILE]

Evidence only: `anew` is a loop over a warm extractor that encodes the references with every part; `kept` is the same loop
with the references encoded once. With `--language` the loop is `SageInspector.inspect`, warm, its references kept, five
questions a part. The engines are timed from the moment when each worker has finished a chunk, so that loading the models
is in no figure (`start` is printed apart: seconds until the first chunk was back). All ways take turns in one process,
round by round; ratios are taken within a round, and medians of the rounds are printed. Verdicts are compared part by
part; the largest difference of scores is printed, too. Run it on an idle machine: the first line says the load average.

    .venv/bin/python benchmarks/batch.py --survive 2000 [--data ../shared/data]

makes a manifest of so many lines from the images of a data folder, kills the command with SIGKILL after a third and after
two thirds of them, resumes it, and counts the rows of the table.

    .venv/bin/python benchmarks/batch.py --alone 48

compares parts without references with the same ones against one and eight, evidence only, in processor seconds. From 33 parts
on the cost of a part does not depend on their number. Where there are too few cells, turned crops of them are parts, too.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import resource
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cells import cell_folder
from PIL import Image

from sage_ad.agents.batch.manifest import Part
from sage_ad.agents.batch.run import CHUNK_EVIDENCE_ONLY, CHUNK_WITH_LANGUAGE, make_engine
from sage_ad.agents.batch.store import JOURNAL, read_table
from sage_ad.agents.batch.worker import BatchSettings, PartWorker

WORKERS = 2
LOOPED_ANEW = 6
"""Parts of the slow loop: its parts take seconds each, and are all alike."""


@dataclass
class Timing:
    """Parts a second, seconds until work was under way, and verdict and score of each part by its key."""

    rate: float
    start: float
    seen: dict[str, tuple[str, float]]


def cells(count: int, references: int) -> list[Part]:
    """Solar cells, good and cracked ones in turn, with the same good ones as references."""
    folder = cell_folder()
    rows = [line.split() for line in (folder / "labels.csv").read_text(encoding="utf-8").splitlines()]
    good = [str(folder / path) for path, share, kind in rows if kind == "mono" and float(share) == 0]
    bad = [str(folder / path) for path, share, kind in rows if kind == "mono" and float(share) == 1]
    images = [image for pair in zip(good[references:], bad, strict=False) for image in pair][:count]
    given = tuple(good[:references])
    return [Part(n, f"{n}", image, given, "solar cell", "photovoltaics") for n, image in enumerate(images, start=1)]


def more_parts(parts: Sequence[Part], count: int, folder: Path) -> list[Part]:
    """So many parts: those given, and turned, mirrored crops of them, written into the folder."""
    from sage_ad.vlm.images import load_image

    made = list(parts[:count])
    for number in range(len(made), count):
        draw, origin = random.Random(number), parts[number % len(parts)]
        picture = load_image(Path(origin.image))
        left, top = draw.randrange(picture.width // 8), draw.randrange(picture.height // 8)
        picture = picture.crop((left, top, left + picture.width * 7 // 8, top + picture.height * 7 // 8))
        picture = picture.transpose(draw.choice(list(Image.Transpose)))
        picture.save(folder / f"{number}.png")
        made.append(replace(origin, number=number + 1, key=str(number + 1), image=str(folder / f"{number}.png")))
    return made


def evidence_loop(extractor: Any, parts: Sequence[Part], anew: bool) -> Timing:
    """One part after the other over a warm extractor."""
    from sage_ad.vlm.images import load_image

    bank = extractor.prepare([load_image(path) for path in parts[0].references])
    seen, start = {}, time.perf_counter()
    for part in parts:
        if anew:
            bank = extractor.prepare([load_image(path) for path in part.references])
        found = extractor.extract(load_image(part.image), bank)
        seen[part.key] = (found.verdict, found.score)
    return Timing(len(parts) / (time.perf_counter() - start), 0.0, seen)


def language_loop(inspector: Any, parts: Sequence[Part]) -> Timing:
    """One part after the other over a warm inspector."""
    seen, start = {}, time.perf_counter()
    for part in parts:
        trace = inspector.inspect(part.request())
        seen[part.key] = (trace.verdict, trace.anomaly_score)
    return Timing(len(parts) / (time.perf_counter() - start), 0.0, seen)


def batch(name: str, settings: BatchSettings, parts: Sequence[Part]) -> Timing:
    """An engine with two workers; the clock starts when the last of them has finished its first chunk.

    The other worker is inside a chunk then: of that one the share counts that was still to be done.
    """
    start = time.perf_counter()
    # Few parts are cut into smaller chunks, so that every worker has several.
    usual = CHUNK_WITH_LANGUAGE if settings.language else CHUNK_EVIDENCE_ONLY
    settings = replace(settings, chunk=max(1, min(usual, len(parts) // (3 * WORKERS))))
    engine = make_engine(name, settings, WORKERS, len(parts))  # type: ignore[arg-type]
    seen: dict[str, tuple[str, float]] = {}
    chunks: list[tuple[str, float, float, int]] = []
    for done in engine.run(parts):
        seen |= {row["key"]: (row["verdict"], row["anomaly_score"]) for row in done.rows}
        took = sum(row["seconds"] for row in done.rows)
        chunks.append((done.rows[0]["worker"], time.perf_counter(), took, len(done.rows)))
    firsts: dict[str, float] = {}
    for worker, ended, _, _ in chunks:
        firsts.setdefault(worker, ended)
    since, end = max(firsts.values()), chunks[-1][1]
    counted = sum(count * min(1.0, (ended - since) / took) for _, ended, took, count in chunks if ended > since)
    if not counted:
        raise SystemExit("Every chunk was the first of its worker; give more --parts.")
    return Timing(counted / (end - since), min(firsts.values()) - start, seen)


def compare(ways: dict[str, Callable[[], Timing]], rounds: int, base: Sequence[str]) -> dict[str, Any]:
    """Lets all ways take turns; medians of rates and of their ratios to the base ways, and whether they agree."""
    found: list[dict[str, Timing]] = []
    for number in range(rounds):
        # Every other round backwards, so that a machine that warms up or fills favours nobody.
        names = list(ways) if number % 2 == 0 else list(reversed(ways))
        found.append({name: ways[name]() for name in names})
    result: dict[str, Any] = {}
    for name in ways:
        rates = [timings[name].rate for timings in found]
        result[name] = {"parts_a_second": statistics.median(rates), "all": rates, "start": found[0][name].start}
        for other in base:
            ratios = [timings[name].rate / timings[other].rate for timings in found]
            result[name][f"times_{other}"] = statistics.median(ratios)
        result[name] |= agreement(found[0][name].seen, found[0][base[-1]].seen)
    return result


def agreement(seen: dict[str, tuple[str, float]], expected: dict[str, tuple[str, float]]) -> dict[str, Any]:
    """Verdicts that differ, and the largest difference of scores, over the parts that both have."""
    both = seen.keys() & expected.keys()
    return {
        "other_verdicts": sum(seen[key][0] != expected[key][0] for key in both),
        "score_difference": max(abs(seen[key][1] - expected[key][1]) for key in both),
    }


def show(title: str, result: dict[str, Any]) -> None:
    """Prints one comparison."""
    print(f"\n{title}")
    for name, figures in result.items():
        ratios = ", ".join(f"{value:.2f} x {key[6:]}" for key, value in figures.items() if key.startswith("times_"))
        print(
            f"  {name:<6} {figures['parts_a_second']:6.2f} parts/s ({ratios}); start {figures['start']:.1f} s; "
            f"{figures['other_verdicts']} other verdicts, scores within {figures['score_difference']:.1e}",
            flush=True,
        )


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """All comparisons that were asked for."""
    engines = ["local", "ray"] if options.ray else ["local"]
    results: dict[str, Any] = {"load": os.getloadavg()[0], "cores": os.cpu_count(), "workers": WORKERS}
    print(f"load average {results['load']:.1f} on {results['cores']} cores, {WORKERS} workers")
    if not options.language:
        from sage_ad.vlm.evidence.extractor import EvidenceExtractor

        extractor, settings = EvidenceExtractor(), BatchSettings(language=False)
        for count in options.references:
            parts = cells(options.parts, count)
            ways: dict[str, Callable[[], Timing]] = {
                "anew": lambda parts=parts: evidence_loop(extractor, parts[:LOOPED_ANEW], anew=True),
                "kept": lambda parts=parts: evidence_loop(extractor, parts, anew=False),
            }
            ways |= {name: lambda name=name, parts=parts: batch(name, settings, parts) for name in engines}
            result = results[f"evidence, {count} references"] = compare(ways, options.rounds, ("anew", "kept"))
            show(
                f"evidence only, {count} reference{'s' * (count != 1)}; wanted: {0.9 * (1 + count):.1f} x anew", result
            )
        return results
    from sage_ad.agents.inspector import SageInspector

    inspector = SageInspector()
    inspector.load()
    parts = cells(options.parts, 1)
    inspector.inspect(parts[-1].request())
    ways = {"loop": lambda: language_loop(inspector, parts[: options.looped])}
    ways |= {name: lambda name=name: batch(name, BatchSettings(), parts) for name in engines}
    results["language"] = compare(ways, options.rounds, ("loop",))
    show("with language, five questions; wanted: 3.0 x loop", results["language"])
    return results


def manifest(path: Path, data: Path, lines: int) -> None:
    """A CSV manifest of so many lines: the images of dev and train in turn, each with a good one of its category."""
    with (data / "index.csv").open(newline="", encoding="utf-8") as stream:
        rows = [row for row in csv.DictReader(stream) if row["group"] != "test"]
    good: dict[str, str] = {}
    for row in rows:
        if row["defect"] in ("", "good"):
            good.setdefault(row["category"], row["path"])
    rows = [row for row in rows if row["category"] in good and row["path"] != good[row["category"]]]
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["id", "image", "reference", "product"])
        for number in range(lines):
            row = rows[number % len(rows)]
            reference = (data / good[row["category"]]).resolve()
            writer.writerow([number, (data / row["path"]).resolve(), reference, row["category"].replace("_", " ")])


def survive(lines: int, data: Path) -> None:
    """Kills a batch twice and shows that it ends complete, each part once."""
    with tempfile.TemporaryDirectory(prefix="sage-batch-") as folder:
        listed, out = Path(folder, "parts.csv"), Path(folder, "out")
        manifest(listed, data, lines)
        command = [str(Path(sys.executable).with_name("sage-batch")), str(listed), "--out", str(out)]
        command += ["--evidence-only", "--resume"]
        for target in (lines // 3, 2 * lines // 3):
            process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
            while process.poll() is None and rows_in(out / JOURNAL) < target:
                time.sleep(0.2)
            process.send_signal(signal.SIGKILL)
            print(f"ended with status {process.wait()} at {rows_in(out / JOURNAL)} rows", flush=True)
        start = time.perf_counter()
        ended = subprocess.run([*command, "--json"], stdout=subprocess.PIPE, text=True)
        print(f"resumed: status {ended.returncode} after {time.perf_counter() - start:.0f} s")
        summary = json.loads(ended.stdout)
        print({name: summary[name] for name in ("parts", "normal", "anomalous", "errors", "resumed", "parts_a_second")})
        ids = [row["id"] for row in read_table(out / "results.parquet")]
        twice = [name for name, count in Counter(ids).items() if count > 1]
        print(
            f"{len(ids)} rows, {len(set(ids))} parts, in order: {ids == [str(n) for n in range(lines)]}, twice: {twice}"
        )


def alone(count: int) -> None:
    """Processor seconds a part: without references, with one and with eight, in one process that has everything loaded."""
    from sage_ad.agents.peers import judged, write_features
    from sage_ad.agents.settings import AgentSettings

    print(f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    worker = PartWorker(BatchSettings(AgentSettings(keep_references=False), language=False))
    each: dict[int, float] = {}
    with tempfile.TemporaryDirectory(prefix="sage-batch-") as folder:
        parts = more_parts(cells(count, 8), count, Path(folder))
        for shots in (1, 8):
            own = [replace(part, references=part.references[:shots]) for part in parts]
            worker.inspect(own[:1])
            start = time.process_time()
            worker.inspect(own)
            each[shots] = (time.process_time() - start) / count
        start, files = time.process_time(), [Path(folder, f"{part.key}.npy") for part in parts]
        for part, file in zip(parts, files, strict=True):
            write_features(file, Path(part.image), worker.resources)
        encoded, peers = time.process_time(), judged(files)
        compared = time.process_time()
        worker.inspect([replace(part, references=(), peers=own) for part, own in zip(parts, peers, strict=True)])
        steps = [encoded - start, compared - encoded, time.process_time() - compared]
    whole = sum(steps) / count
    print("without references: " + ", ".join(f"{step / count:.3f}" for step in steps) + " s to encode, compare, report")
    for shots, seconds in each.items():
        print(f"with {shots}: {seconds:.3f} s; without references {whole / seconds:.2f} times as much")
    print(f"memory of the process: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB at its highest")


def rows_in(journal: Path) -> int:
    """Rows that are on disk."""
    return journal.read_bytes().count(b"\n") if journal.exists() else 0


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", type=int, default=96)
    parser.add_argument("--references", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--ray", action="store_true", help="measure Ray with two workers, too")
    parser.add_argument("--language", action="store_true", help="with facts, answers and the language model")
    parser.add_argument("--looped", type=int, default=16, help="parts of the loop with language")
    parser.add_argument("--out", type=Path, help="JSON file for all figures")
    parser.add_argument("--alone", type=int, metavar="PARTS")
    parser.add_argument("--survive", type=int, metavar="LINES")
    parser.add_argument("--data", type=Path, default=Path(__file__).resolve().parents[2] / "shared" / "data")
    options = parser.parse_args()
    if options.alone:
        alone(options.alone)
        return
    if options.survive:
        survive(options.survive, options.data)
        return
    results = measure(options)
    if options.out:
        options.out.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
