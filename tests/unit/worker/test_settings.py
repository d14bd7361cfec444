import pytest

from worker.errors import CommandError
from worker.settings import Settings, read_settings


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch, tmp_path):
    """No variable and no .env of the machine that runs the tests."""
    monkeypatch.chdir(tmp_path)
    for name in Settings.model_fields:
        monkeypatch.delenv(f"ORDER_WORKER_{name.upper()}", raising=False)


def test_the_defaults_are_those_of_the_public_interface():
    settings = read_settings()
    assert settings.group_id == "order-worker"
    assert (settings.http_port, settings.database_schema) == (8000, "public")
    assert settings.message_max_bytes == 256 * 1024
    assert settings.order_placed_topic == "order-placed"
    assert settings.dead_letter_topic == "order-placed-dlt"


def test_the_environment_and_the_env_file_are_read_and_the_environment_wins(
    monkeypatch: pytest.MonkeyPatch, tmp_path
):
    (tmp_path / ".env").write_text("ORDER_WORKER_GROUP_ID=from-file\nORDER_WORKER_HTTP_PORT=9000\n")
    monkeypatch.setenv("ORDER_WORKER_HTTP_PORT", "9001")
    settings = read_settings()
    assert (settings.group_id, settings.http_port) == ("from-file", 9001)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("HTTP_PORT", "70000", "ORDER_WORKER_HTTP_PORT"),
        ("BATCH_MAX_RECORDS", "0", "ORDER_WORKER_BATCH_MAX_RECORDS"),
        ("ORDER_PLACED_TOPIC", "no spaces", "ORDER_WORKER_ORDER_PLACED_TOPIC"),
        ("DEAD_LETTER_TOPIC", "order-placed", "different names"),
        ("KAFKA_SECURITY_PROTOCOL", "SASL_SSL", "ORDER_WORKER_KAFKA_SASL_USERNAME"),
        ("LOG_LEVEL", "LOUD", "ORDER_WORKER_LOG_LEVEL"),
        ("SESSION_TIMEOUT_MS", "1800001", "ORDER_WORKER_SESSION_TIMEOUT_MS"),
        # Each of these ended in a traceback of struct, or in attempts without end.
        ("TRANSACTION_TIMEOUT_MS", "99999999999", "ORDER_WORKER_TRANSACTION_TIMEOUT_MS"),
        ("BATCH_TIMEOUT_SECONDS", "1e7", "ORDER_WORKER_BATCH_TIMEOUT_SECONDS"),
        ("BATCH_TIMEOUT_SECONDS", "inf", "ORDER_WORKER_BATCH_TIMEOUT_SECONDS"),
        ("REQUEST_TIMEOUT_MS", "99999999999999", "ORDER_WORKER_REQUEST_TIMEOUT_MS"),
        ("STATEMENT_TIMEOUT_MS", "99999999999", "ORDER_WORKER_STATEMENT_TIMEOUT_MS"),
        ("LOCK_TIMEOUT_MS", "99999999999", "ORDER_WORKER_LOCK_TIMEOUT_MS"),
        ("BATCH_TIMEOUT_SECONDS", "0.001", "ORDER_WORKER_BATCH_TIMEOUT_SECONDS"),
        ("SHUTDOWN_TIMEOUT_SECONDS", "inf", "ORDER_WORKER_SHUTDOWN_TIMEOUT_SECONDS"),
        ("RETRY_MAX_SECONDS", "inf", "ORDER_WORKER_RETRY_MAX_SECONDS"),
        ("REFUSED_LIMIT_SECONDS", "inf", "ORDER_WORKER_REFUSED_LIMIT_SECONDS"),
        # It would end a worker that is well, as soon as it has started.
        ("STALL_LIMIT_SECONDS", "0.001", "ORDER_WORKER_STALL_LIMIT_SECONDS"),
        # A name with something in it that nobody sees is another name.
        ("GROUP_ID", "order-worker\n", "ORDER_WORKER_GROUP_ID: begins or ends with a line break"),
        ("GROUP_ID", " order-worker", "ORDER_WORKER_GROUP_ID: begins or ends with a space"),
        ("GROUP_ID", "order\nworker", "a character that cannot be seen (U+000A)"),
        ("GROUP_ID", "order\u200bworker", "a character that cannot be seen (U+200B)"),
        ("GROUP_ID", '"order-worker"', "ORDER_WORKER_GROUP_ID: is in quotes"),
        (
            "DATABASE_URL",
            "'postgresql://shop:very-secret@db/shop'",
            "ORDER_WORKER_DATABASE_URL: is in quotes",
        ),
        ("DATABASE_SCHEMA", "public\r\n", "ORDER_WORKER_DATABASE_SCHEMA: begins or ends with a line break"),
        ("KAFKA_BOOTSTRAP_SERVERS", "kafka:9092\n", "ORDER_WORKER_KAFKA_BOOTSTRAP_SERVERS: begins or ends"),
        ("KAFKA_BOOTSTRAP_SERVERS", "kafka:9092,", "ORDER_WORKER_KAFKA_BOOTSTRAP_SERVERS: is not host:port"),
        (
            "KAFKA_BOOTSTRAP_SERVERS",
            "kafka://kafka",
            "ORDER_WORKER_KAFKA_BOOTSTRAP_SERVERS: is not host:port",
        ),
        ("DATABASE_URL", "postgresql://shop@db/shop\n", "ORDER_WORKER_DATABASE_URL: begins or ends"),
        ("HTTP_HOST", "\ufeff127.0.0.1", "U+FEFF"),
        ("KAFKA_SASL_USERNAME", "worker\n", "ORDER_WORKER_KAFKA_SASL_USERNAME: begins or ends"),
        ("KAFKA_SASL_PASSWORD", "very-secret\n", "ORDER_WORKER_KAFKA_SASL_PASSWORD: begins or ends"),
    ],
)
def test_a_wrong_setting_is_one_line_that_names_the_variable(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, words: str
):
    monkeypatch.setenv(f"ORDER_WORKER_{name}", value)
    with pytest.raises(CommandError) as caught:
        read_settings()
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "very-secret" not in str(caught.value)


