"""The bridge's command line, for people and the log reader: a pod and `polypod run` start without argparse (7 ms)."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import NoReturn

from polypod_core.errors import UserError
from polypod_core.reasons import Reason

_EPILOG = "In a pod there are no arguments: the configuration is in $POLYPOD_CONFIG."


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError(Reason.INVALID_CONFIG, f"{message}\n{self.format_usage()}")


def _lines(text: str) -> int:
    if not (text.isascii() and text.isdecimal()):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of lines")
    return int(text)


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Return what was asked for: exactly one of `config`, `stored_log` and `workload` is set.

    Raises:
        UserError: an argument is unknown, missing or wrong.
        SystemExit: `--help` was asked for.
    """
    parser = _Parser(prog="polypod-bridge", description="Supervise one attempt of a task.", epilog=_EPILOG,
                     allow_abbrev=False)  # fmt: skip
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--config", metavar="FILE", help='attempt to run, as JSON (BridgeConfig); "-" reads stdin')
    what.add_argument("--workload", metavar="FILE", help="ExecuteTask workload of Airflow, as JSON")
    what.add_argument("--stored-log", metavar="URL", help="print the stored log of --pod as JSON lines, at most 8 MiB")
    workload = parser.add_argument_group("with --workload")
    workload.add_argument("--execution-api-url", metavar="URL",
                          help="Airflow's Execution API, such as http://airflow:8080/execution/")  # fmt: skip
    workload.add_argument("--routing", metavar="FILE", help="routing (queue to coordinator), as YAML")
    workload.add_argument("--log-file", metavar="FILE", help="append the task's log to this file, as JSON lines")
    workload.add_argument("--log-format", default="json", choices=("json", "console", "none"),
                          help="format on stderr (default: json)")  # fmt: skip
    stored = parser.add_argument_group("with --stored-log")
    stored.add_argument("--pod", metavar="NAME", default="", help="pod that wrote the log")
    stored.add_argument("--skip-lines", metavar="N", type=_lines, default=0, help="skip lines printed before")
    stored.add_argument("--options-dir", metavar="FOLDER", default="", help="storage options, one file each")
    options = parser.parse_args(arguments)
    if options.workload is not None and (options.execution_api_url is None or options.routing is None):
        parser.error("--workload needs --execution-api-url and --routing")
    return options
