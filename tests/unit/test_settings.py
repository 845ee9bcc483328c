"""Settings: what is read, what is refused, and that each refusal names its variable."""

from dataclasses import FrozenInstanceError
from pathlib import Path

import pytest

from server.__main__ import main
from server.processes import CANNOT_START
from server.settings import ENV_NAMES, Role, Settings, SettingsError, read_settings

PASSWORD = "hunter2-in-the-url"  # noqa: S105 - a test's own
API = {
    "DATABASE_URL": f"postgresql://nibble:{PASSWORD}@/nibble",
    "JWT_ISSUER": "https://identity.nibble.example",
    "JWT_AUDIENCE": "nibble-api",
    "JWKS_FILE": "jwks.json",
    "PAGE_TOKEN_KEY": "a-key-of-at-least-32-characters-x",
}
RELAY = {"DATABASE_URL": "postgresql:///nibble", "KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:9092"}
NOTIFIER = RELAY | {
    "USER_SERVICE_TARGET": "127.0.0.1:50051",
    "TICKET_URL": "https://support.nibble.example/tickets/{ticket_id}",
    "EMAIL_FROM": "Nibble Support <support@nibble.example>",
    "SMTP_HOST": "mail.nibble.example",
}
MIGRATE = {"DATABASE_URL": "postgresql:///nibble"}

DEFAULTS = {
    "grpc_host": "127.0.0.1",
    "grpc_port": 50051,
    "api_workers": 1,
    "metrics_host": "127.0.0.1",
    "metrics_port": 0,
    "jwks_url": None,
    "jwt_leeway_seconds": 60,
    "log_level": "info",
    "log_format": "json",
    "idempotency_key_ttl_seconds": 7 * 24 * 3600,
    "event_retention_seconds": None,
    "reopen_on_comment": True,
    "feedback_changeable_seconds": 7 * 24 * 3600,
    "auto_close_seconds": 72 * 3600,
    "max_concurrent_calls": 200,
    "default_deadline_seconds": 10,
    "statement_timeout_seconds": 8,
    "db_pool_size": 8,
    "db_pool_max_waiting": 200,
    "db_pool_timeout_seconds": 3,
    "max_concurrent_streams": 1000,
    "max_streams_per_caller": 20,
    "max_stream_seconds": 900,
    "max_request_bytes": 1024 * 1024,
    "shutdown_delay_seconds": 3,
    "shutdown_grace_seconds": 10,
    "user_service_token_file": None,
    "user_service_timeout_seconds": 2,
    "order_service_target": None,
    "order_service_token_file": None,
    "order_service_timeout_seconds": 2,
    "order_fresh_seconds": 30.0,
    "dead_letter_limit": 10,
    "consumer_session_timeout_seconds": 10,
    "notify_within_seconds": 7 * 24 * 3600,
    "staff_seen_within_seconds": 30 * 24 * 3600,
    "digest_window_seconds": 60,
    "notification_retention_seconds": 180 * 24 * 3600,
    "smtp_port": 587,
    "smtp_security": "starttls",
    "smtp_username": None,
    "smtp_password": None,
    "sender_threads": 2,
    "email_lease_seconds": 60,
    "email_retry_seconds": 5,
    "email_retry_max_seconds": 900,
    "email_give_up_seconds": 6 * 3600,
    "sweep_interval_seconds": 5,
    "sweep_round_seconds": 20,
    "unattended_urgent_seconds": 15 * 60,
    "unattended_high_seconds": 3600,
    "unattended_medium_seconds": 4 * 3600,
    "unattended_low_seconds": 24 * 3600,
    "reassign_away_after_seconds": None,
    "tls_cert_file": None,
    "tls_key_file": None,
    "tls_client_ca_file": None,
    "tls_probe_cert_file": None,
    "tls_probe_key_file": None,
}
NEEDED = API.keys() | NOTIFIER.keys()


def read(**changes: str) -> Settings:
    """The settings of the API in an environment in which only `changes` differ from a good one."""
    return read_settings(Role.API, API | changes)


def test_what_is_not_set_has_the_documented_default() -> None:
    settings = read()
    assert {name: getattr(settings, name) for name in DEFAULTS} == DEFAULTS


def test_the_names_in_the_environment_are_the_documented_ones() -> None:
    assert {name.upper() for name in DEFAULTS} | NEEDED == ENV_NAMES


def test_what_is_needed_is_read_as_it_stands() -> None:
    settings = read()
    assert settings.database_url == API["DATABASE_URL"]
    assert settings.jwks_file == Path("jwks.json")
    assert settings.page_token_key == API["PAGE_TOKEN_KEY"].encode()


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("GRPC_PORT", "1", 1),
        ("GRPC_PORT", "65535", 65535),
        ("API_WORKERS", "4", 4),
        ("METRICS_PORT", "0", 0),
        ("METRICS_PORT", "9464", 9464),
        ("JWT_LEEWAY_SECONDS", "0", 0),
        ("LOG_LEVEL", "debug", "debug"),
        ("LOG_FORMAT", "console", "console"),
        ("REOPEN_ON_COMMENT", "false", False),
        ("REOPEN_ON_COMMENT", "true", True),
        ("DEFAULT_DEADLINE_SECONDS", "0.5", 0.5),
        ("DB_POOL_SIZE", "1", 1),
        ("SHUTDOWN_DELAY_SECONDS", "0", 0),
        ("SHUTDOWN_GRACE_SECONDS", "0", 0),
        ("GRPC_HOST", "0.0.0.0", "0.0.0.0"),  # noqa: S104
    ],
)
def test_a_good_value_is_read(name: str, text: str, value: object) -> None:
    assert getattr(read(**{name: text}), name.lower()) == value


