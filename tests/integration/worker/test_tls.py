"""Each failure of TLS is one line that names the file, the certificate or the variable, and no secret."""

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from pydantic import SecretStr

from tests.support.certificates import Certificate, Issue, issuing_in
from worker.database import database_engine, require_reachable_database
from worker.errors import CommandError
from worker.settings import Settings

SECRET = "hunter2"


@pytest.fixture
def issue(tmp_path: Path) -> Issue:
    return issuing_in(tmp_path)


@contextmanager
def postgres_with(server: Certificate) -> Iterator[int]:
    """The port of what answers a request for TLS as PostgreSQL does, and goes no further."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*server)

    def answer() -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return  # closed: the test has ended
            try:
                connection.recv(8)
                connection.sendall(b"S")
                context.wrap_socket(connection, server_side=True).close()
            except OSError:
                connection.close()  # the client refuses: that is what is tested

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        yield listening.getsockname()[1]
        listening.shutdown(socket.SHUT_RDWR)
        thread.join()


async def refusal(parameters: str, port: int = 1) -> str:
    url = f"postgresql://shop:{SECRET}@127.0.0.1:{port}/shop?{parameters}"
    settings = Settings(database_url=SecretStr(url))
    async with database_engine(settings, "test") as engine:
        with pytest.raises(CommandError) as refused:
            await require_reachable_database(engine, settings)
    said = str(refused.value)
    assert "\n" not in said
    assert SECRET not in said
    return said


async def test_a_certificate_of_another_authority_is_reported_with_the_refusing_file(issue: Issue):
    other = issue("other").certificate
    with postgres_with(issue("server")) as port:
        said = await refusal(f"sslmode=verify-full&sslrootcert={other}", port)
    assert "the server's certificate is refused: self-signed certificate" in said
    assert f"sslrootcert={other}" in said


async def test_a_certificate_of_another_host_is_reported_with_the_host(issue: Issue):
    server = issue("server", "DNS:elsewhere.example")
    with postgres_with(server) as port:
        said = await refusal(f"sslmode=verify-full&sslrootcert={server.certificate}", port)
    assert "not valid for '127.0.0.1'" in said


async def test_a_certificate_no_authority_of_the_system_knows_is_refused(issue: Issue):
    with postgres_with(issue("server")) as port:
        said = await refusal("sslmode=verify-full&sslrootcert=system", port)
    assert "the server's certificate is refused" in said


@pytest.mark.parametrize("name", ["sslrootcert", "sslcert", "sslkey", "sslcrl"])
async def test_a_file_of_the_url_that_is_not_there_is_named(name: str):
    said = await refusal(f"sslmode=verify-full&{name}=/nowhere/file.pem")
    assert f"{name}=/nowhere/file.pem: no such file or directory" in said


def kafka_over_tls(**files: Path | str) -> Settings:
    return Settings(kafka_security_protocol="SSL", **files)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["kafka_ssl_cafile", "kafka_ssl_certfile", "kafka_ssl_keyfile"])
def test_a_file_of_kafkas_that_is_not_there_is_named_with_its_variable(name: str, issue: Issue):
    client = issue("client")
    files: dict[str, Path | str] = {
        "kafka_ssl_certfile": client.certificate,
        "kafka_ssl_keyfile": client.key,
        name: "/nowhere/x.pem",
    }
    with pytest.raises(CommandError) as refused:
        kafka_over_tls(**files).kafka_client_options()
    assert f"ORDER_WORKER_{name.upper()}=/nowhere/x.pem: no such file or directory" in str(refused.value)


def test_a_file_that_is_no_certificate_is_reported_with_the_variable(tmp_path: Path):
    (tmp_path / "ca.crt").write_text("junk")
    with pytest.raises(CommandError, match="look at ORDER_WORKER_KAFKA_SSL_CAFILE"):
        kafka_over_tls(kafka_ssl_cafile=tmp_path / "ca.crt").kafka_client_options()


def test_a_key_of_another_certificate_is_reported(issue: Issue):
    files = {"kafka_ssl_certfile": issue("one").certificate, "kafka_ssl_keyfile": issue("two").key}
    with pytest.raises(CommandError, match="key values mismatch"):
        kafka_over_tls(**files).kafka_client_options()


def test_an_encrypted_key_is_read_with_its_password_and_nobody_is_asked_for_it(issue: Issue):
    client = issue("client", password=SECRET)
    files = {"kafka_ssl_certfile": client.certificate, "kafka_ssl_keyfile": client.key}
    assert kafka_over_tls(**files, kafka_ssl_key_password=SECRET).kafka_client_options()["ssl_context"]
    wrong_passwords: tuple[dict[str, str], ...] = ({}, {"kafka_ssl_key_password": "wrong"})
    for wrong in wrong_passwords:
        with pytest.raises(CommandError, match="KEY_PASSWORD") as refused:
            kafka_over_tls(**files, **wrong).kafka_client_options()
        assert SECRET not in str(refused.value)


async def test_a_certificate_out_of_date_is_reported_with_host_and_dates(issue: Issue):
    server = issue("server", is_out_of_date=True)
    with postgres_with(server) as port:
        said = await refusal(f"sslmode=verify-full&sslrootcert={server.certificate}", port)
    for part in (
        f"127.0.0.1:{port}",
        "certificate has expired (valid from 20",
        f"{server.certificate} expired on 20",
    ):
        assert part in said, said


async def test_a_client_certificate_out_of_date_is_reported_with_its_file_and_date(issue: Issue):
    server, client = issue("server"), issue("client", is_out_of_date=True)
    files = f"sslrootcert={server.certificate}&sslcert={client.certificate}&sslkey={client.key}"
    with postgres_with(server) as port:
        said = await refusal(f"sslmode=verify-full&{files}", port)
    assert f"sslcert={client.certificate} expired on 20" in said
