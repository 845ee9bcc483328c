"""Several callers do whatever they like, through every door; the service must answer as the contract's model does."""

from collections import Counter
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any, ClassVar

from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    multiple,
    precondition,
    rule,
    run_state_machine_as_test,
)

from tests.system.contract_model import (
    PRIORITIES,
    STATUSES,
    Model,
    Refused,
    Ticket,
    check_events,
    check_times_and_ids,
    meet,
)
from tests.system.doors import OK, Caller, Json
from tests.system.stage import Stage
from tests.system.vocabulary import dice, new_id

EXAMPLES, STEPS, MOST_TICKETS, MOST_PAGES = 30, 60, 5, 200

ROLES = {
    "customer": "customer",
    "other customer": "customer",
    "restaurant": "restaurant",
    "driver": "driver",
    "agent": "support_agent",
    "other agent": "support_agent",
    "supervisor": "support_supervisor",
    "service": "service",
}
OWNERS = ["customer", "other customer", "restaurant", "driver", "agent"]
WORKERS = ["agent", "other agent", "supervisor"]

Page = tuple[list[dict[str, Any]], list[dict[str, Any]]]

anyone = st.sampled_from(list(ROLES))
# Those who get far come more often than the others: most steps should change something.
owners = st.sampled_from([*OWNERS * 2, *ROLES])
staff = st.sampled_from([*WORKERS * 4, *ROLES])
assignees = st.none() | st.sampled_from(WORKERS)
doors = st.integers(0, 2)
keys = st.sampled_from([None, None, "first key", "second key"]).map(lambda key: key and key.replace(" ", "-"))
texts = st.sampled_from(
    [
        *("Cold soup", "  Cold soup\r\n", "Суп 🍲\tfroid", "one\rtwo\r\nthree\n\nfour", "\u3000e\u0301\u00a0"),
        # Masked, the last two are the same.
        *("🍲\r\nMy PIN is 4711", " My PIN is 4711", "My PIN is 4712"),
    ]
)
sizes = st.sampled_from([0, 1, 2, 3, 100])
statuses = st.lists(st.sampled_from(STATUSES), unique=True, max_size=2)
priorities = st.lists(st.sampled_from(PRIORITIES), unique=True, max_size=2)
# Beside the present version: absent, right, too low, too high.
expectations = st.sampled_from([None, None, None, 0, 0, 0, -1, 1])