NUMBERS = {
    "GRPC_PORT": ["0", "65536", "-1", "http", "1.5"],
    "API_WORKERS": ["0", "-1", "many", "1e9"],
    "METRICS_PORT": ["-1", "65536", "x"],
    "JWT_LEEWAY_SECONDS": ["-1", "301", "nan", "inf", "a minute"],
    "IDEMPOTENCY_KEY_TTL_SECONDS": ["0", "nan", "inf", "7d"],
    "FEEDBACK_CHANGEABLE_SECONDS": ["0", "nan", "7d"],
    "AUTO_CLOSE_SECONDS": ["0", "nan", "72h"],
    "MAX_CONCURRENT_CALLS": ["0", "-5", "x"],
    "DEFAULT_DEADLINE_SECONDS": ["0", "-1", "nan", "inf"],
    "STATEMENT_TIMEOUT_SECONDS": ["0", "nan", "x"],
    "DB_POOL_SIZE": ["0", "x", "2.5"],
    "DB_POOL_MAX_WAITING": ["0", "x"],
    "DB_POOL_TIMEOUT_SECONDS": ["0", "nan", "x"],
    "MAX_REQUEST_BYTES": ["0", "1023", "x"],
    "USER_SERVICE_TIMEOUT_SECONDS": ["0", "nan", "x"],
    "ORDER_SERVICE_TIMEOUT_SECONDS": ["0", "nan", "x"],
    "ORDER_FRESH_SECONDS": ["0", "nan", "x"],
    "SHUTDOWN_DELAY_SECONDS": ["-1", "nan", "x"],
    "SHUTDOWN_GRACE_SECONDS": ["-1", "nan", "x"],
    "DEAD_LETTER_LIMIT": ["-1", "1.5", "x"],
    "CONSUMER_SESSION_TIMEOUT_SECONDS": ["0", "nan", "x"],
    "SMTP_PORT": ["0", "smtp"],
    "SENDER_THREADS": ["0", "33", "two"],
    "DIGEST_WINDOW_SECONDS": ["0", "nan", "x"],
    "EMAIL_LEASE_SECONDS": ["0", "4.9", "nan", "x"],
    "NOTIFY_WITHIN_SECONDS": ["0", "inf", "7d"],
    "SWEEP_INTERVAL_SECONDS": ["0", "nan", "x"],
    "SWEEP_ROUND_SECONDS": ["0", "inf", "x"],
    "UNATTENDED_URGENT_SECONDS": ["0", "nan", "15m"],
    "REASSIGN_AWAY_AFTER_SECONDS": ["0", "nan", "x"],
}
WORDS = {
    "LOG_LEVEL": ["INFO", "loud"],
    "LOG_FORMAT": ["text", "JSON"],
    "REOPEN_ON_COMMENT": ["yes", "1", "True"],
    "PAGE_TOKEN_KEY": ["short", "x" * 31],
    "SMTP_SECURITY": ["ssl", "STARTTLS"],
    "TICKET_URL": ["https://support.nibble.example/tickets", "tickets/{ticket_id}"],
}
BAD = [(name, text) for name, texts in (NUMBERS | WORDS).items() for text in texts]


@pytest.mark.parametrize(("name", "text"), BAD)
def test_a_bad_value_is_refused_by_the_name_of_its_variable(name: str, text: str) -> None:
    with pytest.raises(SettingsError) as refusal:
        read(**{name: text})
    (line,) = str(refusal.value).splitlines()
    assert line.startswith(f"{name} must ")


def test_a_bad_secret_is_not_repeated_in_the_refusal() -> None:
    with pytest.raises(SettingsError) as refusal:
        read(PAGE_TOKEN_KEY="swordfish")
    assert "swordfish" not in str(refusal.value)


def test_every_bad_value_is_named_at_once() -> None:
    with pytest.raises(SettingsError) as refusal:
        read(GRPC_PORT="x", LOG_LEVEL="x", DATABASE_URL="")
    assert {line.split()[0] for line in str(refusal.value).splitlines()} == {"GRPC_PORT", "LOG_LEVEL", "DATABASE_URL"}


