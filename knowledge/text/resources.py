"""Where the room's own data files (word lists, labelled sentences) stand, and reads each once."""

from __future__ import annotations

import functools
from importlib.resources import files
from typing import Any


@functools.cache
def resource_text(name: str) -> str:
    """Text of `knowledge/data/<name>`."""
    return files("sage_ad.knowledge").joinpath("data", name).read_text(encoding="utf-8")


@functools.cache
def resource(name: str) -> Any:
    """Content of `knowledge/data/<name>`, a YAML file; shared by all callers, so do not change it."""
    import yaml

    return yaml.load(resource_text(name), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
