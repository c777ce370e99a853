#!/bin/sh
# Resolves pyproject.toml in a fresh environment and writes the exact versions to requirements.txt.
# FAISS and the data carriers have files of their own and are left out. Usage: tools/pins.sh [PYTHON] [CONSTRAINTS]
set -eu
python=${1:-python3}
fresh=$(mktemp -d)
trap 'rm -rf "$fresh"' EXIT
"$python" -m venv "$fresh/venv"
"$fresh/venv/bin/python" -m pip install -qq ${2:+--constraint "$2"} ".[dev]"
{
    echo "# Exact versions that work together, written by tools/pins.sh (make pins); ranges stand in pyproject.toml."
    "$fresh/venv/bin/python" -m pip list --format=freeze |
        sed -E 's/\+cpu$//' |
        grep -viE '^(sage-ad|pip|setuptools|wheel|faiss-cpu|faiss-gpu|elpv-dataset)=='
} > requirements.txt
