"""What to type for `order-worker`: `make demo` has put it where no shell looks."""

import os
import shlex
import shutil
import sys
from pathlib import Path

from worker.sandbox.demo.report import PROGRAM


def program_here() -> str:
    """The name of the program, or its path from this folder if a shell would not find it by its name."""
    if shutil.which(PROGRAM):
        return PROGRAM
    return shlex.quote(os.path.relpath(Path(sys.executable).with_name(PROGRAM)))
