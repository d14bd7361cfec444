"""The one version: of the package, of the AsyncAPI document and of the changelog.

Its first number is that of the events. It goes up only where a publisher or a subscriber would have to
change, and the schemas of the new one lie in a folder of their own (`contracts/README.md`).
"""

from typing import Final

__version__ = "1.0.0"
MAJOR: Final = __version__.partition(".")[0]


def schema_uri(name: str) -> str:
    """The `$id` of a schema, and the `ce_dataschema` of the events that it describes."""
    return f"urn:order-worker:{name}:v{MAJOR}"
