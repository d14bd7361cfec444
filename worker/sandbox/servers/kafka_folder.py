"""What Kafka's storage tool writes into the empty folder of a process, without the second of Java for it.

The tool says three things: which cluster and which node the folder is of, and with which features the cluster
begins. The last depends on nothing but Kafka's version, so it is a file here, as the tool has written it.
"""

import uuid
from base64 import urlsafe_b64encode
from pathlib import Path

BOOTSTRAP = Path(__file__).with_name("kafka.bootstrap.checkpoint")
"""of the version in `kafka.lock.json`; `test_local_services.py` compares it with what the tool writes"""

_META = "meta.properties"


def is_formatted(data: Path) -> bool:
    """Whether a process of Kafka may start on the folder."""
    return (data / _META).exists()


def format_folder(data: Path, cluster_id: str, node_id: int) -> None:
    """Make `data` the folder of that node; one that was not formatted to its end is formatted again."""
    data.mkdir(exist_ok=True)
    (data / "bootstrap.checkpoint").write_bytes(BOOTSTRAP.read_bytes())
    meta = {"version": 1, "cluster.id": cluster_id, "node.id": node_id, "directory.id": kafka_id("data")}
    (data / _META).write_text("".join(f"{name}={value}\n" for name, value in meta.items()))


def kafka_id(prefix: str) -> str:
    """A new id as Kafka writes its own: 16 bytes in URL-safe base 64, the first of them the `prefix`."""
    # By its first letter it is none of Kafka's reserved ones, and has no dash in front, like an option.
    head = prefix.encode()
    return urlsafe_b64encode(head + uuid.uuid4().bytes[: 16 - len(head)]).decode().rstrip("=")
