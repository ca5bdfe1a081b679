"""Runs `airflow polypod check` in a real Airflow's environment, once for each line: changes to its environment as JSON.

Each line has one answer: what a person sees, and whether the command would have failed.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
from argparse import Namespace

OUT = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)

from polypod_airflow.cli import check  # noqa: E402

PATH = list(sys.path)


def main() -> None:
    for line in sys.stdin:
        asked = json.loads(line)
        os.environ |= asked["environ"]
        sys.path[:] = [folder for folder in PATH if folder not in asked["without"]]
        printed, failed = io.StringIO(), 0
        with contextlib.redirect_stdout(printed):
            try:
                check(Namespace(queue=None))
            except SystemExit as end:
                failed = end.code
        # Airflow logs there as well
        lines = [line for line in printed.getvalue().splitlines() if line.startswith(("ok", "FAIL"))]
        print(json.dumps({"lines": lines, "failed": failed}), file=OUT, flush=True)


main()
