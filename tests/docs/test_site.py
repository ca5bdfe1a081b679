"""The documentation site in a real browser: every page renders, no link is broken, the search finds."""

from __future__ import annotations

import html
import http.server
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from support.browser import BROWSER, browse
from support.paths import ROOT

pytestmark = pytest.mark.needs("browser")


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def site(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """The site as it is published, and the address that it is served at."""
    mkdocs = str(Path(sys.executable).with_name("mkdocs"))
    subprocess.run(
        [mkdocs, "build", "--quiet", "--strict", "--site-dir", str(tmp_path / "site")],
        cwd=ROOT, check=True, capture_output=True, timeout=240,
    )  # fmt: skip
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path / "site")))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield tmp_path / "site", f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_every_page_renders_and_every_link_leads_somewhere(site: tuple[Path, str], tmp_path: Path) -> None:
    folder, address = site
    if shutil.which(BROWSER) is None:
        assert os.environ.get("CI") != "true", f"{BROWSER} is missing: `make browser` installs it"
        pytest.skip(f"needs {BROWSER}")
    pages = sorted(str(page.relative_to(folder)) for page in folder.rglob("*.html") if page.name != "404.html")
    (folder / "pages.json").write_text(json.dumps(pages))
    shutil.copy2(Path(__file__).with_name("site_check.html"), folder / "site_check.html")
    report = report_of(f"{address}/site_check.html", tmp_path / "profile")
    assert [page["url"] for page in report["pages"]] == pages
    for page in report["pages"]:
        assert page["title"], page
        assert page["visible"], page
        assert page["text"] > 100, page
        assert page["errors"] == [], page
        assert page["images"] == [], page
        # the theme has arrived: its header stays where it is
        assert page["styled"] == "sticky", page
        # nothing sticks out to the right
        assert page["wide"] <= 0, page
    assert report["broken"] == []
    assert report["links"] > len(pages)
    assert any("/cluster.html" in link for link in report["found"]), report["found"]


def report_of(url: str, profile: Path) -> Any:
    """Open a page in the browser, which reaches nothing but this machine; return the report that it has written."""
    only_here = "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"
    said = browse(url, profile, only_here, "--virtual-time-budget=600000", "--dump-dom")
    found = re.search(r'<pre id="report">(.*?)</pre>', said, re.S)
    assert found is not None, said[-3000:]
    report = json.loads(html.unescape(found[1]) or "{}")
    assert "pages" in report, report
    return report
