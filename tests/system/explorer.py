"""Schemathesis against the running gateway: every operation of the OpenAPI document, every check, callers of one role.

Callers take turns, so that none of them meets its rate limit, and what belongs to one caller stays with that caller: a
user's ticket is called by its owner, and a page token is sent by whoever was given it.
"""

import itertools
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple, TypeAlias
from uuid import UUID

import schemathesis
from jsonschema import Draft202012Validator
from schemathesis.config import SchemathesisConfig
from schemathesis.core.failures import AcceptedNegativeData, Failure
from schemathesis.core.transport import Response
from schemathesis.engine import events, from_schema
from schemathesis.generation import case as generated
from schemathesis.hooks import GLOBAL_HOOK_DISPATCHER, HookContext
from schemathesis.openapi.checks import EnsureResourceAvailability, RejectedPositiveData
from schemathesis.specs.openapi.schemas import OpenApiSchema

from tests.system.doors import Caller, Json, Mint

Case: TypeAlias = generated.Case[Any]

FEW = 4
"""Examples, where the answer is nearly always the same."""

ONE_STRANGER_IN = 4
"""One generated id in so many stays as it is."""

RESOLVED_MOSTLY = {("PUT", "status"), ("PUT", "feedback")}
"""What an owner may do with tickets that are resolved alone: by chance it went well once in a run, or never."""

UUID_PATTERN = "[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}"
FAILED_PRECONDITION = 9
TIME_RANGE = ("start_time", "end_time")
LONGEST_RANGES = {"day": timedelta(days=400), "week": timedelta(weeks=400)}


class Finding(NamedTuple):
    """A check that failed, and the command that shows it again."""

    check: str
    operation: str
    message: str
    command: str


@dataclass
class Findings:
    """What an exploration saw: answers by operation and status, and what was wrong with them."""

    answers: Counter[tuple[str, int]] = field(default_factory=Counter)
    wrong: list[Finding] = field(default_factory=list)

    def count(self, event: object) -> None:
        """Adds what an event of the engine tells; raises what made the engine give up."""
        if isinstance(event, events.ScenarioFinished):
            self._count_answers(event)
            self._count_checks(event)
        elif isinstance(event, events.NonFatalError):
            self.wrong.append(Finding("error", event.label, str(event.value), ""))
        elif isinstance(event, events.EngineFinished):
            self.wrong += [Finding("run", str(it.operation), str(it), "") for it in event.failures]
        elif isinstance(event, events.FatalError):
            raise event.exception

    def _count_answers(self, event: events.ScenarioFinished) -> None:
        for case_id, interaction in event.recorder.interactions.items():
            if interaction.response is not None:
                operation = event.recorder.cases[case_id].value.operation.label
                self.answers[operation, interaction.response.status_code] += 1

    def _count_checks(self, event: events.ScenarioFinished) -> None:
        for case_id, checks in event.recorder.checks.items():
            operation = event.recorder.cases[case_id].value.operation.label
            for check in checks:
                if check.failure_info is not None:
                    info = check.failure_info
                    self.wrong.append(Finding(check.name, operation, str(info.failure), info.code_sample))


class Page(NamedTuple):
    """What a page token was given for: it is good for nothing else."""

    operation: str
    path: dict[str, Json]
    filters: dict[str, Json]
    authorization: str