@pytest.mark.parametrize(
    ("role", "name"),
    [(Role.API, name) for name in API if name != "JWKS_FILE"]
    + [(Role.RELAY, name) for name in RELAY]
    + [(Role.NOTIFIER, name) for name in NOTIFIER]
    + [(Role.MIGRATE, name) for name in MIGRATE],
)
@pytest.mark.parametrize("how", ["empty", "absent"])
def test_each_role_names_what_it_lacks(role: Role, name: str, how: str) -> None:
    environ = {Role.API: API, Role.RELAY: RELAY, Role.NOTIFIER: NOTIFIER, Role.MIGRATE: MIGRATE}[role].copy()
    environ.pop(name)
    if how == "empty":
        environ[name] = ""
    with pytest.raises(SettingsError, match=f"^{name} is not set"):
        read_settings(role, environ)


def test_the_relay_the_sweeper_and_the_migrator_need_nothing_of_the_api() -> None:
    assert read_settings(Role.RELAY, RELAY).page_token_key is None
    for role in (Role.MIGRATE, Role.SWEEPER):
        assert read_settings(role, MIGRATE).kafka_bootstrap_servers is None


@pytest.mark.parametrize(
    "sources", [{"JWKS_FILE": ""}, {"JWKS_URL": "https://identity.nibble.example/jwks"}], ids=["neither", "both"]
)
def test_the_api_takes_its_keys_from_exactly_one_source(sources: dict[str, str]) -> None:
    with pytest.raises(SettingsError, match="JWKS_FILE or JWKS_URL"):
        read(**sources)


def test_the_keys_may_come_from_an_url() -> None:
    settings = read(JWKS_FILE="", JWKS_URL="https://identity.nibble.example/jwks")
    assert (settings.jwks_file, settings.jwks_url) == (None, "https://identity.nibble.example/jwks")


@pytest.mark.parametrize("url", ["ftp://keys", "file:///keys.json", "keys.json"])
def test_keys_come_by_http_only(url: str) -> None:
    with pytest.raises(SettingsError, match="JWKS_URL must be"):
        read(JWKS_FILE="", JWKS_URL=url)


@pytest.mark.parametrize("changes", [{"SMTP_USERNAME": "nibble"}, {"SMTP_PASSWORD": PASSWORD}])
def test_a_login_has_a_name_and_a_password(changes: dict[str, str]) -> None:
    with pytest.raises(SettingsError, match=r"^SMTP_USERNAME and SMTP_PASSWORD must both be set, or neither$"):
        read_settings(Role.NOTIFIER, NOTIFIER | changes)


def test_a_password_is_not_sent_in_the_clear() -> None:
    login = {"SMTP_USERNAME": "nibble", "SMTP_PASSWORD": PASSWORD}
    assert PASSWORD not in repr(read_settings(Role.NOTIFIER, NOTIFIER | login))
    with pytest.raises(SettingsError, match=r"^SMTP_PASSWORD would be sent in the clear"):
        read_settings(Role.NOTIFIER, NOTIFIER | login | {"SMTP_SECURITY": "none"})


PAIRS = [("TLS_CERT_FILE", "TLS_KEY_FILE"), ("TLS_PROBE_CERT_FILE", "TLS_PROBE_KEY_FILE")]


@pytest.mark.parametrize("pair", PAIRS)
@pytest.mark.parametrize("given", [0, 1])
def test_a_certificate_without_its_key_is_refused_and_a_key_without_its_certificate(
    pair: tuple[str, str], given: int
) -> None:
    with pytest.raises(SettingsError, match=f"^{pair[0]} and {pair[1]} must both be set, or neither$"):
        read(**{pair[given]: "some.pem"})


def test_client_certificates_are_not_asked_for_without_tls() -> None:
    with pytest.raises(SettingsError, match=r"^TLS_CLIENT_CA_FILE has no meaning without TLS_CERT_FILE"):
        read(TLS_CLIENT_CA_FILE="ca.pem")


def test_the_files_for_tls_are_read_as_paths() -> None:
    settings = read(TLS_CERT_FILE="a.pem", TLS_KEY_FILE="b.pem", TLS_CLIENT_CA_FILE="c.pem")
    found = (settings.tls_cert_file, settings.tls_key_file, settings.tls_client_ca_file)
    assert found == (Path("a.pem"), Path("b.pem"), Path("c.pem"))


def test_an_empty_value_counts_as_none() -> None:
    assert read(GRPC_PORT="").grpc_port == 50051


def test_other_variables_are_nobodys_business() -> None:
    assert read(PATH="/bin", GRPC_VERBOSITY="debug") == read()


def test_settings_do_not_change_while_the_service_runs() -> None:
    with pytest.raises(FrozenInstanceError):
        read().grpc_port = 1  # type: ignore[misc]


@pytest.mark.parametrize("secret", [PASSWORD, API["PAGE_TOKEN_KEY"]], ids=["password", "page token key"])
def test_no_secret_shows_where_the_settings_are_printed(secret: str) -> None:
    assert secret not in repr(read())
    assert secret not in str(read())


def test_a_probe_that_is_sent_to_no_port_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GRPC_PORT", "fifty")
    assert main(["health"]) == CANNOT_START
    assert capsys.readouterr().err == "server health: GRPC_PORT must be a number\n"
