"""The settings of the service: read once from the environment, checked by name before anything opens."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from enum import StrEnum
from pathlib import Path
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict

from server.telemetry import FORMATS, LEVELS

SHORTEST_KEY = 32


class Role(StrEnum):
    """The commands of the service; each needs other settings."""

    API = "api"
    RELAY = "relay"
    MIGRATE = "migrate"
    NOTIFIER = "notifier"
    NOTIFICATION_API = "notification-api"
    ANALYST = "analyst"
    ANALYTICS_API = "analytics-api"
    REPUBLISH = "republish"
    REBUILD_ANALYTICS = "rebuild-analytics"
    DEAD_EMAILS = "dead-emails"
    SWEEPER = "sweeper"


APIS = (Role.API, Role.NOTIFICATION_API, Role.ANALYTICS_API)
BY_HAND = (Role.REPUBLISH, Role.REBUILD_ANALYTICS, Role.DEAD_EMAILS)
"""What an operator runs now and then, and what is no process of the system."""
KAFKA_CLIENTS = (Role.RELAY, Role.NOTIFIER, Role.ANALYST, Role.REPUBLISH)


class SettingsError(Exception):
    """One or more settings are missing or wrong; the message names each, one per line."""


def _one_of(*allowed: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text not in allowed:
            raise ValueError(f"must be one of {', '.join(allowed)}")
        return text

    return parse


def _boolean(text: str) -> bool:
    return _one_of("true", "false")(text) == "true"


def _secret(text: str) -> bytes:
    if len(text) < SHORTEST_KEY:
        raise ValueError(f"must have at least {SHORTEST_KEY} characters")
    return text.encode()


def _number(kind: type[int | float], least: float, most: float) -> Callable[[str], int | float]:
    def parse(text: str) -> int | float:
        try:
            value = kind(text)
        except ValueError:
            value = kind(-1)
        if not least <= value <= most:
            raise ValueError(f"must be a number from {least} to {most}")
        return value

    return parse


def _dsn(text: str) -> str:
    try:
        conninfo_to_dict(text)
    except psycopg.ProgrammingError as error:
        raise ValueError("must be a PostgreSQL URL or connection string") from error
    return text


def _ticket_url(text: str) -> str:
    if "{ticket_id}" not in _url(text):
        raise ValueError("must have {ticket_id} where the ticket's id goes")
    return text


def _url(text: str) -> str:
    if not text.startswith(("http://", "https://")):
        raise ValueError("must be an http or https URL")
    return text


_port = _number(int, 1, 65_535)
_seconds = _number(float, 0.1, 86_400)
_long = _number(float, 1, 315_360_000)


def _setting(
    parse: Callable[[str], Any] = str,
    default: object = None,
    needed_by: tuple[Role, ...] = (),
    *,
    secret: bool = False,
) -> Any:  # noqa: ANN401
    return field(default=default, repr=not secret, metadata={"parse": parse, "needed_by": needed_by})


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Every setting, named in the environment like the field in upper case. Times are in seconds."""

    database_url: str = _setting(_dsn, needed_by=tuple(Role), secret=True)
    kafka_bootstrap_servers: str = _setting(needed_by=KAFKA_CLIENTS)
    grpc_host: str = _setting(default="127.0.0.1")
    grpc_port: int = _setting(_port, 50_051)
    api_workers: int = _setting(_number(int, 1, 64), 1)
    metrics_host: str = _setting(default="127.0.0.1")
    metrics_port: int = _setting(_number(int, 0, 65_535), 0)
    jwt_issuer: str = _setting(needed_by=APIS)
    jwt_audience: str = _setting(needed_by=APIS)
    jwks_file: Path | None = _setting(Path)  # noqa: RUF009 - `field` under another name
    jwks_url: str | None = _setting(_url)
    jwt_leeway_seconds: float = _setting(_number(float, 0, 300), 60.0)
    page_token_key: bytes = _setting(_secret, needed_by=(Role.API, Role.NOTIFICATION_API), secret=True)
    log_level: str = _setting(_one_of(*LEVELS), "info")
    log_format: str = _setting(_one_of(*FORMATS), "json")
    idempotency_key_ttl_seconds: float = _setting(_number(float, 1, 31_622_400), 604_800.0)
    event_retention_seconds: float | None = _setting(_number(float, 86_400, 3_162_240_000))
    reopen_on_comment: bool = _setting(_boolean, default=True)
    feedback_changeable_seconds: float = _setting(_long, 604_800.0)
    auto_close_seconds: float = _setting(_long, 259_200.0)
    max_concurrent_calls: int = _setting(_number(int, 1, 100_000), 200)
    default_deadline_seconds: float = _setting(_seconds, 10.0)
    statement_timeout_seconds: float = _setting(_seconds, 8.0)
    db_pool_size: int = _setting(_number(int, 1, 1_000), 8)
    db_pool_max_waiting: int = _setting(_number(int, 1, 100_000), 200)
    db_pool_timeout_seconds: float = _setting(_seconds, 3.0)
    max_concurrent_streams: int = _setting(_number(int, 1, 100_000), 1_000)
    max_streams_per_caller: int = _setting(_number(int, 1, 100_000), 20)
    max_stream_seconds: float = _setting(_seconds, 900.0)
    max_request_bytes: int = _setting(_number(int, 1_024, 104_857_600), 1_048_576)
    shutdown_delay_seconds: float = _setting(_number(float, 0, 600), 3.0)
    shutdown_grace_seconds: float = _setting(_number(float, 0, 600), 10.0)
    user_service_target: str | None = _setting(needed_by=(Role.NOTIFIER,))
    user_service_token_file: Path | None = _setting(Path)  # noqa: RUF009
    user_service_timeout_seconds: float = _setting(_seconds, 2.0)
    order_service_target: str | None = _setting()
    order_service_token_file: Path | None = _setting(Path)  # noqa: RUF009
    order_service_timeout_seconds: float = _setting(_seconds, 2.0)
    order_fresh_seconds: float = _setting(_number(float, 1, 86_400), 30.0)
    dead_letter_limit: int = _setting(_number(int, 0, 100_000), 10)
    consumer_session_timeout_seconds: float = _setting(_number(float, 1, 300), 10.0)
    notify_within_seconds: float = _setting(_long, 604_800.0)
    staff_seen_within_seconds: float = _setting(_long, 2_592_000.0)
    digest_window_seconds: float = _setting(_seconds, 60.0)
    notification_retention_seconds: float = _setting(_long, 15_552_000.0)
    ticket_url: str = _setting(_ticket_url, needed_by=(Role.NOTIFIER,))
    email_from: str = _setting(needed_by=(Role.NOTIFIER,))
    smtp_host: str = _setting(needed_by=(Role.NOTIFIER,))
    smtp_port: int = _setting(_port, 587)
    smtp_security: str = _setting(_one_of("none", "starttls", "tls"), "starttls")
    smtp_username: str | None = _setting()
    smtp_password: str | None = _setting(secret=True)
    sender_threads: int = _setting(_number(int, 1, 32), 2)
    email_lease_seconds: float = _setting(_number(float, 5, 86_400), 60.0)
    email_retry_seconds: float = _setting(_seconds, 5.0)
    email_retry_max_seconds: float = _setting(_seconds, 900.0)
    email_give_up_seconds: float = _setting(_long, 21_600.0)
    sweep_interval_seconds: float = _setting(_seconds, 5.0)
    sweep_round_seconds: float = _setting(_seconds, 20.0)
    unattended_urgent_seconds: float = _setting(_long, 900.0)
    unattended_high_seconds: float = _setting(_long, 3_600.0)
    unattended_medium_seconds: float = _setting(_long, 14_400.0)
    unattended_low_seconds: float = _setting(_long, 86_400.0)
    reassign_away_after_seconds: float | None = _setting(_long)
    tls_cert_file: Path | None = _setting(Path)  # noqa: RUF009
    tls_key_file: Path | None = _setting(Path)  # noqa: RUF009
    tls_client_ca_file: Path | None = _setting(Path)  # noqa: RUF009
    tls_probe_cert_file: Path | None = _setting(Path)  # noqa: RUF009
    tls_probe_key_file: Path | None = _setting(Path)  # noqa: RUF009


