"""Options of the commands: each of them changes something that a run depends on, or a bad value is refused by its name.

What the models do with the settings is tested with the models. Here each command runs up to the call that starts the work,
which is recorded in place of being done; what costs little is done for real.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import importlib
import json
import re
import signal
import sys
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import typer

pytest.importorskip("trl")

from plates import gash, plate

from sage_ad.agents.batch.cli import BatchOptions
from sage_ad.agents.batch.run import BatchSummary
from sage_ad.alignment.options import EDPORun, Stage1Run
from sage_ad.evaluation.inspection import InspectionTrace
from sage_ad.evaluation.ranked import AnswerScore, RankedAnswers, write_ranked
from sage_ad.knowledge.portable import export_pack
from sage_ad.knowledge.store.fact_store import FactStore
from sage_ad.vlm.errors import InputError
from sage_ad.vlm.options import option, options_command

DOORS = {
    "sage-inspect": "sage_ad.agents.cli",
    "sage-batch": "sage_ad.agents.batch.cli",
    "sage-eval": "sage_ad.evaluation.cli",
    "sage-kb": "sage_ad.knowledge.cli",
    "sage-train": "sage_ad.alignment.cli",
    "sage-demo": "sage_ad.demo.cli",
    "sage-serve": "sage_ad.demo.server.cli",
}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A labelled set of two categories, a folder of parts, ranked answers with scores, and settings in YAML."""
    root = tmp_path_factory.mktemp("files")
    for number, category in enumerate(("plate", "lid")):
        for shot in range(3):
            plate(root / "set" / category / "train" / "good" / f"{shot}.png", False, 10 * number + shot)
            plate(root / "set" / category / "test" / "good" / f"{shot}.png", False, 50 + 10 * number + shot)
            plate(root / "set" / category / "test" / "gash" / f"{shot}.png", True, 10 * number + shot)
            gash(root / "set" / category / "ground_truth" / "gash" / f"{shot}_mask.png")
    plate(root / "parts" / "a.png", False, 1)
    plate(root / "parts" / "below" / "b.png", True, 2)
    plate(root / "good.png", False, 3)
    (root / "keys").write_text("0123456789abcdef\n", encoding="utf-8")
    answers = ["anomalous. True. a scratch", "True. a hole", "False.", "normal. False."]
    for name, best in (("scored", 5.0), ("others", 4.5)):
        scores = [AnswerScore(mean=mean) for mean in (best, 4.0, 2.0, 1.0)]
        line = RankedAnswers(id=name, question="Is there a scratch?", answers=answers, scores=scores, facts=["a hole"])
        write_ranked(root / f"{name}.jsonl", [line])
    noted = {**json.loads((root / "scored.jsonl").read_text().splitlines()[0]), "shift": 2}
    (root / "noted.jsonl").write_text(json.dumps(noted) + "\n")
    labels = {
        "images": [{"id": 1, "file_name": "a.png", "width": 96, "height": 96}],
        "annotations": [{"image_id": 1, "category_id": 1, "bbox": [10, 10, 20, 20]}],
        "categories": [{"id": 1, "name": "gash"}],
    }
    (root / "apart").mkdir()
    (root / "apart" / "labels.json").write_text(json.dumps(labels), encoding="utf-8")
    (root / "run").mkdir()
    (root / "run" / "results.json").write_text('{"pairwise_all": null}', encoding="utf-8")
    record = {"defect": "crack", "text": "A crack weakens the part under load.", "more": {"not": "read"}}
    (root / "crack.json").write_text(json.dumps([record]), encoding="utf-8")
    with FactStore.open(root / "packs") as store:
        export_pack(store, "general", root / "general.sagepack")
        (root / "fact").write_text(next(iter(store.facts())).id, encoding="utf-8")
    return root


@dataclass(frozen=True)
class Observed:
    """What a command did: status, what it said, what reached the work, and the files that it wrote."""

    status: int
    said: tuple[str, str]
    reached: str
    written: tuple[tuple[str, bytes], ...]


