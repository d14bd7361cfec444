"""The order worker. Importing this imports its version and nothing else: see `worker.__main__`."""

from contracts.version import __version__ as __version__

DOCUMENT_VERSION = 1  # of what --json prints: it grows when a member goes or means something else
