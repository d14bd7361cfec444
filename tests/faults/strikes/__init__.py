"""What strikes a run. Each strike acts on an arena, adds to `injected`, and leaves servers that answer.

A strike waits for progress between its injections, so that each hits a worker at work, and never for a time.
Its first line of documentation is what `--list` shows.
"""

from collections.abc import Callable
from typing import Final

from tests.faults.arena import Arena

Strike = Callable[[Arena], None]
INJECTIONS: Final = 4
