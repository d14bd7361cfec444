"""What `--version` says: a line that belongs into every report of a fault."""

import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Final

from contracts.version import __version__

_LIBRARIES: Final = ("aiokafka", "faststream", "sqlalchemy", "asyncpg", "pydantic")


def version_line() -> str:
    """This package, Python and the libraries that speak to the servers, on one line."""
    parts = [f"{platform.python_implementation()} {platform.python_version()}"]
    for library in _LIBRARIES:
        try:
            parts.append(f"{library} {version(library)}")
        except PackageNotFoundError:
            parts.append(f"{library} without metadata")
    return f"order-worker {__version__} ({', '.join(parts)})"