ENV_NAMES = frozenset(f.name.upper() for f in fields(Settings))


def read_settings(role: Role, environ: Mapping[str, str] = os.environ) -> Settings:
    """The settings in `environ`, where `role` has all that it needs. An empty value counts as none.

    Raises:
        SettingsError: naming every setting that is missing or wrong.
    """
    values: dict[str, Any] = {}
    problems = []
    for setting in fields(Settings):
        name = setting.name.upper()
        text = environ.get(name, "")
        try:
            if text:
                values[setting.name] = setting.metadata["parse"](text)
            elif role in setting.metadata["needed_by"]:
                problems.append(f"{name} is not set; the {role} needs it")
        except ValueError as error:
            problems.append(f"{name} {error}")
    problems += _contradictions(role, values) + _tls_contradictions(values) + _smtp_contradictions(values)
    if problems:
        raise SettingsError("\n".join(problems))
    return Settings(**values)


def _contradictions(role: Role, values: Mapping[str, Any]) -> list[str]:
    if role in APIS and ("jwks_file" in values) == ("jwks_url" in values):
        return ["JWKS_FILE or JWKS_URL must be set, and not both"]
    return []


def _smtp_contradictions(values: Mapping[str, Any]) -> list[str]:
    problems = []
    if ("smtp_username" in values) != ("smtp_password" in values):
        problems.append("SMTP_USERNAME and SMTP_PASSWORD must both be set, or neither")
    if "smtp_username" in values and values.get("smtp_security") == "none":
        problems.append("SMTP_PASSWORD would be sent in the clear: SMTP_SECURITY must be starttls or tls")
    return problems


def _tls_contradictions(values: Mapping[str, Any]) -> list[str]:
    problems = [
        f"TLS_{whose}CERT_FILE and TLS_{whose}KEY_FILE must both be set, or neither"
        for whose in ("", "PROBE_")
        if (f"tls_{whose}cert_file".lower() in values) != (f"tls_{whose}key_file".lower() in values)
    ]
    if "tls_client_ca_file" in values and not {"tls_cert_file", "tls_key_file"} <= values.keys():
        problems.append("TLS_CLIENT_CA_FILE has no meaning without TLS_CERT_FILE and TLS_KEY_FILE")
    return problems