class Contract(RuleBasedStateMachine):
    """The calls of the contract as rules; each holds the answer against the model's at once."""

    stage: ClassVar[Stage]
    told: ClassVar[list[Ticket]]
    """The tickets of all examples that went well, whose events Kafka must have in the end."""
    seen: ClassVar[Counter[tuple[str, str]]]
    """How often which call came to what."""

    tickets: Bundle[Ticket] = Bundle("tickets")

    def __init__(self) -> None:
        super().__init__()
        self.model = Model()
        self.who = {name: Caller(role, new_id()) for name, role in ROLES.items()}
        self.retries: list[tuple[str, Caller, str, dict[str, Any], Ticket | None]] = []

    # --- Writing ------------------------------------------------------------------------------------------------------

    @initialize(target=tickets)
    def begin(self) -> Any:  # noqa: ANN401 - Hypothesis does not export the type
        """There are two tickets to begin with."""
        for owner in ("customer", "agent"):
            self._create(0, self.who[owner], None, {"subject": "s", "description": "d"})
        return multiple(*self.model.tickets)

    # Few, so that much happens to each.
    @precondition(lambda self: len(self.model.tickets) < MOST_TICKETS)
    @rule(
        target=tickets,
        door=doors,
        who=owners,
        owner=st.none() | anyone,
        key=keys,
        subject=texts,
        priority=st.none() | st.sampled_from(PRIORITIES),
        with_order=st.booleans(),
    )
    def create(
        self,
        door: int,
        who: str,
        owner: str | None,
        key: str | None,
        subject: str,
        priority: str | None,
        with_order: bool,
    ) -> Any:  # noqa: ANN401
        """CreateTicket."""
        fields: dict[str, Any] = {"subject": subject, "description": f"{subject} again"}
        fields |= {"order_id": new_id()} if with_order else {}
        fields |= {} if priority is None else {"priority": priority}
        fields |= {} if owner is None else {"user_id": self.who[owner].id}
        before = len(self.model.tickets)
        self._create(door, self.who[who], key, fields)
        return multiple(*self.model.tickets[before:])

    @rule(door=doors, who=staff, ticket=tickets, to=assignees, expected=expectations)
    def assign(self, door: int, who: str, ticket: Ticket, to: str | None, expected: int | None) -> None:
        """AssignTicket, to oneself where `to` is None."""
        self._assign(door, self.who[who], ticket, self.who[to or who].id, expected)

    @rule(
        door=doors,
        who=staff,
        ticket=tickets,
        status=st.sampled_from(STATUSES),
        notes=st.none() | texts,
        expected=expectations,
    )
    def move(self, door: int, who: str, ticket: Ticket, status: str, notes: str | None, expected: int | None) -> None:
        """UpdateTicketStatus."""
        self._move(door, self.who[who], ticket, status, notes if status == "resolved" else None, expected)

    @rule(door=doors, ticket=tickets, status=st.sampled_from([*STATUSES[:-1] * 3, "closed"]))
    def move_by_agent(self, door: int, ticket: Ticket, status: str) -> None:
        """UpdateTicketStatus by somebody who may, seldom to the end: nothing much happens after it."""
        self._move(door, self.who["agent"], ticket, status, None, None)

    @rule(door=doors, ticket=tickets, status=st.sampled_from(STATUSES))
    def move_by_owner(self, door: int, ticket: Ticket, status: str) -> None:
        """UpdateTicketStatus as an owner may want it, and may not."""
        self._move(door, self._owner_of(ticket), ticket, status, None, None)

    @rule(door=doors, who=anyone, ticket=tickets, text=texts, internal=st.booleans(), key=keys)
    def comment(self, door: int, who: str, ticket: Ticket, text: str, internal: bool, key: str | None) -> None:
        """AddComment by somebody, who may be a stranger."""
        self._comment(door, self.who[who], ticket, text, key, is_internal=internal)

    @rule(door=doors, ticket=tickets, text=texts, key=keys)
    def comment_by_owner(self, door: int, ticket: Ticket, text: str, key: str | None) -> None:
        """AddComment by the owner, which reopens what was resolved."""
        self._comment(door, self._owner_of(ticket), ticket, text, key, is_internal=False)

    @rule(door=doors, number=st.integers(0), text=st.none() | texts)
    def retry(self, door: int, number: int, text: str | None) -> None:
        """A call with a key once more, whatever has become of the ticket; with the same text or another."""
        if not self.retries:
            return
        call, caller, key, fields, ticket = self.retries[number % len(self.retries)]
        if call == "CreateTicket":
            self._create(door, caller, key, {**fields, **({} if text is None else {"subject": text})})
        else:
            said = fields["comment"] if text is None else text
            self._comment(door, caller, ticket, said, key, is_internal=fields["is_internal"])

    @rule(door=doors, who=staff, ticket=tickets)
    def reveal(self, door: int, who: str, ticket: Ticket) -> None:
        """RevealTicket."""
        caller = self.who[who]

        def right() -> dict[str, Any]:
            return self.model.reveal(caller, ticket)

        self._hold(door, "RevealTicket", caller, self._addressed(ticket, None), right)

    @rule(door=doors, who=staff, ticket=tickets, number=st.integers(0, 5))
    def reveal_comment(self, door: int, who: str, ticket: Ticket, number: int) -> None:
        """RevealComment, of one that there is not where the ticket has not so many."""
        caller, known = self.who[who], ticket.comments[number : number + 1]
        fields = self._addressed(ticket, None) | {"comment_id": known[0]["id"] if known else new_id()}

        def right() -> dict[str, Any]:
            return self.model.reveal_comment(caller, ticket, number if known else None)

        self._hold(door, "RevealComment", caller, fields, right)

    # --- Reading ------------------------------------------------------------------------------------------------------

    @rule(door=doors, who=anyone, act=st.integers(0, 5))
    def miss(self, door: int, who: str, act: int) -> None:
        """Any call about a ticket that there is not."""
        caller = self.who[who]
        acts: list[Callable[[], None]] = [
            lambda: self._assign(door, caller, None, caller.id, 0),
            lambda: self._move(door, caller, None, "closed", None, None),
            lambda: self._comment(door, caller, None, "c", None, is_internal=False),
            lambda: self._get(door, caller, None),
            lambda: self._read_comments(door, caller, None, 0),
            lambda: self._read_history(door, caller, None, 0),
        ]
        acts[act]()

    @rule(door=doors, who=anyone, ticket=tickets)
    def get(self, door: int, who: str, ticket: Ticket) -> None:
        """GetTicket."""
        self._get(door, self.who[who], ticket)

    @rule(door=doors, who=anyone, ticket=tickets, size=sizes)
    def read_comments(self, door: int, who: str, ticket: Ticket, size: int) -> None:
        """ListComments, to its end."""
        self._read_comments(door, self.who[who], ticket, size)

    @rule(door=doors, who=anyone, ticket=tickets, size=sizes)
    def read_history(self, door: int, who: str, ticket: Ticket, size: int) -> None:
        """ListTicketHistory, to its end."""
        self._read_history(door, self.who[who], ticket, size)

    @rule(door=doors, who=anyone, status=statuses, size=sizes)
    def list_mine(self, door: int, who: str, status: list[str], size: int) -> None:
        """ListMyTickets, to its end."""
        caller = self.who[who]
        wanted = self._wanted(lambda: self.model.mine(caller, status))
        self._hold_list(door, "ListMyTickets", caller, size, wanted, status=status)

    @rule(door=doors, who=staff, status=statuses, priority=priorities, size=sizes)
    def list_assigned(self, door: int, who: str, status: list[str], priority: list[str], size: int) -> None:
        """ListAssignedTickets, to its end."""
        caller = self.who[who]
        wanted = self._wanted(lambda: self.model.assigned(caller, status, priority))
        self._hold_list(door, "ListAssignedTickets", caller, size, wanted, status=status, priority=priority)

    @rule(door=doors, who=staff, status=statuses, priority=priorities, size=sizes, data=st.data())
    def list_all(self, door: int, who: str, status: list[str], priority: list[str], size: int, data: Any) -> None:  # noqa: ANN401
        """ListTickets by any of its filters, to its end, among the tickets of this example."""
        caller, moments = self.who[who], [ticket.shown["created_at"] for ticket in self.model.tickets]
        user = data.draw(st.none() | st.sampled_from(OWNERS), "user")
        assignee = data.draw(st.none() | st.sampled_from([*WORKERS, "nobody"]), "assignee")
        after = data.draw(st.just(moments[0]) | st.sampled_from(moments), "created after")
        before = data.draw(st.none() | st.sampled_from(moments), "created before")
        wanted: dict[str, Any] = {} if user is None else {"user_id": self.who[user].id}
        filters = {**wanted, "status": status, "priority": priority, "created_after": after}
        filters |= {} if before is None else {"created_before": before}
        if assignee is not None:
            wanted["assigned_to"] = None if assignee == "nobody" else self.who[assignee].id
            filters |= {"unassigned": True} if assignee == "nobody" else {"assigned_to": wanted["assigned_to"]}

        def right() -> list[Ticket]:
            found = self.model.all(caller, status, priority, **wanted)
            return [ticket for ticket in found if is_between(ticket.shown["created_at"], after, before)]

        self._hold_list(door, "ListTickets", caller, size, self._wanted(right), **filters)

    def teardown(self) -> None:
        """In the end every ticket, its comments and its history are right, for staff and for the owner."""
        for ticket in self.model.tickets:
            for number, caller in enumerate([self.who["supervisor"], self._owner_of(ticket)]):
                self._get(number, caller, ticket)
                self._read_comments(number, caller, ticket, 100)
                self._read_history(number, caller, ticket, 100)
            check_times_and_ids(ticket)
            moments = [datetime.fromisoformat(entry.shown["occurred_at"]) for entry in ticket.history]
            assert moments == sorted(moments)
        self.told.extend(self.model.tickets)

    # --- How an answer is held against the model's --------------------------------------------------------------------

    def _create(self, door: int, caller: Caller, key: str | None, fields: dict[str, Any]) -> None:
        def right() -> dict[str, Any]:
            return self.model.create(caller, key, **fields)

        if self._hold(door, "CreateTicket", caller, fields, right, key) and key:
            self.retries.append(("CreateTicket", caller, key, fields, None))

    def _assign(self, door: int, caller: Caller, ticket: Ticket | None, assigned_to: str, expected: int | None) -> None:
        fields = self._addressed(ticket, expected) | {"assigned_to": assigned_to}
        version = fields.get("expected_version")

        def right() -> dict[str, Any]:
            return self.model.assign(caller, ticket, assigned_to, version)

        self._hold(door, "AssignTicket", caller, fields, right)

    def _move(
        self, door: int, caller: Caller, ticket: Ticket | None, status: str, notes: str | None, expected: int | None
    ) -> None:
        fields = self._addressed(ticket, expected) | {"status": status}
        fields |= {} if notes is None else {"resolution_notes": notes}
        version = fields.get("expected_version")

        def right() -> dict[str, Any]:
            return self.model.move(caller, ticket, status, notes, version)

        self._hold(door, "UpdateTicketStatus", caller, fields, right)

    def _comment(
        self, door: int, caller: Caller, ticket: Ticket | None, text: str, key: str | None, *, is_internal: bool
    ) -> None:
        fields = self._addressed(ticket, None) | {"comment": text, "is_internal": is_internal}

        def right() -> dict[str, Any]:
            return self.model.comment(caller, ticket, text, key, is_internal=is_internal)

        comment = self._hold(door, "AddComment", caller, fields, right, key)
        if comment and ticket:
            ticket.name_comment(comment["id"])
            if key:
                self.retries.append(("AddComment", caller, key, fields, ticket))

    def _get(self, door: int, caller: Caller, ticket: Ticket | None) -> None:
        def right() -> dict[str, Any]:
            return self.model.get(caller, ticket)

        self._hold(door, "GetTicket", caller, self._addressed(ticket, None), right)

    def _read_comments(self, door: int, caller: Caller, ticket: Ticket | None, size: int) -> None:
        wanted = self._wanted(lambda: self.model.comments(caller, ticket))
        self._hold_rows(door, "ListComments", caller, size, wanted, **self._addressed(ticket, None))

    def _read_history(self, door: int, caller: Caller, ticket: Ticket | None, size: int) -> None:
        wanted = self._wanted(lambda: [entry.shown for entry in self.model.history(caller, ticket)])
        self._hold_rows(door, "ListTicketHistory", caller, size, wanted, **self._addressed(ticket, None))

    def _hold_list(
        self, door: int, call: str, caller: Caller, size: int, wanted: "list[Ticket] | Refused", **fields: Json
    ) -> None:
        rows = wanted if isinstance(wanted, Refused) else [ticket.shown for ticket in wanted]
        self._hold_rows(door, call, caller, size, rows, **fields)

    def _hold(
        self,
        door: int,
        call: str,
        caller: Caller,
        fields: dict[str, Any],
        right: Callable[[], dict[str, Any]],
        key: str | None = None,
    ) -> dict[str, Any] | None:
        """Makes a call of one resource, and holds it against the right answer, which it returns; None for a refusal."""
        answer = self.stage.doors[door].call(call, caller, key=key, **fields)
        expected: dict[str, Any] | Refused = self._wanted(right)
        self.seen[call, answer.reason or "OK"] += 1
        if isinstance(expected, Refused):
            assert (answer.code, answer.reason) == (expected.code, expected.reason), (call, caller, fields, answer)
            return None
        assert answer.code == OK, (call, caller, fields, answer)
        meet(expected, answer.payload)
        return expected

    def _hold_rows(
        self,
        door: int,
        call: str,
        caller: Caller,
        size: int,
        wanted: "list[dict[str, Any]] | Refused",
        **fields: Json,
    ) -> None:
        """Reads a list to its end, the next page at the next door, and holds its rows against the right ones."""
        if isinstance(wanted, Refused):
            answer = self.stage.doors[door].call(call, caller, page_size=size, **fields)
            assert (answer.code, answer.reason) == (wanted.code, wanted.reason), (call, caller, fields, answer)
            return
        ours = {ticket.id for ticket in self.model.tickets}
        rows = [row for page in self._pages(door, call, caller, page_size=size, **fields) for row in page]
        found = [row for row in rows if call != "ListTickets" or row["id"] in ours]
        assert len(found) == len(wanted), (call, caller, fields, found, wanted)
        for expected, row in zip(wanted, found, strict=True):
            meet(expected, row)

    def _pages(self, door: int, call: str, caller: Caller, **fields: Json) -> Iterator[list[dict[str, Any]]]:
        token, most = "", fields["page_size"] or 20
        for _ in range(MOST_PAGES):
            asked = {**fields, **({"page_token": token} if token else {})}
            answer = self.stage.doors[door % 3].call(call, caller, **asked).resource
            (rows,) = (value for name, value in answer.items() if name != "next_page_token")
            token, door = answer["next_page_token"], door + 1
            assert len(rows) == most if token else len(rows) <= most
            yield rows
            if not token:
                return
        raise AssertionError(f"{call} does not come to an end")

    def _wanted(self, right: Callable[[], Any]) -> Any:  # noqa: ANN401 - whatever `right` returns, or Refused
        try:
            return right()
        except Refused as refusal:
            return refusal

    def _addressed(self, ticket: Ticket | None, expected: int | None) -> dict[str, Any]:
        fields: dict[str, Any] = {"ticket_id": ticket.id if ticket else new_id()}
        if expected is not None:
            # Less than 1 would be a bad field rather than a mismatch.
            fields["expected_version"] = max(1, (ticket.shown["version"] if ticket else 1) + expected)
        return fields

    def _owner_of(self, ticket: Ticket | None) -> Caller:
        owner = ticket.shown["user_id"] if ticket else None
        return next((caller for caller in self.who.values() if caller.id == owner), self.who["customer"])


def is_between(moment: str, after: str, before: str | None) -> bool:
    """From `after`, included, to `before`, excluded; all in RFC 3339."""
    start, end = datetime.fromisoformat(after), before and datetime.fromisoformat(before)
    return start <= datetime.fromisoformat(moment) and (not end or datetime.fromisoformat(moment) < end)


def test_whatever_several_callers_do_the_service_answers_as_the_contract_says(stage: Stage) -> None:
    Contract.stage, Contract.told, Contract.seen = stage, [], Counter()
    chosen = dice("the machine").randrange(2**32)
    bounds = settings(
        max_examples=EXAMPLES,
        stateful_step_count=STEPS,
        suppress_health_check=list(HealthCheck),
        # A failure is shown as it was found, with its seed: making it smaller takes minutes.
        phases=[Phase.generate],
    )
    run_state_machine_as_test(seed(chosen)(Contract), settings=bounds)
    for (call, result), count in sorted(Contract.seen.items()):
        print(f"{count:5} {call} {result}")  # noqa: T201
    check_events(stage.topic, Contract.told)
