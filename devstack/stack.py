"""The whole system on one machine, started in order, watched, and stopped in order."""

import fcntl
import os
import threading
import time
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from devstack import order_service, orphans, service, user_service
from devstack.control import Control
from devstack.errors import StackError, StackStopped
from devstack.gateway import CORS_ORIGINS, Gateway
from devstack.identity import AUDIENCE, ISSUER, InsecureDevelopmentIdentity, hide_from_git, secret
from devstack.kafka import Kafka
from devstack.mail import Mails
from devstack.part import Part, Program, Say
from devstack.ports import LOOPBACK, MEASURED_AFTER_THE_API, Ports
from devstack.postgres import DATABASE, Postgres
from devstack.stand_ins import GrpcServiceStandIn, MailStandIn
from devstack.tls import Tls
from devstack.watch import Watch

PARTS = (
    *("postgres", "kafka", "user-service", "order-service", "mail"),
    *("migrate", "api", "relay", "notifier", "notification-api", "analyst", "analytics-api", "sweeper"),
    "gateway",
)
"""Every part, each after those that it needs."""

STOP_WITHIN_SECONDS = (8.0, 10.0, 13.0)
"""By when, since the stop began, each of its three waves must be over; what is left of a wave then is killed."""

_POLL_SECONDS = 0.1


def _metrics_url(port: int) -> str:
    return f"http://{LOOPBACK}:{port}/metrics"


def _quiet(line: str) -> None:
    """Says nothing."""


