"""The order worker. Importing this imports nothing else: see `worker.__main__`."""

DOCUMENT_VERSION = 1  # of what --json prints: it grows when a member goes or means something else
