"""A call without permission row, description or test doesn't pass `make lint`."""

from pathlib import Path

import pytest

from protos import calls, contract, generate

CALL = "TicketService.PraiseTicket"


def test_every_call_of_the_protos_is_looked_at() -> None:
    assert set(calls.declared()) == set(calls.PERMITTED)


def test_a_call_that_another_team_answers_is_not_looked_at() -> None:
    assert "nibble.user.v1.UserService.BatchGetUsers" in contract.read(generate.image()).methods()
    assert "UserService.BatchGetUsers" not in calls.declared()


def test_a_whole_call_gives_no_complaint() -> None:
    assert calls.complaints([CALL], {CALL}, {"PraiseTicket"}, {"PraiseTicket"}) == []


@pytest.mark.parametrize(
    ("permitted", "described", "tested", "complaint"),
    [
        (set(), {"PraiseTicket"}, {"PraiseTicket"}, "no row"),
        ({CALL}, set(), {"PraiseTicket"}, "no operation"),
        ({CALL}, {"PraiseTicket"}, set(), "no test"),
        ({CALL, "TicketService.Gone"}, {"PraiseTicket"}, {"PraiseTicket"}, "TicketService.Gone in"),
    ],
)
def test_what_is_missing_is_named(permitted: set[str], described: set[str], tested: set[str], complaint: str) -> None:
    (found,) = calls.complaints([CALL], permitted, described, tested)
    assert complaint in found


def test_an_operation_without_description_is_not_described() -> None:
    whole = {"operationId": "GetTicket", "summary": "s", "description": "d"}
    assert calls.described({"paths": {"/a": {"get": whole}}}) == {"GetTicket"}
    assert calls.described({"paths": {"/a": {"get": {**whole, "description": ""}}}}) == set()


def test_only_test_files_name_calls(tmp_path: Path) -> None:
    (tmp_path / "test_praise.py").write_text('door.call("PraiseTicket")')
    (tmp_path / "vocabulary.py").write_text('door.call("BlameTicket")')
    assert calls.tested(tmp_path) == {"PraiseTicket"}
