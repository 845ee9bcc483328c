"""Many callers at once on one ticket: some order of their calls, one after the other, explains every answer."""

import copy
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import pytest

from tests.system.contract_model import STATUSES, Model, Refused, Ticket, check_events, check_times_and_ids, meet
from tests.system.doors import OK, Answer, Caller
from tests.system.stage import Stage
from tests.system.vocabulary import as_agent, as_customer, as_supervisor, dice, new_id

CLIENTS, CALLS_EACH, ROUNDS = 20, 8, 3
# So late does anybody close the ticket: nothing much happens to it afterwards.
CLOSING_FROM = CALLS_EACH - 2


class Step(NamedTuple):
    """One call, what came of it, and when it was under way, by the clock of the test."""

    began: float
    ended: float
    call: str
    caller: Caller
    fields: dict[str, Any]
    answer: Answer

    def replay(self, model: Model) -> dict[str, Any]:
        """What the model answers to this call."""
        (ticket,) = model.tickets
        fields, version = self.fields, self.fields.get("expected_version")
        acts: dict[str, Callable[[], dict[str, Any]]] = {
            "GetTicket": lambda: model.get(self.caller, ticket),
            "AssignTicket": lambda: model.assign(self.caller, ticket, fields["assigned_to"], version),
            "UpdateTicketStatus": lambda: model.move(
                self.caller, ticket, fields["status"], fields.get("resolution_notes"), version
            ),
            "AddComment": lambda: model.comment(
                self.caller, ticket, fields["comment"], is_internal=fields["is_internal"]
            ),
        }
        return acts[self.call]()

    def is_explained_by(self, model: Model) -> bool:
        """Whether the answer is the model's, in a state that the call left as it was."""
        tried = copy.deepcopy(model)
        try:
            meet(self.replay(tried), self.answer.payload)
        except Refused as refusal:
            return (self.answer.code, self.answer.reason) == (refusal.code, refusal.reason)
        except AssertionError:
            return False
        return self.answer.code == OK and tried.tickets[0].history == model.tickets[0].history


class Client:
    """Makes some calls, one after the other, each but the owner's as somebody whom only this call knows."""

    def __init__(
        self, stage: Stage, number: int, chance: random.Random, ticket: dict[str, Any], staff: list[str]
    ) -> None:
        self._stage = stage
        self._door = stage.doors[number % len(stage.doors)]
        self._chance = chance
        self._ticket = ticket
        self._staff = staff
        self._version = 1

    def work(self, start: threading.Barrier) -> list[Step]:
        """Every step, in order."""
        start.wait()
        return [self._step(number) for number in range(CALLS_EACH)]

    def _step(self, number: int) -> Step:
        call, caller, fields = self._choose(number)
        fields["ticket_id"] = self._ticket["id"]
        self._stage.mint(caller)
        began = time.monotonic()
        answer = self._door.call(call, caller, **fields)
        ended = time.monotonic()
        self._version = answer.payload.get("version", self._version)
        return Step(began, ended, call, caller, fields, answer)

    def _choose(self, number: int) -> tuple[str, Caller, dict[str, Any]]:
        kind = self._chance.choice(["assign", "take", "move", "move", "comment", "note", "answer", "get"])
        expected = {"expected_version": self._version} if self._chance.random() < 0.4 else {}
        if kind == "assign":
            return "AssignTicket", as_supervisor(), {"assigned_to": self._chance.choice(self._staff), **expected}
        if kind == "take":
            agent = as_agent()
            return "AssignTicket", agent, {"assigned_to": agent.id, **expected}
        if kind == "move":
            return "UpdateTicketStatus", as_agent(), {**self._goal(number), **expected}
        if kind == "get":
            return "GetTicket", as_agent(), {}
        said = {"comment": new_id(), "is_internal": kind == "note"}
        owner = Caller("customer", self._ticket["user_id"])
        return "AddComment", owner if kind == "comment" else as_agent(), said

    def _goal(self, number: int) -> dict[str, Any]:
        status = self._chance.choice(STATUSES if number >= CLOSING_FROM else STATUSES[:-1])
        return {"status": status, "resolution_notes": new_id()} if status == "resolved" else {"status": status}


