"""What of a database URL the driver takes, what the session gets, and what is refused."""

from typing import Any

import pytest

from db.database_url import NO_LIMIT_SECONDS, DatabaseUrl, InvalidUrlError, read_url


def test_a_plain_url_is_for_the_driver_as_it_is():
    url = "postgresql://u:p%40ss@one:1,two:2/shop?sslmode=verify-full&target_session_attrs=read-write"
    assert read_url(url) == DatabaseUrl(url, {}, None, ())


@pytest.mark.parametrize(
    ("url", "dsn"),
    [
        ("postgresql+asyncpg://u@h/shop", "postgresql://u@h/shop"),
        ("postgresql:///shop?host=/run/postgresql", "postgresql:///shop?host=/run/postgresql"),
        ("postgresql://h/shop?", "postgresql://h/shop"),
        ("postgresql://u@/shop?hostaddr=10.0.0.1", "postgresql://u@/shop?host=10.0.0.1"),
        ("postgresql://u@h/shop?hostaddr=10.0.0.1", "postgresql://u@h/shop"),
        ("postgresql://u@10.0.0.1:1,[::1]:2/shop", "postgresql://u@/shop?host=10.0.0.1:1,[::1]:2"),
        ("postgresql:///shop?host=h,::1&port=1,2", "postgresql:///shop?host=h,[::1]&port=1,2"),
        ("postgresql:///shop?hostaddr=::1", "postgresql:///shop?host=[::1]"),
        ("postgresql://h/shop?password=a%26b%3D%25", "postgresql://h/shop?password=a%26b%3D%25"),
        ("postgresql://h/shop?password=a+b", "postgresql://h/shop?password=a%2Bb"),
    ],
)
def test_what_the_driver_gets_means_the_same(url: str, dsn: str):
    assert read_url(url).dsn == dsn


@pytest.mark.parametrize(("text", "seconds"), [("10", 10), ("0", NO_LIMIT_SECONDS), ("-1", NO_LIMIT_SECONDS)])
def test_the_time_to_connect_is_that_of_the_url(text: str, seconds: float):
    assert read_url(f"postgresql://h/shop?connect_timeout={text}").connect_timeout_seconds == seconds


@pytest.mark.parametrize("url", [None, b"postgresql://h/shop", 7])
def test_what_is_no_text_is_refused_with_the_form_to_write(url: Any):
    with pytest.raises(InvalidUrlError, match="not text: write postgresql://user:password@host:port/name"):
        read_url(url)


def test_settings_of_the_session_are_read_by_name_and_from_options():
    url = (
        "postgresql://h/shop?application_name=mine&work_mem=8MB"
        "&options=-c%20geqo%3Doff%20-cjit=on%20--log-min-messages=panic%20-c%20a.b=%22two%20words%22"
    )
    assert read_url(url) == DatabaseUrl(
        "postgresql://h/shop",
        {
            "application_name": "mine",
            "work_mem": "8MB",
            "geqo": "off",
            "jit": "on",
            "log_min_messages": "panic",
            "a.b": "two words",
        },
        None,
        (),
    )


def test_what_the_driver_does_not_know_and_nobody_needs_is_skipped_by_name():
    url = "postgresql://h/shop?keepalives=1&keepalives_idle=30&sslsni=0&channel_binding=prefer&gssencmode=disable"
    read = read_url(url)
    assert (read.dsn, read.settings) == ("postgresql://h/shop", {})
    assert read.without_effect == (
        *("keepalives", "keepalives_idle", "sslsni", "channel_binding", "gssencmode"),
    )


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("channel_binding=require", "channel_binding cannot be had"),
        ("gssencmode=require", "gssencmode cannot be had"),
        ("require_auth=scram-sha-256", "require_auth cannot be had"),
        ("requirepeer=postgres", "requirepeer cannot be had"),
        ("requiressl=1", "write sslmode=require"),
        ("ssl=require", "write sslmode=require"),
        ("replication=database", "replication cannot be had"),
        ("sslcrldir=/crl", "sslcrldir cannot be had"),
        ("connect_timeout=soon", "connect_timeout is no whole number of seconds"),
        ("options=-d%203", "options are read as -c NAME=VALUE"),
        ("options=-c", "options are read as -c NAME=VALUE"),
        ("options=-c%20a='b", "options are read as -c NAME=VALUE"),
    ],
)
def test_what_would_be_another_connection_than_was_asked_for_is_refused(query: str, says: str):
    with pytest.raises(InvalidUrlError, match=says):
        read_url(f"postgresql://u:secret@h/shop?{query}")


def test_the_certificates_of_the_system_are_no_file():
    read = read_url("postgresql://h/shop?sslmode=verify-full&sslrootcert=system")
    assert (read.dsn, read.trusts_the_system) == ("postgresql://h/shop", True)
    assert not read_url("postgresql://h/shop?sslrootcert=root.crt").trusts_the_system


def test_a_password_with_a_question_mark_is_not_quoted():
    with pytest.raises(InvalidUrlError, match="percent-encode") as refused:
        read_url("postgresql://u:pie?ce@h/shop")
    assert "ce@" not in str(refused.value)