def plain(value: Any) -> Any:
    """A value as JSON, with everything that an option could have changed in it."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {one.name: plain(getattr(value, one.name)) for one in dataclasses.fields(value)}
    if hasattr(value, "model_dump"):
        return plain(value.model_dump())
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value if isinstance(value, (str, int, float, bool, type(None))) else str(value)


def of_stage_1(run: Stage1Run, *_: Any) -> Any:
    from sage_ad.alignment.sft.run import arguments, labelled_parts

    return {"run": run, "arguments": arguments(run).to_dict(), "parts": labelled_parts(run)}


def of_edpo(run: EDPORun, *_: Any) -> Any:
    from sage_ad.alignment.edpo.run import arguments, read_lines

    lines = [read_lines(files) for files in (run.data, (run.held_out,) if run.held_out else ())]
    return {"run": run, "arguments": arguments(run).to_dict(), "lines": lines}


def of_batch(parts: Any, out: Path, settings: Any, *, engine: Any, say: Any, **more: Any) -> Any:
    made = {name: vars(engine).get(name) for name in ("name", "workers", "chunk", "address")}
    return {"parts": parts, "out": out, "settings": settings, "engine": made, "kind": type(engine), **more}


def of_watch(folder: Path, out: Path, settings: Any, make: Any, *, webhook: str | None, **_: Any) -> Any:
    return {"folder": folder, "out": out, "settings": settings, "references": make.references, "webhook": webhook}


def of_inspection(inspector: Any, request: Any, quiet: bool) -> Any:
    return {"settings": inspector.settings, "request": request, "quiet": quiet}


def of_judge(lines: Any, judge: Any, *, seed: int) -> Any:
    return {"lines": lines, "judge": judge.name, "seed": seed}


def of_measure(dataset: Any, settings: Any, *, out: Path | None, progress: Any) -> Any:
    return {"categories": dataset.categories, "settings": settings, "out": out}


TRAINED = {
    "checkpoint": "c",
    "model": "m",
    "parts": 1,
    "questions": 1,
    "pairs": 1,
    "steps": 1,
    "seconds": 1.0,
    "last": {},
}
TRACE = InspectionTrace(
    image="part.png",
    anomaly_score=0.6,
    threshold=0.5,
    threshold_from="builtin",
    verdict="anomalous",
    model="m",
    seconds=1,
)
DONE = BatchSummary(1, 1, 0, 0, 0, 1.0, 1.0, "local", 1, 0, "results", "report", [])
WORK: dict[str, tuple[Callable[..., Any], Any]] = {
    "sage_ad.alignment.sft.run.train_stage1": (of_stage_1, TRAINED),
    "sage_ad.alignment.edpo.run.align": (of_edpo, TRAINED),
    "sage_ad.agents.batch.run.run_batch": (of_batch, DONE),
    "sage_ad.agents.batch.watch.watch_folder": (of_watch, DONE),
    "sage_ad.demo.server.app.run_server": (lambda settings: settings, None),
    "sage_ad.agents.cli.watch": (of_inspection, TRACE),
    "sage_ad.agents.cli.write": (lambda inspector, trace, out: {"out": out}, []),
    "sage_ad.evaluation.reports.detect_run.detect": (
        of_measure, types.SimpleNamespace(to_json=lambda: {"figure": 1, "notes": ["One note"]}, to_markdown=lambda: "One figure"),
    ),
    "sage_ad.evaluation.reports.answer_run.measure": (of_measure, {"figure": 1, "notes": ["One note"]}),
    "sage_ad.evaluation.reports.answer_figures.report_markdown": (lambda result: result, "One figure"),
    "sage_ad.evaluation.reports.judge_run.measure_judge": (of_judge, {"scored": [], "problems": []}),
    "sage_ad.evaluation.reports.judge_run.report_markdown": (lambda result: result, "One figure"),
}  # fmt: skip
"""Where the work of a command starts: what is recorded of its arguments, and what is given back (None ends the command)."""


@pytest.fixture
def observe(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Iterator[Any]:
    """Runs a command up to its work, in a folder of its own."""
    reached: list[Any] = []

    def recorder(take: Callable[..., Any], result: Any) -> Callable[..., Any]:
        def record(*arguments: Any, **named: Any) -> Any:
            reached.append(plain(take(*arguments, **named)))
            if result is None:
                raise typer.Exit(0)
            return copy.deepcopy(result)

        return record

    for name, (take, result) in WORK.items():
        monkeypatch.setattr(name, recorder(take, result))
    monkeypatch.setattr("sage_ad.agents.inspector.SageInspector.load", lambda self, **_: None)
    # Gradio takes ten seconds to import, and nothing of the page is looked at here.
    app: Any = types.ModuleType("sage_ad.demo.app")
    app.launch_app = recorder(lambda settings: settings, None)
    monkeypatch.setitem(sys.modules, "sage_ad.demo.app", app)
    monkeypatch.setenv("SAGE_DEMO_PASSWORD", "secret")
    monkeypatch.delenv("EDITOR", raising=False)
    monkeypatch.delenv("VISUAL", raising=False)
    before, count = signal.getsignal(signal.SIGTERM), iter(range(100))

    def run(command: str, *arguments: str) -> Observed:
        reached.clear()
        folder = tmp_path / str(next(count))
        folder.mkdir()
        home = tmp_path / f"home-{folder.name}"
        monkeypatch.setenv("SAGE_HOME", str(home))
        monkeypatch.chdir(folder)
        monkeypatch.setattr(sys, "argv", [*command.split(), *arguments])
        with pytest.raises(SystemExit) as ended:
            importlib.import_module(DOORS[command.split()[0]]).main()
        written = tuple((str(p), p.read_bytes() if p.is_file() else b"") for p in sorted(Path().rglob("*")))
        said = (re.sub(r"\d+\.\d+ s|\"seconds\": [\d.]+", "", text) for text in capsys.readouterr())
        out, error = (text.replace(str(home), "HOME") for text in said)
        return Observed(int(ended.value.code or 0), (out, error), json.dumps(reached, sort_keys=True), written)

    yield run
    signal.signal(signal.SIGTERM, before)


# For each option: what makes it another one. Behind "|", what both runs have in common beside the command's base;
# with "!", the value is bad and must be refused by name.
TRAINER = {
    "--seed": "--seed 3", "--learning-rate": "--learning-rate 0.01", "--lora-rank": "--lora-rank 3", "--out": "--out x",
    "--save-steps": "--save-steps 7", "--device": "! --device cuda:1", "--model": "--model other", "--resume": "--resume",
    "--config": "--config FILES/seed.yaml",
}  # fmt: skip
AGENT = {
    "--model": "--model other | --question Why?", "--facts": "--facts hard | --question Why?",
    "--judge": "--judge http://x/v1#y | --question Why?", "--seed": "--seed 3", "--device": "--device cpu",
    "--domain": "--domain machining", "--product": "--product lid",
    "--question": "--question Why?", "--reference": "--reference FILES/good.png", "--tile": "--tile 64",
    "--encoder": "--encoder other",
}  # fmt: skip
SOURCE = "knowledge/domains/machining/facts/cause.yaml"
SET = {
    "--format": "! --format abacus", "--categories": "--categories lid", "--strict": "--strict", "--json": "--json",
    "--out": "--out x",
}  # fmt: skip
COMMANDS: dict[str, tuple[str, dict[str, str]]] = {
    "sage-train sft": (
        "--data FILES/set --synthetic 2 --pasted 1",
        TRAINER
        | {
            "--data": "--data FILES/set", "--synthetic": "--synthetic 3", "--pasted": "--pasted 2", "--limit": "--limit 1",
            "--facts": "--facts hard", "--domain": "--domain machining", "--parts-per-batch": "--parts-per-batch 2",
            "--fusion-learning-rate": "--fusion-learning-rate 0.01", "--train-evidence": "--train-evidence",
            "--num-train-epochs": "--num-train-epochs 2", "--max-steps": "--max-steps 3", "--bf16": "--bf16",
            "--warmup-steps": "--warmup-steps 2", "--weight-decay": "--weight-decay 0.2", "--json": "--json",
            "--gradient-accumulation-steps": "--gradient-accumulation-steps 2", "--logging-steps": "--logging-steps 2",
            "--gradient-checkpointing": "--gradient-checkpointing",
        },
    ),
    "sage-train edpo": (
        "--data FILES/scored.jsonl --out x",
        TRAINER
        | {
            "--data": "--data FILES/others.jsonl", "--out": "--out y", "--eta": "--eta 2", "--beta": "--beta 0.2",
            "--entropy": "--entropy surprisal", "--pairs": "--pairs all", "--reference-free": "--reference-free",
            "--sft-weight": "--sft-weight 0.5", "--steps": "--steps 3", "--epochs": "--epochs 2", "--batch": "--batch 2",
            "--accumulate": "--accumulate 2", "--max-kl": "--max-kl 3", "--held-out": "--held-out FILES/scored.jsonl",
            "--json": "--json",
        },
    ),
    "sage-train build-preferences": (
        "--drawn 1 --facts 0 --out x",
        {
            "--out": "--out y", "--data": "--data FILES/set", "--drawn": "--drawn 2", "--answers": "--answers 2",
            "--pasted": "--pasted 1 | --data FILES/set", "--per-class": "--per-class 1 | --data FILES/set",
            "--categories": "--categories lid | --data FILES/set", "--writer": "! --writer nobody",
            "--model": "! --writer local --model sage-tiny-no", "--device": "! --writer local --device abacus",
            "--facts": "--facts 2", "--verdicts": "--verdicts right", "--held-out": "--held-out", "--seed": "--seed 3",
            "--json": "--json",
        },
    ),
    "sage-train score": (
        "FILES/scored.jsonl --out x", {"--out": "--out y", "--judge": "! --judge guess", "--json": "--json"},
    ),
    "sage-train convert": (
        "FILES/scored.jsonl --to trl --out x.jsonl",
        {
            "--out": "--out y.jsonl", "--to": "--to adpl", "--pairs": "--pairs all",
            "--entropy": "--entropy surprisal | --pairs edpo", "--json": "--json",
        },
    ),
    "sage-batch": (
        "FILES/parts --out x",
        AGENT
        | {
            "--out": "--out y", "--recursive": "--recursive", "--strict": "! --strict", "--evidence-only": "--evidence-only",
            "--pictures": "--pictures", "--resume": "--resume", "--retry-errors": "--retry-errors | --resume",
            "--engine": "--engine ray", "--workers": "--workers 1", "--chunk": "--chunk 5",
            "--address": "--address auto | --engine ray", "--config": "--config FILES/seed.yaml", "--json": "--json",
            "--watch": "--watch", "--webhook": "--webhook http://x/y | --watch",
        },
    ),
    "sage-inspect": (
        "FILES/good.png",
        AGENT
        | {
            "--learn": "--learn | --question Why?", "--json": "--json", "--out": "--out x", "--verbose": "--verbose",
            "--standard-questions": "--standard-questions", "--mm-per-pixel": "--mm-per-pixel 0.1",
            "--example": "! --example",
        },
    ),
    "sage-eval detect": (
        "FILES/set",
        SET
        | {
            "--shots": "--shots 2", "--seed": "--seed 3", "--draws": "--draws 2",
            "--false-alarm": "--false-alarm 0.1", "--encoder": "--encoder other", "--device": "--device cpu",
            "--tile": "--tile off",
        },
    ),
    "sage-eval answer": (
        "FILES/set",
        SET
        | {
            "--shots": "--shots 0", "--model": "--model other", "--inspector": "--inspector evidence-template",
            "--facts": "--facts hard", "--judge": "--judge other", "--limit": "--limit 2", "--per-class": "--per-class 1",
            "--seed": "--seed 3", "--device": "--device cpu",
        },
    ),
    "sage-eval judge": (
        "FILES/noted.jsonl",
        {
            "--judge": "! --judge guess", "--seed": "--seed 3", "--strict": "--strict", "--json": "--json",
            "--out": "--out x",
        },
    ),
    "sage-eval compare": ("FILES/run", {"--out": "--out y"}),
    "sage-kb add": (
        "general FILES/crack.json",
        {
            "--model": "! --model abacus", "--device": "! --device cpu", "--approve": "--approve",
            "--strict": "--strict", "--json": "--json",
        },
    ),
    "sage-kb add-looks": (
        "general",
        {
            "--product": "--product lid | FILES/good.png --good",
            "--defect": "--defect gash | FILES/good.png --product lid",
            "--good": "--good | FILES/good.png --product lid",
            "--pictures": "--pictures FILES/parts | FILES/apart/labels.json --product lid",
            "--source": "--source line | FILES/good.png --product lid --good --json",
            "--strict": "! --strict | FILES/apart/labels.json --product lid",
            "--json": "--json | FILES/good.png --product lid --good",
        },
    ),
    "sage-kb edit": (
        "FACT",
        {
            "--text": "--text Rust_shows.", "--kind": "--kind cause", "--product": "--product lid",
            "--defect": "--defect rust", "--json": "--json | --kind cause",
        },
    ),
    "sage-kb remove": (
        "",
        {
            "--source": "--source SOURCE", "--domain": "! --domain abacus | --source SOURCE",
            "--json": "--json | --source SOURCE",
        },
    ),
    "sage-kb new-domain": ("baskets", {"--json": "--json"}),
    "sage-kb show": ("FACT", {"--json": "--json"}),
    "sage-kb approve": ("FACT", {"--json": "--json"}),
    "sage-kb reject": ("FACT", {"--json": "--json"}),
    "sage-kb stats": ("", {"--json": "--json"}),
    "sage-kb check": ("", {"--json": "--json"}),
    "sage-kb export": ("general x.sagepack", {"--json": "--json"}),
    "sage-kb import": ("FILES/general.sagepack", {"--json": "--json"}),
    "sage-kb list": (
        "", {
            "--domain": "--domain machining", "--kind": "--kind cause", "--status": "--status proposed",
            "--source": "--source nowhere.pdf", "--json": "--json",
        },
    ),
    "sage-kb search": (
        "crack --mode lexical",
        {
            "--domain": "--domain machining", "--kind": "--kind cause", "--status": "--status rejected", "-k": "-k 2",
            "--mode": "! --mode abacus", "--product": "--product casting", "--place": "--place edge",
            "--defect": "--defect pore", "--json": "--json",
        },
    ),
    "sage-demo": (
        "",
        {
            "--host": "--host 0.0.0.0", "--port": "--port 0", "--model": "--model other", "--also": "--also other",
            "--share": "--share", "--mcp": "--mcp", "--user": "--user me", "--judge": "--judge other",
            "--parallel": "--parallel 2", "--keep-minutes": "--keep-minutes 5", "--max-megabytes": "--max-megabytes 5",
            "--seed": "--seed 3", "--device": "--device cpu", "--encoder": "--encoder other",
        },
    ),
    "sage-serve": (
        "",
        {
            "--host": "--host 0.0.0.0", "--port": "--port 0", "--model": "--model other", "--judge": "--judge other",
            "--keys": "--keys FILES/keys", "--parallel": "--parallel 2", "--waiting": "--waiting 3",
            "--waiting-each": "--waiting-each 2", "--max-megabytes": "--max-megabytes 5",
            "--max-references": "--max-references 3", "--max-parts": "--max-parts 3", "--seed": "--seed 3",
            "--device": "--device cpu",
        },
    ),
}  # fmt: skip


def options_of(command: str) -> set[str]:
    """The long names of a command's options, as it was built by Typer."""
    door, *names = command.split()
    app: Any = typer.main.get_command(importlib.import_module(DOORS[door]).app)
    for name in names:
        app = app.commands[name]
    return {max(one.opts, key=len) for one in app.params if one.opts[0].startswith("-")} - {"--help"}


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_is_walked(command: str) -> None:
    assert set(COMMANDS[command][1]) == options_of(command)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_does_something(command: str, observe: Any, files: Path) -> None:
    named = {"FILES": str(files), "FACT": (files / "fact").read_text(), "SOURCE": SOURCE}

    def filled(text: str) -> str:
        return functools.reduce(lambda done, name: done.replace(name, named[name]), named, text)

    base, changes = COMMANDS[command]
    (files / "seed.yaml").write_text("seed: 5\n", encoding="utf-8")
    given = filled(base).split()
    without: dict[str, Observed] = {}
    for name, change in changes.items():
        options, _, common = filled(change).partition("|")
        ran = observe(command, *given, *common.split(), *options.removeprefix("!").split())
        if change.startswith("!"):
            assert ran.status == 2, name
            assert options.split()[-1] in ran.said[1], name
            continue
        assert ran.status < 2, (name, ran.said)
        if common not in without:
            without[common] = observe(command, *given, *common.split())
        assert ran != without[common], f"{command} {change} does nothing"


