"""Finds wordings that this project does not use and says what to write: `wording.py [FILE...]`, default all."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[1]
KINDS = {".py", ".md", ".yaml", ".toml", ".go", ".java", ".ts", ".txt", ".tpl"}
SKIPPED = re.compile(r"\.lock$|package-lock\.json$|^scripts/wording|^docs/reference|^LICENSE$")


def rules() -> list[tuple[re.Pattern[str], str]]:
    """Return the rules: what is not written, and what is in its place."""
    raw = yaml.safe_load((ROOT / "scripts/wording.yaml").read_text())
    return [(re.compile(rf"\b(?:{pattern})\b", re.IGNORECASE), instead) for pattern, instead in raw.items()]


def problems(text: str, wording: list[tuple[re.Pattern[str], str]]) -> list[str]:
    """Return a line for each wording in a text that is not used here."""
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        for pattern, instead in wording:
            seen = pattern.search(line)
            if seen is not None:
                found.append(f"{number}: {seen.group(0)!r}: write {instead}")
    return found


def files() -> list[str]:
    """Return the files of the repository, relative to its root."""
    done = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def main(arguments: list[str]) -> int:
    wording = rules()
    found = [
        f"{name}:{problem}"
        for name in arguments or files()
        if Path(name).suffix in KINDS and not SKIPPED.search(name)
        for problem in problems((ROOT / name).read_text(), wording)
    ]
    print("\n".join(found), end="\n" if found else "")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
