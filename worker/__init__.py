"""The order worker. Importing this imports nothing else: see `worker.__main__`."""

__version__ = "0.1.0"  # the one place: pyproject.toml reads it, and the image has no metadata of packages
DOCUMENT_VERSION = 1  # of what --json prints: it grows when a member goes or means something else