def test_facts_of_a_settings_file_reach_the_trainer(observe: Any, files: Path, tmp_path: Path) -> None:
    (tmp_path / "hard.yaml").write_text("facts: hard\nlearning_rate: 1e-4\n", encoding="utf-8")
    base = COMMANDS["sage-train sft"][0].replace("FILES", str(files)).split()
    ran = observe("sage-train sft", *base, "--config", str(tmp_path / "hard.yaml"))
    (reached,) = json.loads(ran.reached)
    assert reached["run"]["facts"] == reached["arguments"]["facts"] == "hard"
    assert reached["arguments"]["learning_rate"] == 1e-4


@pytest.mark.parametrize("command", ["sage-train sft", "sage-train edpo", "sage-batch"])
def test_an_unknown_key_is_refused_with_the_nearest(command: str, observe: Any, files: Path, tmp_path: Path) -> None:
    (tmp_path / "typo.yaml").write_text("sead: 3\n", encoding="utf-8")
    ran = observe(
        command, *COMMANDS[command][0].replace("FILES", str(files)).split(), "--config", f"{tmp_path}/typo.yaml"
    )
    assert ran.status == 2
    assert "no option 'sead'; the nearest is seed" in ran.said[1]


@pytest.mark.parametrize("kind", [Stage1Run, EDPORun])
def test_one_gpu_of_several_is_refused_by_the_trainers_with_the_way_to_choose_it(kind: Any) -> None:
    with pytest.raises(InputError, match="'cuda:1' cannot be chosen; use cuda, with CUDA_VISIBLE_DEVICES=1"):
        kind(data=(), out=Path("x"), device="cuda:1")