def test_the_longest_limits_fit_into_what_kafka_counts_with(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("ORDER_WORKER_BATCH_TIMEOUT_SECONDS", "86400")
    monkeypatch.setenv("ORDER_WORKER_TRANSACTION_TIMEOUT_MS", "86400000")
    assert read_settings().rebalance_timeout_ms < 2**31


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b'ORDER_WORKER_GROUP_ID "mine"\n', ".env line 1 cannot be read: write ORDER_WORKER_GROUP_ID="),
        (b"# ours\n\nORDER_WORKER_GROUP_ID: mine\n", ".env line 3 cannot be read"),
        (b"ORDER_WORKER_GROUP_ID\n", ".env line 1 cannot be read"),
        (b'A=1\nORDER_WORKER_GROUP_ID="mine\nB=2\n', ".env line 2 cannot be read"),
        (b'A="1\nORDER_WORKER_GROUP_ID=mine\nB="2', ".env line 2 cannot be read"),
        (b'A="1\nORDER_WORKER_GROUP_ID=mine\nB="\n', ".env line 2 is read as a part of A"),
        ("ORDER_WORKER_GROUP_ID=mine\n".encode("utf-16"), ".env is not UTF-8 text"),
        (b"ORDER_WORKER_GROUP_ID=\x93mine\x94\n", ".env is not UTF-8 text"),
    ],
    ids=["no-sign", "yaml", "bare", "open", "opened-before", "swallowed", "utf-16", "windows"],
)
def test_a_line_of_the_env_file_that_is_not_read_is_no_silent_default(tmp_path, content: bytes, words: str):
    (tmp_path / ".env").write_bytes(content)
    with pytest.raises(CommandError) as caught:
        read_settings()
    assert words in str(caught.value)
    assert "mine" not in str(caught.value)


def test_what_others_keep_in_the_env_file_does_not_matter(tmp_path):
    others = b'\xef\xbb\xbfORDER_WORKER_GROUP_ID=\'mine\'\r\nNOT: OURS\nKEY="-----\nBEGIN\n-----"\nOPEN="\n'
    (tmp_path / ".env").write_bytes(others)
    assert read_settings().group_id == "mine"


def test_a_folder_of_the_name_of_the_env_file_is_none(tmp_path):
    (tmp_path / ".env").mkdir()
    assert read_settings().group_id == "order-worker"


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("ORDER_WORKER_KAFKA_BOOTSTRAP_SERVER", "do you mean ORDER_WORKER_KAFKA_BOOTSTRAP_SERVERS?"),
        (
            "order_worker_databaseurl",
            "ORDER_WORKER_DATABASEURL is no setting; do you mean ORDER_WORKER_DATABASE_URL?",
        ),
        ("ORDER_WORKER_QQQ", "ORDER_WORKER_QQQ is no setting"),
        ("ORDER_WORKER_", "ORDER_WORKER_ is no setting"),
    ],
)
@pytest.mark.parametrize("in_file", [False, True])
def test_a_name_that_is_no_setting_is_refused_with_the_nearest(
    monkeypatch: pytest.MonkeyPatch, tmp_path, name: str, says: str, in_file: bool
):
    if in_file:
        (tmp_path / ".env").write_text(f"{name}=x\n")
    else:
        monkeypatch.setenv(name, "x")
    with pytest.raises(CommandError) as refused:
        read_settings()
    assert says in str(refused.value)


@pytest.mark.parametrize(
    "name",
    [
        "ORDER_WORKER_SERVICE_HOST",
        "ORDER_WORKER_SERVICE_PORT_HTTP",
        "ORDER_WORKER_PORT",
        "ORDER_WORKER_PORT_8000_TCP",
        "ORDER_WORKER_PORT_8000_TCP_ADDR",
        "ORDER_WORKER_NO_DOCKER",
        "ORDER_WORKERS",
    ],
)
def test_variables_of_other_programs_are_ignored(monkeypatch: pytest.MonkeyPatch, name: str):
    monkeypatch.setenv(name, "tcp://10.0.0.1:8000")
    assert read_settings().http_port == 8000


def test_secrets_are_not_shown():
    settings = read_settings(database_url="postgresql://user:hunter2@host/db", kafka_sasl_password="hunter2")
    assert "hunter2" not in repr(settings)


def test_a_batch_ends_before_a_rebalance_gives_up_on_it():
    settings = read_settings()
    longest = settings.batch_timeout_seconds + settings.transaction_timeout_ms / 2_000
    assert settings.rebalance_timeout_ms / 1_000 > longest
    assert settings.statement_timeout_ms / 1_000 < settings.batch_timeout_seconds
    assert settings.lock_timeout_ms < settings.statement_timeout_ms
