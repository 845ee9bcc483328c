"""What is told of a ticket whose owner was erased: the same to the same staff, and nothing that names the owner."""

import random
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from server.domain.callers import Caller, Role
from server.domain.events import EventType
from server.domain.privacy import ERASED, Erasure, erased
from server.notification import rules
from server.notification.intake import erasure_of, event_of
from server.notification.rules import Event
from tests.unit.ticket_story import TicketStory, agent, customer
from tests.unit.vocabulary import NOW

STAFF = [agent() for _ in range(3)]
PSEUDONYM = UUID("c0ffee00-6c1d-4f0e-9d7b-2f1a5e8b3c46")
owners = st.sampled_from([customer(), STAFF[0]])


def a_life(owner: Caller, seed: int) -> list[Event]:
    """Any events that one ticket can have."""
    story = TicketStory(owner, NOW, subject="Marzipan")
    chance = random.Random(seed)  # noqa: S311
    for _ in range(chance.randrange(8)):
        story.live(chance, owner, STAFF)
    return [event_of(message) for message in story.events]


@given(owners, st.integers(0, 2**32))
def test_an_erased_event_names_the_owner_nowhere_and_says_all_else(owner: Caller, seed: int) -> None:
    for event in a_life(owner, seed):
        left = rules.erased(event, PSEUDONYM)
        assert owner.id not in left
        assert left.subject == ERASED
        hidden = {"owner_id", "actor_id", "assignee_id", "subject", "is_erased"}
        assert {name: value for name, value in left._asdict().items() if name not in hidden} == {
            name: value for name, value in event._asdict().items() if name not in hidden
        }
        assert (left.actor_id == event.actor_id) is (event.actor_id != owner.id)


@given(owners, st.integers(0, 2**32))
def test_staff_are_told_the_same_and_the_owner_nothing(owner: Caller, seed: int) -> None:
    staff = [person.id for person in STAFF if person.id != owner.id]
    for event in a_life(owner, seed):
        told = rules.told(rules.erased(event, PSEUDONYM), staff)
        assert told == [person for person in rules.told(event, staff) if person != owner.id]
        assert PSEUDONYM not in told


@given(owners, st.integers(0, 2**32))
def test_nobody_is_staff_by_a_pseudonym(owner: Caller, seed: int) -> None:
    for event in a_life(owner, seed):
        sighting = rules.sighting(rules.erased(event, PSEUDONYM))
        assert (sighting.user_id, sighting.role) != (PSEUDONYM, event.actor_role)
        if event.actor_id != owner.id:
            assert sighting == rules.sighting(event)


def test_the_erasure_of_an_event_names_the_ticket_the_pseudonym_and_the_user() -> None:
    owner = customer()
    message = TicketStory(owner, NOW).erase(STAFF[0]).events[-1]
    told = erasure_of(message)
    assert (str(told.ticket_id), str(told.pseudonym), told.user_id) == (
        message.ticket_id,
        message.ticket.user_id,
        owner.id,
    )
    message.ClearField("erased_user_id")
    assert erasure_of(message) == told._replace(user_id=None)


def test_what_is_done_for_an_erasure_is_done_by_who_asked_for_it() -> None:
    asked = Erasure(PSEUDONYM, customer().id, STAFF[0].id, "service", NOW, None, 0)
    assert asked.requester == Caller(STAFF[0].id, Role.SERVICE)


def test_an_erasure_tells_whose_data_others_are_to_erase() -> None:
    draft = erased(PSEUDONYM)
    assert (draft.event_type, draft.erased_user_id) == (EventType.TICKET_ERASED, PSEUDONYM)
