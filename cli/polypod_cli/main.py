"""Where the command begins: signals and closed streams are taken care of before anything else is imported."""

import os
import sys

from polypod_cli import interrupts

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TextIO


def main() -> None:
    """Run the command; a mistake of the user is one message and exit code 2, never a traceback."""
    interrupts.install()
    import warnings

    # PYTHONWARNINGS is for the user's own programs; an error of a library's is no use to anybody here
    warnings.simplefilter("ignore")
    # closed by whoever started us: what is written there is not wanted, the rest is
    if sys.stdout is None:
        sys.stdout = _nowhere(1)
    if sys.stderr is None:
        sys.stderr = _nowhere(2)
    from polypod_cli.commands import run_command

    try:
        code = run_command()
    except interrupts.Interrupted as error:
        code = error.exit_code
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except OSError:
        pass
    # what is still buffered cannot be written, and threads that wait for the cluster are not waited for
    os._exit(code)


def _nowhere(descriptor: int) -> "TextIO":
    nothing = os.open(os.devnull, os.O_WRONLY)
    if nothing != descriptor:
        os.dup2(nothing, descriptor)
        os.close(nothing)
    # bridges write there, too
    os.set_inheritable(descriptor, True)
    return open(descriptor, "w", encoding="utf-8")


if __name__ == "__main__":
    main()