class Stack:
    """PostgreSQL, Kafka, Envoy, three stand-ins and the service's processes on loopback, with all state in `run_dir`.

    A context manager that starts the stack and stops it. `env` overrides what the service reads from its environment;
    `parts` leaves parts out. With `durable=False` a power cut may destroy the data, which suits tests. `tls` makes the
    API and Envoy speak TLS; metrics and Envoy's own administration stay as they are. Pages of `cors_origins` may call
    from a browser. Only one stack at a time can use a folder.
    """

    def __init__(
        self,
        run_dir: Path,
        ports: Ports,
        *,
        workers: int = 1,
        env: Mapping[str, str] | None = None,
        parts: Collection[str] = PARTS,
        durable: bool = True,
        tls: Tls | None = None,
        cors_origins: Sequence[str] = CORS_ORIGINS,
    ) -> None:
        self.run_dir = run_dir.resolve()
        self.ports = ports
        self.workers = workers
        self.tls = tls
        self._env = dict(env or {})
        self._cors_origins = cors_origins
        self._wanted = [name for name in PARTS if name in parts]
        self._parts: dict[str, Part] = {}
        self._stopping = threading.Event()
        self._hurry = threading.Event()
        self._say: Say = _quiet
        self._lock_file: IO[str] | None = None
        self._forks = ThreadPoolExecutor(1, "devstack-forks")
        self.postgres = Postgres(self.run_dir, durable=durable)
        self._kafka = Kafka(self.run_dir, ports.kafka, self._stopping)
        self._user_service = GrpcServiceStandIn(user_service.NAME, self.run_dir)
        self._order_service = GrpcServiceStandIn(order_service.NAME, self.run_dir)
        self._mail = MailStandIn(self.run_dir)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def is_running(self) -> bool:
        """Whether there is something to stop."""
        return self._lock_file is not None

    @property
    def logs(self) -> Path:
        """The folder with one log file per part."""
        return self.run_dir / "logs"

    @property
    def command(self) -> Path:
        """The program that is `python -m server` with what `service_env` says, while the stack runs."""
        return self.run_dir / "server"

    @property
    def gateway_url(self) -> str:
        """Where Envoy serves REST and gRPC."""
        return f"{'https' if self.tls else 'http'}://{LOOPBACK}:{self.ports.gateway}"

    @property
    def page_url(self) -> str:
        """Where Envoy serves the API page."""
        return f"{self.gateway_url}/docs/"

    @property
    def grpc_target(self) -> str:
        """HOST:PORT of the first API worker itself."""
        return self.grpc_targets[0]

    @property
    def grpc_targets(self) -> list[str]:
        """HOST:PORT of every API worker."""
        return [f"{LOOPBACK}:{self.ports.grpc + i}" for i in range(self.workers)]

    @property
    def metrics_urls(self) -> list[str]:
        """The Prometheus text of every API worker, then of the other parts that this stack has."""
        ports = [self.ports.metrics + i for i in range(self.workers)] if self.has("api") else []
        ports += [self.ports.metrics_of(part, self.workers) for part in MEASURED_AFTER_THE_API if self.has(part)]
        return [_metrics_url(port) for port in ports]

    def metrics_url(self, part: str) -> str:
        """The Prometheus text of a part other than the API."""
        return _metrics_url(self.ports.metrics_of(part, self.workers))

    def grpc_target_of(self, part: str) -> str:
        """HOST:PORT of a part other than the API that answers gRPC."""
        return f"{LOOPBACK}:{self.ports.grpc_of(part, self.workers)}"

    @property
    def user_service(self) -> Control:
        """Tells the User Service's stand-in what to do; see user_service.py."""
        return self._user_service.control

    @property
    def order_service(self) -> Control:
        """Tells the Order Service's stand-in what to do; see order_service.py."""
        return self._order_service.control

    @property
    def mail(self) -> Control:
        """Tells the mail catcher what to do; see mail.py."""
        return self._mail.control

    @property
    def mails(self) -> Mails:
        """What the mail catcher has taken."""
        return self._mail.mails

    @property
    def kafka_bootstrap(self) -> str:
        """HOST:PORT of the broker."""
        return self._kafka.bootstrap

    @property
    def dsn(self) -> str:
        """The URI of the service's database."""
        return self.dsn_for(DATABASE)

    def dsn_for(self, database: str) -> str:
        """The URI of any database of the server."""
        return self.postgres.dsn_for(database)

    @cached_property
    def identity(self) -> InsecureDevelopmentIdentity:
        """Who signs the tokens that this stack believes."""
        return InsecureDevelopmentIdentity.create(self.run_dir / "identity")

    def mint_token(self, role: str, sub: str | None = None, /, **claims: Any) -> str:  # noqa: ANN401 - a claim is any JSON
        """A JWT that the stack accepts; see InsecureDevelopmentIdentity.mint_token for `claims`."""
        return self.identity.mint_token(role, sub, **claims)

    def service_env(self) -> dict[str, str]:
        """What a process of the service needs in its environment to join this stack."""
        identity = self.run_dir / "identity"
        return {
            "PYTHONPATH": service.python_path(os.environ.get("PYTHONPATH")),
            "DATABASE_URL": self.dsn,
            "KAFKA_BOOTSTRAP_SERVERS": self.kafka_bootstrap,
            "GRPC_HOST": LOOPBACK,
            "GRPC_PORT": str(self.ports.grpc),
            "API_WORKERS": str(self.workers),
            "METRICS_HOST": LOOPBACK,
            "METRICS_PORT": str(self.ports.metrics),
            "JWT_ISSUER": ISSUER,
            "JWT_AUDIENCE": AUDIENCE,
            "JWKS_FILE": str(identity / "jwks.json"),
            "PAGE_TOKEN_KEY": secret(identity / "page-token-key"),
            "USER_SERVICE_TARGET": self._user_service.target,
            "ORDER_SERVICE_TARGET": self._order_service.target,
            "SMTP_HOST": LOOPBACK,
            "SMTP_PORT": str(self._mail.port),
            "SMTP_SECURITY": "none",
            "EMAIL_FROM": "Nibble Support <support@nibble.example>",
            "TICKET_URL": "https://support.nibble.example/tickets/{ticket_id}",
            "LOG_FORMAT": "json",
            # Within the time that the whole stack takes to stop.
            # Ctrl-C stops the gateway too: no caller is left to be spared a refusal.
            "SHUTDOWN_DELAY_SECONDS": "0",
            "SHUTDOWN_GRACE_SECONDS": "5",
            **(self.tls.service_env() if self.tls else {}),
            **self._env,
        }

    def has(self, name: str) -> bool:
        """Whether that part is not left out."""
        return name in self._wanted

    def part(self, name: str) -> Part:
        """One part of the stack that has been started; KeyError for one that was left out."""
        return self._parts[name]

    def start(self, progress: Say = _quiet) -> None:
        """Starts every part, as far as possible at once, and returns when all are ready.

        `progress` gets a line for each step, from any thread. StackError says why the stack cannot start, or that one
        with the same folder runs already; whatever was started is stopped then.
        """
        self._say = progress
        self._take_run_dir()
        try:
            self._end_leftovers()
            self.ports.check(self.workers, self._wanted)
            service.write_command(self.command, self.service_env())
            for program in self._programs():
                self._parts[program.name] = Part(program, self.run_dir, self._forks, self._stopping)
            self._bring_up()
        except BaseException:
            self.stop()
            raise

    def request_stop(self) -> None:
        """Makes `start` and `supervise` end soon; at the second call `stop` kills instead of waiting.

        Does so little that a signal handler can call it.
        """
        if self._stopping.is_set():
            self._hurry.set()
        self._stopping.set()

    def supervise(self) -> None:
        """Restarts whatever dies, until `request_stop`; StackError when a part keeps dying."""
        with ThreadPoolExecutor() as pool:
            watches = [Watch(part, pool, self._stopping, self._say) for part in self._parts.values()]
            try:
                while not self._stopping.wait(_POLL_SECONDS):
                    for watch in watches:
                        watch.look()
            finally:
                self._stopping.set()

    def stop(self) -> None:
        """Stops every part within 15 seconds, those that have work to finish first, and leaves no process behind.

        Does nothing when the stack does not run.
        """
        if self._lock_file is None:
            return
        self._stopping.set()
        began = time.monotonic()
        for wave, within in zip(self._stop_order(), STOP_WITHIN_SECONDS, strict=True):
            self._stop_together(wave, began + within)
        orphans.end(orphans.processes_of(self.run_dir), grace=0)
        self._lock_file.close()
        self._lock_file = None
        self._stopping.clear()
        self._hurry.clear()

    def _programs(self) -> list[Program]:
        identity = self.identity
        if self.tls is not None:
            self.tls.provide()
        programs = [
            self.postgres.program(),
            self._kafka.program(),
            self._user_service.program(),
            self._order_service.program(),
            self._mail.program(),
            *service.programs(self.service_env(), self.ports, self.workers, self.tls),
            self._gateway(identity.jwks_file).program(),
        ]
        return sorted((it for it in programs if self.has(it.name)), key=lambda it: self._wanted.index(it.name))

    def _gateway(self, jwks_file: Path) -> Gateway:
        where = (self.run_dir, self.ports, self.workers, jwks_file)
        return Gateway(*where, self._stopping, tls=self.tls, cors_origins=self._cors_origins)

    def _take_run_dir(self) -> None:
        self.logs.mkdir(parents=True, exist_ok=True)
        hide_from_git(self.run_dir)
        lock_file = (self.run_dir / "lock").open("a+")
        try:
            fcntl.flock(lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock_file.seek(0)
            owner = lock_file.read()
            lock_file.close()
            raise StackError(
                f"a stack runs in {self.run_dir} already (process {owner}); stop it, or set RUN_DIR to another folder"
            ) from None
        lock_file.truncate(0)
        lock_file.write(str(os.getpid()))
        lock_file.flush()
        self._lock_file = lock_file

    def _end_leftovers(self) -> None:
        leftovers = orphans.processes_of(self.run_dir)
        if leftovers:
            self._say(f"ending {len(leftovers)} processes of an earlier start that was killed")
            orphans.end(leftovers, grace=3)

    def _bring_up(self) -> None:
        """Starts the parts in parallel, each once what it needs is ready."""
        with ThreadPoolExecutor(len(PARTS)) as pool:
            ready: dict[str, Future[None]] = {}
            for name, part in self._parts.items():
                needs = [ready[need] for need in part.program.needs if need in ready]
                ready[name] = pool.submit(self._start_after, needs, part)
            try:
                for future in as_completed(ready.values()):
                    future.result()
            except BaseException:
                self._stopping.set()
                raise

    def _start_after(self, needs: list[Future[None]], part: Part) -> None:
        for need in needs:
            need.result()
        if self._stopping.is_set():
            raise StackStopped("stopped while starting")
        began = time.monotonic()
        part.start(self._say)
        self._say(f"{part.name} is {'done' if part.program.one_shot else 'ready'} ({time.monotonic() - began:.1f} s)")

    def _stop_order(self) -> list[list[Part]]:
        """What drains; then what stands on other parts; then those others."""
        parts = list(self._parts.values())
        return [
            [part for part in parts if part.program.drains],
            [part for part in parts if part.program.needs and not part.program.drains],
            [part for part in parts if not part.program.needs and not part.program.drains],
        ]

    def _stop_together(self, parts: list[Part], deadline: float) -> None:
        for part in parts:
            part.ask_to_stop()
        for part in parts:
            if not part.stop(deadline, self._hurry):
                self._say(f"{part.name} did not stop in time and was killed")
