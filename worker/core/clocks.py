"""How far the clocks of two machines may differ."""

from typing import Final

# Of machines whose clocks are set by the network, none is so far off.
CLOCKS_APART_SECONDS: Final = 10.0
