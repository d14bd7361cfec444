"""Kafka and PostgreSQL for the demo and the tests: given URLs, else Docker, else local processes.

`services.py` chooses; `kafka.py` and `postgres.py` run the servers that come as Python packages,
`containers.py` runs them in Docker. It needs the optional extra `local`; the worker itself never imports this
package.
"""

from worker.sandbox.servers.errors import LocalServiceError
from worker.sandbox.servers.services import Services, running_services

__all__ = ["LocalServiceError", "Services", "running_services"]
