"""What was released of the schemas, for good: `contracts/released/v1/<version>/`.

`python -m contracts.release` adds this version's, once: what is released never changes. A test holds the
schemas of now against every one of them (`contracts/compatibility.py`).
"""

import json
import sys
from pathlib import Path
from typing import Final

from contracts.compatibility import MODES, Break, Schema, breaks
from contracts.schema import documents, schemas
from contracts.version import MAJOR, __version__

RELEASED: Final = Path(__file__).parent / "released" / f"v{MAJOR}"


def released() -> dict[str, dict[str, Schema]]:
    """Version to name to schema: all of this major version that were ever released, the oldest first."""
    folders = sorted(RELEASED.glob("*"), key=lambda folder: [int(n) for n in folder.name.split(".")])
    return {
        folder.name: {
            path.stem: json.loads(path.read_text("utf-8")) for path in sorted(folder.glob("*.json"))
        }
        for folder in folders
    }


def all_breaks() -> dict[str, list[Break]]:
    """By `name since version`, what the schemas of now break of the released ones."""
    now = schemas()
    return {
        f"{name} since {version}": found
        for version, of_version in released().items()
        for name, schema in of_version.items()
        if (found := breaks(schema, now.get(name, {}), MODES[name]))
    }


def main() -> None:
    """Release the schemas of now as this version. Ends with 1, and why, where they may not be released."""
    folder = RELEASED / __version__
    if folder.exists():
        sys.exit(f"error: {__version__} is released: raise the version in contracts/version.py")
    if broken := all_breaks():
        sys.exit("\n".join(f"error: {name}: {one}" for name, found in broken.items() for one in found))
    folder.mkdir(parents=True)
    for name, text in documents().items():
        (folder / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