@pytest.mark.parametrize("number", range(ROUNDS))
def test_some_serial_order_explains_every_answer_to_many_at_once(stage: Stage, number: int) -> None:
    chance = dice(f"round {number}")
    model, owner = Model(), as_customer()
    meet(
        model.create(owner, subject="s", description="d"),
        stage.rest.call("CreateTicket", owner, subject="s", description="d").resource,
    )
    ticket, staff = model.tickets[0].created, [new_id(), new_id()]
    clients = [Client(stage, i, random.Random(chance.random()), ticket, staff) for i in range(CLIENTS)]  # noqa: S311
    start = threading.Barrier(CLIENTS)
    with ThreadPoolExecutor(CLIENTS) as pool:
        steps = [step for done in pool.map(lambda client: client.work(start), clients) for step in done]

    told = history_of(stage, ticket)
    effective = in_order(steps, told)
    check_real_time(effective)
    states = replay(model, effective, told)
    others = [step for step in steps if step not in effective]
    place(others, effective, states)
    check_the_end(stage, model.tickets[0], told)
    counted = Counter((step.call, step.answer.reason or "OK", step in effective) for step in steps)
    print(f"{counted}")  # noqa: T201


def history_of(stage: Stage, ticket: dict[str, Any]) -> list[dict[str, Any]]:
    """The whole history as staff see it, in its order."""
    entries: list[dict[str, Any]] = []
    reader, token = as_agent(), ""
    while not entries or token:
        page: dict[str, Any] = {"page_size": 100, **({"page_token": token} if token else {})}
        answer = stage.rest.call("ListTicketHistory", reader, ticket_id=ticket["id"], **page).resource
        entries, token = entries + answer["entries"], answer["next_page_token"]
    return entries


def in_order(steps: list[Step], told: list[dict[str, Any]]) -> list[Step]:
    """The steps that changed something, in the order of the history, which has no other changes but the creation."""
    by_comment = {
        step.answer.payload["id"]: step for step in steps if step.call == "AddComment" and not step.answer.code
    }
    by_caller = {step.caller.id: step for step in steps if step.call in ("AssignTicket", "UpdateTicketStatus")}
    changes = {entry["change_id"]: entry for entry in reversed(told)}
    first_entries = sorted(changes.values(), key=told.index)[1:]
    found = [
        by_comment[entry["comment_id"]] if "comment_id" in entry else by_caller[entry["actor"]["user_id"]]
        for entry in first_entries
    ]
    assert all(step.answer.code == OK for step in found), "something is in the history that was refused"
    assert len({step.ended for step in found}) == len(found), "a call is in the history twice"
    assert set(by_comment) <= {entry.get("comment_id") for entry in told}, "an acknowledged comment is missing"
    return found


def check_real_time(effective: list[Step]) -> None:
    """A call that had ended before another began comes before it."""
    for place_, step in enumerate(effective):
        assert all(later.ended >= step.began for later in effective[place_ + 1 :]), step


def replay(model: Model, effective: list[Step], told: list[dict[str, Any]]) -> list[Model]:
    """The states that the ticket went through, the first one included; every answer on the way is the model's."""
    states = [copy.deepcopy(model)]
    (ticket,) = model.tickets
    for step in effective:
        before = ticket.shown
        expected = step.replay(model)
        meet(expected, step.answer.payload)
        if step.call == "AddComment":
            ticket.name_comment(expected["id"])
        if ticket.shown is not before:
            ticket.shown["updated_at"] = told[len(ticket.history) - 1]["occurred_at"]
        states.append(copy.deepcopy(model))
    return states


def place(others: Iterable[Step], effective: list[Step], states: list[Model]) -> None:
    """Finds a place for each step that changed nothing, at which its answer was right and which keeps to real time.

    The earliest place is always as good as any: a step only asks of those after it that they come no earlier.
    """
    placed: list[tuple[float, int]] = []
    for step in sorted(others, key=lambda step: step.ended):
        first = max((number for number, one in enumerate(effective, 1) if one.ended < step.began), default=0)
        first = max([first, *(number for ended, number in placed if ended < step.began)])
        last = next((number for number, one in enumerate(effective) if one.began > step.ended), len(effective))
        fitting = [number for number in range(first, last + 1) if step.is_explained_by(states[number])]
        assert fitting, (step, first, last, [state.tickets[0].shown for state in states[first : last + 1]])
        placed.append((step.ended, fitting[0]))


def check_the_end(stage: Stage, ticket: Ticket, told: list[dict[str, Any]]) -> None:
    """Ticket, history and events are what the order left behind, and the version counts the changes."""
    meet(ticket.shown, stage.grpc.call("GetTicket", as_agent(), ticket_id=ticket.id).resource)
    assert len(told) == len(ticket.history)
    for entry, answer in zip(ticket.history, told, strict=True):
        meet(entry.shown, answer)
    changes = {entry.change for entry in ticket.history if entry.shown["event_type"] != "ticket_commented"}
    assert ticket.shown["version"] == len(changes)
    check_times_and_ids(ticket)
    check_events(stage.topic, [ticket])