class Cast:
    """Callers of one role, and what belongs to which of them."""

    def __init__(
        self,
        callers: Sequence[Caller],
        mint: Mint,
        tickets: Sequence[dict[str, Any]],
        comments: Mapping[str, str],
    ) -> None:
        """Args: tickets: real ones; those of users belong to `callers`. comments: the id of one of each ticket."""
        self._authorizations = {caller.id: f"Bearer {mint(caller)}" for caller in callers}
        self._callers = {authorization: caller_id for caller_id, authorization in self._authorizations.items()}
        self._turns = itertools.cycle(self._callers)
        self._ticket_ids = [ticket["id"] for ticket in tickets]
        self._owners = {ticket["id"]: ticket["user_id"] for ticket in tickets}
        self._comments = comments
        self._pages: dict[str, Page] = {}

    def next_authorization(self) -> str:
        """That of whoever's turn it is."""
        return next(self._turns)

    def prepare(self, case: Case) -> None:
        """Lets the case speak of real tickets, pages and people mostly, and be sent by whom they belong to."""
        self._set_ticket(case)
        if is_positive(case):
            _set_time_range(case)
        if case.headers.get("Authorization") in self._callers:
            owner = self._owners.get(case.path_parameters.get("ticket_id", ""), "")
            case.headers["Authorization"] = self._authorizations.get(owner, case.headers["Authorization"])
            self._set_agent(case)
            self._set_page(case)
            self._set_person(case)

    def _set_ticket(self, case: Case) -> None:
        ticket_id = case.path_parameters.get("ticket_id")
        if is_replaceable(ticket_id) and ticket_id not in self._owners:
            # The same generated id is always the same ticket, so that a failing case fails again.
            number = UUID(ticket_id).int // ONE_STRANGER_IN
            # Of one owner's four tickets the third is resolved, and the last is closed, and so rated.
            if (case.method, case.operation.path.rpartition("/")[2]) in RESOLVED_MOSTLY and number % 2:
                number = number * 4 + 2
            if case.method == "GET" and case.operation.path.endswith("/feedback"):
                number = number * 4 + 3
            case.path_parameters["ticket_id"] = ticket_id = self._ticket_ids[number % len(self._ticket_ids)]
        if is_replaceable(case.path_parameters.get("comment_id")):
            comment_id = self._comments.get(ticket_id or "", case.path_parameters["comment_id"])
            case.path_parameters["comment_id"] = comment_id

    def _set_agent(self, case: Case) -> None:
        # Staff are on the roster, and an agent may only speak for themselves.
        if is_replaceable(case.path_parameters.get("agent_id")):
            case.path_parameters["agent_id"] = self._callers[case.headers["Authorization"]]

    def _set_page(self, case: Case) -> None:
        if isinstance(case.body, dict) and is_positive(case):
            # An export has its token in the body.
            case.body.pop("page_token", None)
        if not case.query.get("page_token") or not is_positive(case):
            return
        # No document can say which tokens were given; one that never was is asked for the first page instead.
        page = self._pages.get(case.query["page_token"])
        if page is None or (page.operation, page.path) != (case.operation.label, case.path_parameters):
            del case.query["page_token"]
        else:
            case.query = {**page.filters, "page_token": case.query["page_token"]}
            case.headers["Authorization"] = page.authorization

    def _set_person(self, case: Case) -> None:
        # An agent may only name themselves as assignee, a user only themselves as owner.
        body = case.body
        if isinstance(body, dict):
            for name in ("assigned_to", "user_id"):
                if is_replaceable(body.get(name)):
                    body[name] = self._callers[case.headers["Authorization"]]

    def learn(self, case: Case, response: Response) -> None:
        """Remembers whose the ticket or the page in an answer is."""
        if response.status_code != 200:
            return
        body = response.json()
        if case.operation.label == "POST /api/v1/tickets":
            self._owners[body["id"]] = body["user_id"]
        if body.get("next_page_token"):
            self._pages[body["next_page_token"]] = _page(case)


def _page(case: Case) -> Page:
    filters = {name: value for name, value in case.query.items() if name not in {"page_token", "page_size"}}
    return Page(case.operation.label, dict(case.path_parameters), filters, case.headers["Authorization"])


def _set_time_range(case: Case) -> None:
    # Two times by chance are seldom a time range: here the one is always the begin of the other's.
    if all(isinstance(case.query.get(name), str) for name in TIME_RANGE):
        start, end = sorted(case.query[name] for name in TIME_RANGE)
        case.query = {**case.query, **dict(zip(TIME_RANGE, (start, end), strict=True))}


def is_positive(case: Case) -> bool:
    """Whether the case is meant to be as the document says."""
    return case.meta is not None and case.meta.generation.mode.is_positive


def is_replaceable(value: Json) -> bool:
    """Whether a generated value is a UUID, and not one of those that stay as they are and are nobody's."""
    if not isinstance(value, str) or not re.fullmatch(UUID_PATTERN, value):
        return False
    return UUID(value).int % ONE_STRANGER_IN != 1  # such as none of the document's examples is


def is_a_fault(failure: Failure, case: Case, response: Response) -> bool:
    """Whether a failed check says something against the service; not where it is about what no document can say."""
    if isinstance(failure, RejectedPositiveData):
        excuses = (_excludes_itself(case), _is_no_time_range(case), _has_a_fraction(case), _is_back_already(case))
        return not (_is_refused_for_the_state(response) or any(excuses))
    if isinstance(failure, AcceptedNegativeData):
        return not _is_fine_when_trimmed(case)
    if isinstance(failure, EnsureResourceAvailability):
        return not _is_not_rated_yet(response)
    return True


def _is_not_rated_yet(response: Response) -> bool:
    # A new ticket has a place for feedback, and none there.
    reasons = {detail.get("reason") for detail in response.json().get("details", ())}
    return response.status_code == 404 and "FEEDBACK_NOT_FOUND" in reasons


