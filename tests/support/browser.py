"""A headless browser that shows a page. Now and then it hangs at its start, without using the processor; then another one is started."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from pathlib import Path

BROWSER = "chromium-headless-shell"
_LIMIT = 120.0
_STARTS = 3


def browse(url: str, profile: Path, *options: str, enter: tuple[str, ...] = ()) -> str:
    """Return what the browser prints of a page.

    Args:
        profile: a folder for what it keeps.
        options: what it is to do, for instance `--dump-dom`.
        enter: the command that enters the network namespace of the page, if it is in another.

    Raises:
        AssertionError: it failed, or hung each time that it was started.
    """
    command = [
        *enter, BROWSER, "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking",
        *options,
    ]  # fmt: skip
    for number in range(_STARTS):
        process = subprocess.Popen(
            [*command, f"--user-data-dir={profile}-{number}", url], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            start_new_session=True,
        )  # fmt: skip
        try:
            said, problem = process.communicate(timeout=_LIMIT)
        except subprocess.TimeoutExpired:
            print(f"the browser hung for {_LIMIT:.0f} s, start {number + 1} of {_STARTS}: {url}")
            continue
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
        assert process.returncode == 0, problem[-3000:]
        return said
    raise AssertionError(f"the browser hung {_STARTS} times for {_LIMIT:.0f} s")
