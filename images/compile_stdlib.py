"""Compile Python's standard library into a folder that is copied over an image's root.

Neither Debian's nor the official slim images have its bytecode, and a container with a read-only root cannot keep what
it compiles: each start of a bridge would compile 128 modules, in 0.5 s of CPU.

Bytecode does not depend on the architecture, so the machine that builds an image can make it for any other. Python
checks it against a hash of its source (PEP 552): if the base images of two platforms are of different patch releases,
changed modules are compiled at each start, and none of another release runs.
"""

import py_compile
import sys
import sysconfig
from importlib.util import cache_from_source
from pathlib import Path

LEFT_OUT = {
    "dist-packages", "ensurepip", "idlelib", "lib2to3", "pydoc_data", "site-packages", "test", "tkinter", "turtledemo",
}  # fmt: skip
"""What a service never imports, and what is no part of the library."""
CHECKED = py_compile.PycInvalidationMode.CHECKED_HASH


def main() -> None:
    out = Path(sys.argv[1])
    library = Path(sysconfig.get_path("stdlib"))
    for source in sorted(library.rglob("*.py")):
        if LEFT_OUT.isdisjoint(source.relative_to(library).parts):
            compiled = out / cache_from_source(str(source)).lstrip("/")
            py_compile.compile(str(source), str(compiled), doraise=True, invalidation_mode=CHECKED)


if __name__ == "__main__":
    main()
