"""Kafka and PostgreSQL of your own, until Ctrl-C: `make servers`. Their data are gone afterwards.

In Docker where it answers, else as local processes. With both settings given, those servers are used.
"""

import os
import signal
import sys

from worker.sandbox.servers.errors import LocalServiceError
from worker.sandbox.servers.services import running_services

KAFKA = "ORDER_WORKER_KAFKA_BOOTSTRAP_SERVERS"
DATABASE = "ORDER_WORKER_DATABASE_URL"


def main() -> None:
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    given_kafka, given_database = os.environ.get(KAFKA), os.environ.get(DATABASE)
    try:
        with running_services(
            given_kafka=given_kafka, given_database=given_database, report=print
        ) as services:
            print(f"\nexport {KAFKA}={services.kafka_bootstrap_servers}")
            print(f"export {DATABASE}={services.database_url}\n")
            print("Type these two lines in another terminal. Ctrl-C ends the servers.", flush=True)
            signal.pause()
    except LocalServiceError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        print("The servers are gone.")


if __name__ == "__main__":
    main()
