"""How far apart clocks may be."""

from typing import Final

# Of machines whose clocks are set by the network, none is so far off.
CLOCKS_APART_SECONDS: Final = 10.0