def _is_refused_for_the_state(response: Response) -> bool:
    # The request is right, but the ticket is closed, say: gRPC's FAILED_PRECONDITION is 400 in HTTP, as bad fields are.
    return response.status_code == 400 and response.json()["code"] == FAILED_PRECONDITION


def _excludes_itself(case: Case) -> bool:
    # OpenAPI can't say of two parameters that they exclude each other.
    return bool(case.query.get("assigned_to")) and case.query.get("unassigned") in (True, "true")


def _is_no_time_range(case: Case) -> bool:
    # Nor of two times which comes first, or how far apart they may be.
    start, end = (str(case.query.get(name)) for name in TIME_RANGE)
    try:
        length = datetime.fromisoformat(end[:19]) - datetime.fromisoformat(start[:19])
    except ValueError:
        return False
    a_day = timedelta(days=1)  # what cutting off fractions and zones may hide
    return not a_day < length < LONGEST_RANGES[case.query.get("interval", "day")] - a_day


def _is_back_already(case: Case) -> bool:
    # Nor of a time that it must be one to come.
    until = case.body.get("away_until") if isinstance(case.body, dict) else None
    try:
        return datetime.fromisoformat(str(until)[:19]).replace(tzinfo=UTC) < datetime.now(UTC) + timedelta(days=1)
    except ValueError:
        return False


def _has_a_fraction(case: Case) -> bool:
    # 48.0 is an integer to JSON Schema, which knows numbers and not their spelling; here an integer is digits alone.
    values = [*case.query.values(), *(case.body.values() if isinstance(case.body, dict) else ())]
    return any(isinstance(value, float) and value.is_integer() for value in values)


def _is_fine_when_trimmed(case: Case) -> bool:
    # A schema measures a text as it is sent, the service as it will be stored, without the blanks around it.
    if not isinstance(case.body, dict):
        return False
    trimmed = {name: value.strip() if isinstance(value, str) else value for name, value in case.body.items()}
    document: Any = case.operation.schema.raw_schema
    content = document["paths"][case.path][case.operation.method]["requestBody"]["content"]
    schema = Draft202012Validator({**document, **content["application/json"]["schema"]})
    return trimmed != case.body and schema.is_valid(trimmed)


def explore(
    document: dict[str, Any], url: str, cast: Cast, *, seed: int, examples: int, refused: Sequence[str] = ()
) -> Findings:
    """Runs all phases with all checks.

    Args:
        url: of the gateway.
        examples: how many per operation and phase.
        refused: operations (`GET /api/v1/tickets`) that the callers may not use. Whatever they send, the answer is
            nearly always the same: it is a FEW examples, and the hundred cases that schemathesis has for every corner
            of an operation are left to those who may use it.
    """
    schema = schemathesis.openapi.from_dict(document, config=_config(url, seed, examples, refused))
    findings = Findings()
    with _played_by(cast, schema):
        for event in from_schema(schema).execute():
            findings.count(event)
    return findings


def _config(url: str, seed: int, examples: int, refused: Sequence[str]) -> SchemathesisConfig:
    return SchemathesisConfig.from_dict(
        {
            "base-url": url,
            "seed": seed,
            # Nothing is kept from run to run: what a run finds depends on its seed alone.
            "cache": {"enabled": False},
            "generation": {"max-examples": examples, "database": "none"},
            "continue-on-failure": True,
            "operations": [
                {
                    "include-name": name,
                    "generation": {"max-examples": min(FEW, examples)},
                    "phases": {"coverage": {"enabled": False}},
                }
                for name in refused
            ],
        }
    )


@contextmanager
def _played_by(cast: Cast, schema: OpenApiSchema) -> Iterator[None]:
    class Turns:
        def get(self, case: Case, context: object) -> str:
            return cast.next_authorization()

        def set(self, case: Case, data: str, context: object) -> None:
            case.headers["Authorization"] = data

    def before_call(context: HookContext, case: Case, kwargs: dict[str, Any]) -> None:
        cast.prepare(case)
        if case.method == "QUERY":
            # This method demands a content type (its RFC); without one it is refused before the path is looked at.
            case.headers["Content-Type"] = "application/json"

    def after_call(context: HookContext, case: Case, response: Response) -> None:
        cast.learn(case, response)

    def filter_failure(context: HookContext, failure: Failure, case: Case, response: Response) -> bool:
        return is_a_fault(failure, case, response)

    schema.auth(refresh_interval=None)(Turns)
    schema.hooks.hook(after_call)
    schema.hooks.hook(filter_failure)
    GLOBAL_HOOK_DISPATCHER.hook(before_call)  # those of a schema are not asked before a call
    try:
        yield
    finally:
        GLOBAL_HOOK_DISPATCHER.unregister(before_call)
