"""The stack at a terminal: signals in, lines out."""

import logging
import shlex
import signal
import sys
import threading
import time
import uuid
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

from devstack.part import CHECKOUT
from devstack.ports import MEASURED_AFTER_THE_API
from devstack.stack import Stack
from server.workers.topics import TICKET_EVENTS

# The same caller in both examples, so that the second reads what the first made.
_CALLER = uuid.UUID("01920000-0000-7000-8000-000000000001")

_WARNING = "tokens are signed by an InsecureDevelopmentIdentity: whoever can read RUN_DIR/identity can be anybody"


def run_until_stopped(stack: Stack) -> None:
    """Starts the stack and looks after it until Ctrl-C, SIGTERM or SIGHUP; a second one of those hurries the end."""
    # Clients that ask whether a part is there yet have nothing to tell a person.
    logging.disable(logging.CRITICAL)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: stack.request_stop())
    say = _Clock().say
    try:
        stack.start(say)
        print(f"warning: {_WARNING}", file=sys.stderr, flush=True)
        print(text(stack), flush=True)
        stack.supervise()
    finally:
        if stack.is_running:
            say("stopping")
            stack.stop()
            say(f"stopped; the data stays in {stack.run_dir}")


class _Clock:
    """Says lines with the seconds since the start before them."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._lock = threading.Lock()

    def say(self, line: str) -> None:
        # A terminal that has gone away must not keep the stack from being stopped in good order.
        with self._lock, suppress(OSError):
            print(f"[{time.monotonic() - self._began:5.1f} s] {line}", flush=True)


def text(stack: Stack) -> str:
    """Addresses, and commands that work when pasted in the checkout."""
    psql = shlex.join([str(stack.postgres.psql), stack.dsn])
    return f"""
REST      {stack.gateway_url}   (gRPC too)
API page  {stack.page_url}
gRPC      {", ".join(stack.grpc_targets)}   (reflection is on)
Kafka     {stack.kafka_bootstrap}
Metrics   {_metrics(stack)}
Database  {stack.dsn}
          {psql}
Logs      {stack.logs}
Mails     {_make(stack, "mails")}   (none is sent on)
Token     {_token(stack, "support_agent")}
Operators {_command(stack)} dead-letters list   (or republish, dead-emails, rebuild-analytics; --help)

A ticket by REST:
  {_curl(stack)}
The caller's tickets by gRPC:
  {_grpcurl(stack)}
The events of all tickets, until Ctrl-C:
  {_events(stack)}
{_notifications(stack)}{_report(stack)}
Ctrl-C stops everything.
"""


def _metrics(stack: Stack) -> str:
    apis = ["api"] * stack.workers if stack.has("api") else []
    others = [part for part in MEASURED_AFTER_THE_API if stack.has(part)]
    return "\n          ".join(f"{url}   {part}" for url, part in zip(stack.metrics_urls, apis + others, strict=True))


def _command(stack: Stack) -> str:
    here = stack.command.is_relative_to(CHECKOUT)
    return shlex.quote(str(stack.command.relative_to(CHECKOUT) if here else stack.command))


def _token(stack: Stack, role: str) -> str:
    return _make(stack, "token", f"ROLE={role}")


def _make(stack: Stack, *words: str) -> str:
    where = [] if stack.run_dir == CHECKOUT / ".run" else [f"RUN_DIR={stack.run_dir}"]
    return shlex.join(["make", "-s", *words, *where])


def _curl(stack: Stack) -> str:
    body = '{"subject": "The order never came", "description": "Ordered at noon, and it is evening."}'
    return (
        f"""curl -sS {_for_curl(stack)}{stack.gateway_url}/api/v1/tickets """
        f"""-H "Authorization: Bearer $({_caller_token(stack)})" """
        f"""-H 'Content-Type: application/json' -d '{body}'"""
    )


def _notifications(stack: Stack) -> str:
    if not stack.has("notification-api"):
        return ""
    return f"What the caller was told:\n  {_curl_get(stack, 'notifications', _caller_token(stack))}\n"


def _report(stack: Stack) -> str:
    if not stack.has("analytics-api"):
        return ""
    today = datetime.now(UTC).date()
    days = f"start_time={today - timedelta(days=6)}T00:00:00Z&end_time={today + timedelta(days=1)}T00:00:00Z"
    path = f"reports/support?{days}"
    return f"How support has done this week:\n  {_curl_get(stack, path, _token(stack, 'support_supervisor'))}\n"


def _curl_get(stack: Stack, path: str, token: str) -> str:
    url = f"{stack.gateway_url}/api/v1/{path}"
    return f"""curl -sS {_for_curl(stack)}'{url}' -H "Authorization: Bearer $({token})\""""


def _for_curl(stack: Stack) -> str:
    return f"{stack.tls.curl_options()} " if stack.tls else ""


def _for_grpcurl(stack: Stack) -> str:
    return stack.tls.grpcurl_options() if stack.tls else "-plaintext"


def _grpcurl(stack: Stack) -> str:
    return (
        f"""grpcurl {_for_grpcurl(stack)} -H "authorization: Bearer $({_caller_token(stack)})" """
        f"{stack.grpc_target} nibble.support.v1.TicketService/ListMyTickets"
    )


def _events(stack: Stack) -> str:
    consumer = Path(sys.executable).with_name("kafka-python")
    where = ["-b", stack.kafka_bootstrap, "-t", TICKET_EVENTS, "-C", "auto_offset_reset=earliest"]
    return shlex.join([str(consumer), "consumer", *where])


def _caller_token(stack: Stack) -> str:
    return f"{_token(stack, 'customer')} SUB={_CALLER}"