@pytest.mark.parametrize("command", ["sage-train sft", "sage-train edpo"])
def test_a_gpu_that_is_absent_is_refused(command: str, observe: Any, files: Path) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    ran = observe(command, *COMMANDS[command][0].replace("FILES", str(files)).split(), "--device", "cuda")
    assert ran.status == 2
    assert "'cuda' was asked for but torch sees 0 GPUs" in ran.said[1]


@dataclass
class Bake:
    """Options of no real command."""

    loaf: Path = option(help="Which loaf.", metavar="LOAF")
    out: Path = option(help="Folder.")
    minutes: int = option(40, help="Time.")
    heat: float = option(0.5, help="Heat.")
    crisp: bool = option(False, help="Crisp.")
    seeds: tuple[str, ...] = option((), help="Seeds on it.")
    name: str | None = option(None, help="Its name.")


class TestSettingsFile:
    @pytest.fixture
    def bake(self, tmp_path: Path) -> Callable[..., Bake]:
        def bake(text: str, *arguments: str) -> Bake:
            made: list[Bake] = []
            app = typer.Typer()
            app.command()(options_command(Bake, lambda options, json: made.append(options)))
            (tmp_path / "bake.yaml").write_text(text, encoding="utf-8")
            app([*arguments, "--config", str(tmp_path / "bake.yaml")], standalone_mode=False)
            return made[0]

        return bake

    def test_the_command_line_wins_over_the_file_and_the_file_over_the_default(self, bake: Any) -> None:
        text = "loaf: rye\nout: x\nminutes: 30\nheat: 2e-1\ncrisp: true\nseeds: [poppy, flax]\nname: null\n"
        assert bake(text) == Bake(Path("rye"), Path("x"), 30, 0.2, True, ("poppy", "flax"))
        given = ("wheat", "--minutes", "9", "--no-crisp", "--seeds", "oat", "--name", "toast")
        assert bake(text, *given) == Bake(Path("wheat"), Path("x"), 9, 0.2, False, ("oat",), "toast")
        assert bake("seeds: oat", "rye", "--out", "y") == Bake(Path("rye"), Path("y"), seeds=("oat",))

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("minutes: 2.5", "'--minutes': Input should be a valid integer"),
            ("minutes: true", "'--minutes': Input should be a valid integer"),
            ("minutes:", "minutes cannot be None"),
            ("crisp: perhaps", "'--crisp': Input should be a valid boolean"),
            ("name: {first: a}", "name cannot be {'first': 'a'}"),
            ("name: [a, b]", "name cannot be"),
            ("seeds: [[a]]", "seeds cannot be"),
            ("minuets: 3", "no option 'minuets'; the nearest is minutes"),
            ("- minutes", "holds no options"),
            ("minutes: [", "cannot be read"),
        ],
    )
    def test_what_cannot_be_used_is_named(self, bake: Any, text: str, said: str) -> None:
        with pytest.raises((InputError, typer.BadParameter)) as refused:
            bake(text, "rye", "--out", "x")
        error: Any = refused.value
        assert said in (error.format_message() if isinstance(error, typer.BadParameter) else str(error))

    def test_a_missing_file_is_named(self) -> None:
        app = typer.Typer()
        app.command()(options_command(Bake, lambda options, json: None))
        with pytest.raises(InputError, match=r"nowhere\.yaml cannot be read"):
            app(["rye", "--out", "x", "--config", "nowhere.yaml"], standalone_mode=False)


@pytest.mark.parametrize(
    ("kind", "wrong"),
    [
        (Stage1Run, {"facts": "loud"}),
        (Stage1Run, {"synthetic": -1}),
        (Stage1Run, {"learning_rate": float("nan")}),
        (EDPORun, {"pairs": "best"}),
        (EDPORun, {"epochs": 0.0}),
        (EDPORun, {"batch": 0}),
        (BatchOptions, {"parts": Path("p"), "engine": "abacus"}),
    ],
)
def test_python_refuses_what_the_command_line_refuses(kind: Any, wrong: dict[str, Any]) -> None:
    given = {"data": ()} if kind is not BatchOptions else {}
    with pytest.raises(InputError, match=[*wrong][-1]):
        kind(out=Path("x"), **given, **wrong)
