"""Runs as a process of its own for the durability tests: works on a store until it is killed, or the disk is full.

store_worker.py kill HOME CACHE ROUNDS SEED    forks ROUNDS workers, kills each at a random moment, compares
store_worker.py add HOME CACHE NAME COUNT      adds COUNT facts one by one, printing each acknowledged id
store_worker.py fill HOME CACHE                adds until it fails; prints acknowledged ids and the error as JSON
"""

from __future__ import annotations

import functools
import json
import os
import random
import signal
import sys
import time
from pathlib import Path

from light_embedder import LightEmbedder

from sage_ad.knowledge.facts import Fact, FactSource
from sage_ad.knowledge.store.fact_store import FactStore
from sage_ad.vlm.errors import SageError


def open_store(home: str, cache: str) -> FactStore:
    """A store without shipped packs or models."""
    return FactStore.open(home, LightEmbedder(dimensions=16), cache=cache, shipped=Path(home) / "shipped")


def fact(name: str, number: int, size: int = 0) -> Fact:
    """A fact that is unique by name and number."""
    text = f"Worker {name} saw fact {number}." + " Padding." * size
    return Fact(text=text, domain="tyres", kind="cause", sources=[FactSource(file=f"{name}.md")])


def work(home: str, cache: str, name: str, rng: random.Random, out: int) -> None:
    """Adds, judges, edits and searches until it is killed; writes `what id text` for each acknowledged change."""

    def acknowledge(what: str, done: Fact) -> None:
        os.write(out, f"{what} {done.id} {done.text}\n".encode())

    store = open_store(home, cache)
    mine: list[Fact] = []
    number = 0
    while True:
        batch = [fact(name, number + n, rng.choice((0, 0, 20, 150))) for n in range(rng.choice((1, 1, 3, 25)))]
        number += len(batch)
        for added in store.add(batch).added:
            acknowledge("added", added)
            mine.append(added)
        choice = rng.random()
        if choice < 0.2:
            acknowledge("approved", store.set_status(rng.choice(mine).id, "approved"))
        elif choice < 0.4:
            acknowledge("edited", store.edit(mine.pop().id, text=f"Worker {name} changed its mind on {number}."))
        elif choice < 0.6:
            store.search("worker saw", k=3)


def kill_rounds(home: str, cache: str, rounds: int, seed: int) -> None:
    """Forks workers one after the other, kills each with SIGKILL, and compares the store with what they said."""
    import faiss  # noqa: F401  imported once, here, instead of by every child

    rng = random.Random(seed)
    expected: dict[str, str] = {}
    survived, acknowledged = 0, 0
    for number in range(rounds):
        lines = _killed(home, cache, f"r{number}", rng)
        acknowledged += len(lines)
        for line in lines:
            what, identity, text = line.split(" ", 2)
            if what != "approved":
                expected[identity] = text
        survived += _in_child(functools.partial(_compare, home, cache, expected, lines))
    print(json.dumps({"rounds": rounds, "survived": survived, "acknowledged": acknowledged, "facts": len(expected)}))


def _killed(home: str, cache: str, name: str, rng: random.Random) -> list[str]:
    """What a worker acknowledged before it was killed: some milliseconds after one of its first acknowledgements."""
    reading, writing = os.pipe()
    seed = rng.random()
    child = os.fork()
    if child == 0:
        os.close(reading)
        try:
            work(home, cache, name, random.Random(seed), writing)
        finally:
            os._exit(3)
    os.close(writing)
    content = b""
    wanted = rng.randint(0, 15)
    while content.count(b"\n") < wanted:
        content += os.read(reading, 65536)
    time.sleep(rng.uniform(0, 0.02))
    os.kill(child, signal.SIGKILL)
    with os.fdopen(reading, "rb") as stream:
        content += stream.read()
    _, status = os.waitpid(child, 0)
    if not os.WIFSIGNALED(status):
        raise SystemExit("the worker ended by itself")
    return [line.decode() for line in content.split(b"\n")[:-1]]


def _in_child(task) -> bool:
    """Runs a check in a process of its own, so that the parent of all workers has no store or thread of its own."""
    child = os.fork()
    if child == 0:
        passed = False
        try:
            passed = task()
        finally:
            os._exit(0 if passed else 1)
    return os.waitpid(child, 0)[1] == 0


def _compare(home: str, cache: str, expected: dict[str, str], lines: list[str]) -> bool:
    with open_store(home, cache) as store:
        present = {found.id: found for found in store.iterate("tyres")} if expected else {}
        lost = expected.keys() - present.keys()
        wrong = [
            identity for identity, text in expected.items() if identity in present and present[identity].text != text
        ]
        # An edit may have reached the disk without its acknowledgement reaching us: that is no loss.
        wrong = [identity for identity in wrong if not present[identity].text.startswith("Worker r")]
        approved = [line.split(" ", 2)[1] for line in lines if line.startswith("approved")]
        judged = all(present[identity].status == "approved" for identity in approved if identity in present)
        found = {hit.fact.id for hit in store.search("worker saw", k=5)} if present else set()
        problems = store.problems()
    if lost or wrong or not judged or problems or not found <= present.keys():
        print(lost, wrong, judged, problems, file=sys.stderr)
    return not lost and not wrong and judged and not problems and found <= present.keys()


def fill(home: str, cache: str) -> None:
    """Adds facts until one add fails."""
    acknowledged: list[str] = []
    error = ""
    store = open_store(home, cache)
    for number in range(5000):
        try:
            acknowledged += [added.id for added in store.add([fact("f", 5 * number + n, 60) for n in range(5)]).added]
        except SageError as failure:
            error = str(failure)
            break
    print(json.dumps({"acknowledged": acknowledged, "error": error}))


def main() -> None:
    """Runs one of the commands."""
    command, home, cache, *rest = sys.argv[1:]
    if command == "kill":
        kill_rounds(home, cache, int(rest[0]), int(rest[1]))
    elif command == "fill":
        fill(home, cache)
    elif command == "add":
        with open_store(home, cache) as store:
            for number in range(int(rest[1])):
                print(store.add([fact(rest[0], number)]).added[0].id, flush=True)


if __name__ == "__main__":
    main()
