"""Run every test, in two processes side by side: the cluster's, which mostly wait, and all others."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
COMMAND = [sys.executable, "-m", "pytest"]


def main() -> int:
    with tempfile.TemporaryFile() as said:
        cluster = subprocess.Popen([*COMMAND, str(HERE / "cluster")], stdout=said, stderr=subprocess.STDOUT)
        try:
            others = subprocess.run([*COMMAND, f"--ignore={HERE / 'cluster'}"], check=False).returncode
            cluster.wait()
        except KeyboardInterrupt:
            # both were told by the terminal; what they have started, they end
            others = 2
            cluster.wait()
        said.seek(0)
        print("\ntests/cluster:", flush=True)
        sys.stdout.buffer.write(said.read())
        sys.stdout.buffer.flush()
    return others or cluster.returncode


if __name__ == "__main__":
    sys.exit(main())
