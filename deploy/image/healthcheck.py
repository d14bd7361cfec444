"""Exit code 0 while the worker in this container is alive, as its `/livez` says; else 1, and why.

Not `/readyz`: a server that is away is no reason to start a worker again.
"""

import os
import sys
from http.client import HTTPConnection, HTTPException

TIMEOUT_SECONDS = 2
_ALL_ADDRESSES = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}


def main() -> int:
    host = os.environ.get("ORDER_WORKER_HTTP_HOST", "").strip()
    host = _ALL_ADDRESSES.get(host, host)
    port = os.environ.get("ORDER_WORKER_HTTP_PORT", "").strip() or "8000"
    if port == "0":
        return 0  # any free port: nobody outside of the worker knows which
    try:
        connection = HTTPConnection(host, int(port), timeout=TIMEOUT_SECONDS)
        connection.request("GET", "/livez")
        found = connection.getresponse().status
    except (OSError, HTTPException, ValueError) as error:
        found = str(error) or type(error).__name__
    if found == 200:
        return 0
    print(f"/livez on {host}, port {port}: {found}")
    return 1


if __name__ == "__main__":
    sys.exit(main())
