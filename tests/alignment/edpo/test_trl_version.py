"""Private names of TRL: all that `EDPOTrainer` uses are listed, for the TRL that is installed and that CI runs."""

from __future__ import annotations

import ast
import importlib.metadata
import inspect
import re
import tomllib
from pathlib import Path

import pytest

pytest.importorskip("trl")

from packaging.requirements import Requirement
from packaging.version import Version
from transformers import Trainer
from trl import DPOTrainer

from sage_ad.alignment.edpo import trainer
from sage_ad.alignment.edpo.trainer import TRL_PRIVATE, TRL_VERSION, EDPOTrainer


def test_another_trl_asks_for_a_new_check(repository: Path) -> None:
    """A newer TRL fails here, not in somebody's training run; the range that we declare admits no later minor version."""
    assert importlib.metadata.version("trl") == TRL_VERSION
    assert f"trl=={TRL_VERSION}" in (repository / "requirements.txt").read_text(encoding="utf-8").splitlines()
    project = tomllib.loads((repository / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    read = Version(TRL_VERSION)
    for extra in ("train", "dev"):
        (declared,) = [one for one in map(Requirement, project["optional-dependencies"][extra]) if one.name == "trl"]
        assert declared.specifier.contains(TRL_VERSION)
        assert not declared.specifier.contains(f"{read.major}.{read.minor + 1}.0")


def test_every_private_name_that_is_used_is_listed() -> None:
    tree = ast.parse(inspect.getsource(trainer))
    (own,) = [node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == "EDPOTrainer"]
    used = {node.attr for node in ast.walk(own) if isinstance(node, ast.Attribute)}
    used |= {node.name for node in own.body if isinstance(node, ast.FunctionDef)}
    used |= {target.id for node in own.body if isinstance(node, ast.Assign) for target in node.targets}  # type: ignore[attr-defined]
    theirs = set(re.findall(r"\b_[a-z]\w*", inspect.getsource(DPOTrainer) + inspect.getsource(Trainer)))
    private = used & theirs
    # The fingerprint is of datasets.Dataset.
    assert private - {"_fingerprint"} == set(TRL_PRIVATE)


def test_overridden_methods_are_called_as_they_were() -> None:
    for name in TRL_PRIVATE:
        theirs = getattr(DPOTrainer, name, None)
        if inspect.isfunction(theirs) and name in vars(EDPOTrainer):
            assert [*inspect.signature(vars(EDPOTrainer)[name]).parameters] == [*inspect.signature(theirs).parameters]
