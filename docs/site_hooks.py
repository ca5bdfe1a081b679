"""Hooks of mkdocs: pages that live elsewhere in the checkout belong to the site as well."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
LINK_OUT = re.compile(r"\[([^\]]+)\]\(((?:\.\./)+(?:bench|charts|crds|examples|sdks|operator|tests)[^)]*)\)")
ELSEWHERE = {"bench/RESULTS.md": "results.md", "charts/polypod/README.md": "chart.md"}


def on_files(files: Files, config: Any) -> Files:
    """Add them."""
    for source, name in ELSEWHERE.items():
        files.append(File.generated(config, name, content=(ROOT / source).read_text()))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Have links to them lead to the site's page; other files of the checkout are named only."""

    def lead(found: re.Match[str]) -> str:
        text, path = found[1], found[2]
        rest = path.rpartition("../")[2]
        name = ELSEWHERE.get(rest)
        if name is None:
            return f"{text} (`{rest}`)" if text != rest else f"`{rest}`"
        depth = page.file.src_uri.count("/")
        return f"[{text}]({'../' * depth}{name})"

    return LINK_OUT.sub(lead, markdown)
