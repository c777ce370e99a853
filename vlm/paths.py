"""Where SAGE keeps what it writes for a user: data that must last, and caches that can be made again."""

from __future__ import annotations

import os
from pathlib import Path


def data_home() -> Path:
    """Folder of the user's own data (packs, edits, past runs): `$SAGE_HOME`, else the platform's user data folder."""
    if home := os.environ.get("SAGE_HOME"):
        return Path(home).expanduser()
    from platformdirs import user_data_path

    return user_data_path("sage-ad", appauthor=False)


def cache_home() -> Path:
    """Folder of what can be made again (converted weights, indexes): `$SAGE_CACHE`, else the platform's cache folder."""
    if home := os.environ.get("SAGE_CACHE"):
        return Path(home).expanduser()
    from platformdirs import user_cache_path

    return user_cache_path("sage-ad", appauthor=False)
