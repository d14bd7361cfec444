"""Secrets in files: what is read, what is refused, and that nothing of a secret is ever said."""

import asyncio
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import SecretStr

from tests.support.certificates import issuing_in
from tests.support.deadline import eventually
from worker.database import database_engine, require_reachable_database
from worker.errors import CommandError
from worker.kafka_login import KafkaLogin, TokenCommand, refused_login
from worker.secret_files import MAX_BYTES, CredentialError, read_secret
from worker.settings import SECRETS, Settings, read_settings
from worker.tls import expired

NAME = "ORDER_WORKER_KAFKA_SASL_PASSWORD_FILE"
ALL_FILES = (*(f"{name}_file" for name in SECRETS), "database_password_file", "kafka_sasl_token_file")


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No variable and no .env of the machine that runs the tests."""
    monkeypatch.chdir(tmp_path)
    for name in Settings.model_fields:
        monkeypatch.delenv(f"ORDER_WORKER_{name.upper()}", raising=False)


def refusal_of(path: Path) -> str:
    with pytest.raises(CredentialError) as refused:
        read_secret(NAME, path)
    said = str(refused.value)
    assert "\n" not in said
    assert said.startswith(NAME)
    return said


@pytest.mark.parametrize(
    ("content", "value"),
    [
        (b"a b", "a b"),
        (b"secret\n", "secret"),
        (b"secret\r\n", "secret"),
        (b"secret\n\n", "secret\n"),
        (b" \xc3\xa9\xe2\x82\xac ", " é€ "),
        (b"x" * MAX_BYTES, "x" * MAX_BYTES),
    ],
)
def test_the_content_is_the_value_without_one_newline(tmp_path: Path, content: bytes, value: str):
    (tmp_path / "file").write_bytes(content)
    assert read_secret(NAME, tmp_path / "file") == value


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "empty"),
        (b"\n", "empty"),
        (b"hunter2" + b"x" * MAX_BYTES, "larger than 64 KiB"),
        (b"hunter2\xff\xfe", "not UTF-8 text"),
        (b"hunter2\0", "binary"),
    ],
)
def test_a_file_whose_content_is_no_secret_is_named_and_not_quoted(tmp_path: Path, content: bytes, why: str):
    (tmp_path / "file").write_bytes(content)
    said = refusal_of(tmp_path / "file")
    assert said.startswith(f"{NAME}={tmp_path / 'file'}: {why}")
    assert "hunter2" not in said


def test_a_missing_file_or_a_folder_in_its_place_is_named_at_once(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe")
    assert "no such file" in refusal_of(tmp_path / "absent")
    assert str(tmp_path / "absent") in refusal_of(tmp_path / "absent")
    assert "is a directory" in refusal_of(tmp_path)
    assert "no regular file" in refusal_of(tmp_path / "pipe")
    assert "no regular file" in refusal_of(Path("/dev/zero"))


@pytest.mark.parametrize(
    "value", ["hunter2", "postgresql://shop:hunter2@here/shop", "hunter2" * 100, "hunter2\0"]
)
def test_a_secret_given_in_place_of_a_files_name_is_not_quoted(value: str):
    assert "hunter2" not in refusal_of(Path(value))


@pytest.mark.parametrize("name", ALL_FILES)
def test_every_secret_may_lie_in_a_file_and_a_wrong_one_is_reported_at_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
):
    monkeypatch.setenv("ORDER_WORKER_KAFKA_SASL_MECHANISM", "OAUTHBEARER")
    monkeypatch.setenv(f"ORDER_WORKER_{name.upper()}", str(tmp_path / "secret"))
    with pytest.raises(CommandError, match=f"ORDER_WORKER_{name.upper()}=.*: no such file"):
        read_settings()
    (tmp_path / "secret").write_text("first\n")
    read = read_settings().secret(name.removesuffix("_file"))
    assert read is not None
    (tmp_path / "secret").write_text("second\n")
    assert read() == "second", "it is read again each time"


@pytest.mark.parametrize("name", SECRETS)
def test_a_secret_and_its_file_are_refused_together(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
):
    (tmp_path / "secret").write_text("hunter2")
    monkeypatch.setenv(f"ORDER_WORKER_{name.upper()}", "hunter2")
    monkeypatch.setenv(f"ORDER_WORKER_{name.upper()}_FILE", str(tmp_path / "secret"))
    with pytest.raises(CommandError) as refused:
        read_settings()
    variable = f"ORDER_WORKER_{name.upper()}"
    assert str(refused.value) == f"wrong settings: set {variable} or {variable}_FILE, not both"


@pytest.mark.parametrize("more", [":hunter2@here/shop", "@here/shop?password=hunter2"])
def test_a_password_in_the_url_and_one_in_a_file_are_refused_together(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, more: str
):
    (tmp_path / "secret").write_text("hunter2")
    monkeypatch.setenv("ORDER_WORKER_DATABASE_URL", f"postgresql://shop{more}")
    monkeypatch.setenv("ORDER_WORKER_DATABASE_PASSWORD_FILE", str(tmp_path / "secret"))
    with pytest.raises(CommandError, match="ORDER_WORKER_DATABASE_PASSWORD_FILE, not both") as refused:
        read_settings()
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"KAFKA_SASL_TOKEN_COMMAND": "token"}, "is for ORDER_WORKER_KAFKA_SASL_MECHANISM=OAUTHBEARER"),
        ({"KAFKA_SASL_MECHANISM": "OAUTHBEARER"}, "OAUTHBEARER needs ORDER_WORKER_KAFKA_SASL_TOKEN_FILE or"),
        (
            {"KAFKA_SASL_MECHANISM": "OAUTHBEARER", "KAFKA_SASL_TOKEN_COMMAND": "get 'hunter2"},
            "KAFKA_SASL_TOKEN_COMMAND is no command: look at its quotes",
        ),
        (
            {
                "KAFKA_SASL_MECHANISM": "OAUTHBEARER",
                "KAFKA_SASL_TOKEN_COMMAND": "x",
                "KAFKA_SASL_TOKEN_FILE": "y",
            },
            "KAFKA_SASL_TOKEN_COMMAND, not both",
        ),
    ],
)
def test_what_is_missing_or_too_much_for_a_token_is_one_line(
    monkeypatch: pytest.MonkeyPatch, given: dict[str, str], words: str
):
    for name, value in {"KAFKA_SECURITY_PROTOCOL": "SASL_SSL", **given}.items():
        monkeypatch.setenv(f"ORDER_WORKER_{name}", value)
    with pytest.raises(CommandError) as refused:
        read_settings()
    assert words in str(refused.value)
    assert "hunter2" not in str(refused.value)


# A token's command


@pytest.mark.parametrize(
    ("command", "why"),
    [
        ("/nowhere/get-token hunter2", "cannot be run: no such file or directory"),
        ("sh -c 'echo hunter2 >&2; exit 3'", "ended with exit code 3"),
        ("sh -c 'yes hunter2 | head -c 70000'", "wrote more than 64 KiB"),
        ("true hunter2", "gives no token"),
        ("sh -c 'echo hunter2; echo more'", "gives no token"),
    ],
)
async def test_a_command_that_gives_no_token_is_reported_by_its_variable_alone(command: str, why: str):
    login = KafkaLogin("VARIABLE", token_command=TokenCommand("VARIABLE", command))
    with pytest.raises(CredentialError) as refused:
        await login.token()
    assert str(refused.value).startswith("VARIABLE")
    assert why in str(refused.value)
    assert "hunter2" not in str(refused.value) + repr(login)


def has_ended(pid: int) -> bool:
    stat = Path(f"/proc/{pid}/stat")
    return not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] == "Z"


async def test_a_command_that_hangs_is_ended_with_all_it_has_started(
    monkeypatch: pytest.MonkeyPatch, tmp_path
):
    monkeypatch.setattr("worker.kafka_login.COMMAND_SECONDS", 0.5)
    pid_file = tmp_path / "pid"
    command = TokenCommand("VARIABLE", f"sh -c 'sleep 600 & echo $! > {pid_file}; wait'")
    with pytest.raises(CredentialError, match=r"VARIABLE gave no token in 0\.5 s"):
        await command.token()
    # It was killed by then; the kernel ends it when it comes to it.
    eventually(lambda: has_ended(int(pid_file.read_text())))


async def test_a_token_is_reused_for_a_moment(tmp_path: Path):
    counted = tmp_path / "counted"
    command = TokenCommand("VARIABLE", f"sh -c 'echo x >> {counted}; echo token'")
    assert [await command.token() for _ in range(3)] == ["token"] * 3
    assert counted.read_text() == "x\n"


# Certificates


def test_a_certificate_out_of_date_is_named_with_its_file_and_date(tmp_path: Path):
    made = issuing_in(tmp_path)("client")
    files = [("KEY", made.key), ("ABSENT", tmp_path / "absent"), ("CERT", made.certificate)]
    assert expired(files, datetime.now(UTC)) is None
    said = expired(files, datetime(2999, 1, 1, tzinfo=UTC))
    assert said is not None
    assert said.startswith(f"CERT={made.certificate} expired on 20")


# Nothing of a secret

ODD = st.text(st.sampled_from("@/?#:%&=+ '\"\\$,[]é\t"), max_size=3)
# Long enough that no message holds it by chance.
PIECE = st.text(st.sampled_from("QZXJ0189"), min_size=6, max_size=6)


@st.composite
def secrets(draw: st.DrawFn) -> tuple[str, list[str]]:
    pieces = draw(st.lists(PIECE, min_size=1, max_size=3))
    return "".join(draw(ODD) + piece for piece in pieces) + draw(ODD), pieces


def said_of(given: dict[str, str]) -> Iterator[str]:
    """All that the settings say of themselves, and what is wrong with them."""
    with patch.dict(os.environ, {f"ORDER_WORKER_{name}": value for name, value in given.items()}):
        try:
            found = read_settings()
            yield from (repr(found), str(found), found.model_dump_json())
            yield repr(found.kafka_client_options())
            yield found.set_by("kafka_sasl_password", "database_url")
        except (CommandError, ValueError) as error:
            yield f"{error!r} {error}"


@given(
    secrets(),
    st.sampled_from(["SASL_PLAINTEXT", "SASL_SSL", "PLAINTEXT", "WRONG"]),
    st.sampled_from(["PLAIN", "OAUTHBEARER"]),
)
def test_settings_never_show_a_piece_of_a_secret(
    secret: tuple[str, list[str]], protocol: str, mechanism: str
):
    value, pieces = secret
    given = {
        "KAFKA_SECURITY_PROTOCOL": protocol,
        "KAFKA_SASL_MECHANISM": mechanism,
        "KAFKA_SASL_USERNAME": "shop",
        "KAFKA_SASL_PASSWORD": value,
        "KAFKA_SSL_KEY_PASSWORD": value,
        "KAFKA_SASL_TOKEN_COMMAND": value,
        "DATABASE_URL": f"postgresql://shop:{value}@here:5432/shop",
    }
    if mechanism == "PLAIN":
        del given["KAFKA_SASL_TOKEN_COMMAND"]
    for said in said_of(given):
        assert not [piece for piece in pieces if piece in said], said


async def refusal_to_connect(url: str) -> str:
    found = Settings(database_url=SecretStr(url))
    async with database_engine(found, "test") as engine:
        try:
            await require_reachable_database(engine, found)
        except CommandError as error:
            return str(error)
    raise AssertionError("nobody listens on port 1")


@settings(max_examples=25)
@given(secrets(), st.sampled_from(["", "?sslmode=no-such", "?connect_timeout=1", "?ssl=true", "&x"]))
def test_a_url_that_leads_nowhere_never_shows_a_piece_of_its_password(
    secret: tuple[str, list[str]], more: str
):
    value, pieces = secret
    said = asyncio.run(refusal_to_connect(f"postgresql://shop:{value}@127.0.0.1:1/shop{more}"))
    assert not [piece for piece in pieces if piece in said], said
    assert "\n" not in said


def test_what_kafka_refused_is_reported_with_what_it_is_set_by():
    login = KafkaLogin("FILE")
    options = {"sasl_oauth_token_provider": login, "bootstrap_servers": "here:9092"}
    assert refused_login({}) is refused_login(options) is None
    login.refusal = "user shop: Authentication failed"
    said = str(refused_login(options))
    assert said == "Kafka at here:9092 does not let us in (user shop: Authentication failed): check FILE"
