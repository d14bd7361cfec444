"""The faults. Each strike acts on an arena, adds to `injected`, and leaves servers that answer.

Between its injections a strike waits for progress, and never for a fixed time. So each hits a busy worker.
Its first line of documentation is what `--list` shows.
"""

from collections.abc import Callable
from typing import Final

from tests.faults.arena import Arena

Strike = Callable[[Arena], None]
INJECTIONS: Final = 4
