"""The commands `airflow polypod …`. What they do is imported when one is called: every `airflow` command reads this."""

from __future__ import annotations

from airflow.cli.cli_config import ActionCommand, Arg, GroupCommand, lazy_load_command

_QUEUE = Arg(("--queue",), help="The queue whose image the pod uses (default: the first mapped queue)")


def commands() -> list[GroupCommand]:
    """Return the commands."""
    check = lazy_load_command("polypod_airflow.cli.check")
    cleanup = lazy_load_command("polypod_airflow.cli.cleanup")
    return [
        GroupCommand(
            name="polypod",
            help="Check and clean up what PolypodExecutor uses",
            subcommands=(
                ActionCommand(
                    "check",
                    "Check configuration, cluster and permissions, and that a pod reaches the Execution API",
                    check,
                    (_QUEUE,),
                ),
                ActionCommand("cleanup", "Delete Secrets that no TaskRun owns", cleanup, ()),
            ),
        )
    ]
