"""What the User Service's client believes, remembers and refuses; the wire is gRPC's own double of a channel."""

import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from uuid import UUID, uuid4

import grpc
import grpc_testing
import pytest
from nibble.user.v1 import user_pb2, user_service_pb2
from prometheus_client import REGISTRY

from server.clients.bearer import BearerFile
from server.clients.breaker import FAILURES, PAUSE
from server.clients.user_service import (
    BATCH,
    KEPT_SECONDS,
    KEPT_SECONDS_WITHOUT_ADDRESS,
    UserDirectory,
)
from server.domain.users import LONGEST_EMAIL, LONGEST_NAME, User
from server.errors import UserServiceUnavailable
from tests.unit.test_circuit_breaker import Clock

SERVICE = user_service_pb2.DESCRIPTOR.services_by_name["UserService"]
METHOD = SERVICE.methods_by_name["BatchGetUsers"]
ANN, BO = UUID("0199f3a2-7c1e-7b44-9d2f-00000000000a"), UUID("0199f3a2-7c1e-7b44-9d2f-00000000000b")
LOST = grpc.StatusCode.UNAVAILABLE


def person(user_id: UUID, name: str = "Ann", email: str | None = "ann@nibble.example") -> user_pb2.User:
    return user_pb2.User(id=str(user_id), name=name, email=email)


class Wire:
    """A directory whose calls come out here, to be answered one after the other."""

    def __init__(self, token: BearerFile | None = None) -> None:
        self.clock = Clock()
        self.channel = grpc_testing.channel([SERVICE], grpc_testing.strict_real_time())
        self.directory = UserDirectory(self.channel, self.clock, 2.0, token)
        self.metadata: dict[str, str] = {}
        self._pool = ThreadPoolExecutor(8)

    def begin(self, *ids: UUID) -> Future[dict[UUID, User]]:
        return self._pool.submit(self.directory.users, ids)

    def answer(self, *users: user_pb2.User, code: grpc.StatusCode = grpc.StatusCode.OK) -> list[str]:
        """Answers the next call, and says whom it asked for."""
        metadata, request, rpc = self.channel.take_unary_unary(METHOD)
        self.metadata = dict(metadata)
        rpc.send_initial_metadata(())
        rpc.terminate(user_service_pb2.BatchGetUsersResponse(users=users), (), code, "")
        return list(request.user_ids)

    def users(self, *ids: UUID, answer: user_pb2.User) -> dict[UUID, User]:
        looked_up = self.begin(*ids)
        self.answer(answer)
        return looked_up.result(5)

    def fails(self) -> None:
        looked_up = self.begin(uuid4())
        self.answer(code=LOST)
        with pytest.raises(UserServiceUnavailable):
            looked_up.result(5)

    def close(self) -> None:
        self._pool.shutdown()


@pytest.fixture
def wire() -> Iterator[Wire]:
    wire = Wire()
    yield wire
    wire.close()


def counted(outcome: str) -> float:
    return REGISTRY.get_sample_value("nibble_user_service_calls_total", {"outcome": outcome}) or 0.0


def test_who_exists_is_told_and_who_does_not_is_absent(wire: Wire) -> None:
    assert wire.users(ANN, BO, answer=person(ANN)) == {ANN: User(ANN, "Ann", "ann@nibble.example")}


def test_nobody_is_asked_for_nobody(wire: Wire) -> None:
    assert wire.directory.users([]) == {}


def test_a_call_asks_for_a_hundred_at_most_and_for_each_once(wire: Wire) -> None:
    ids = [uuid4() for _ in range(2 * BATCH + 1)]
    looked_up = wire.begin(*ids, *ids)
    asked = [wire.answer(*map(person, ids)) for _ in range(3)]
    assert [len(batch) for batch in asked] == [BATCH, BATCH, 1]
    assert [user_id for batch in asked for user_id in batch] == list(map(str, ids))
    assert looked_up.result(5).keys() == set(ids)


def test_half_an_answer_is_none_and_what_was_learnt_is_remembered(wire: Wire) -> None:
    ids = [uuid4() for _ in range(BATCH + 1)]
    looked_up = wire.begin(*ids)
    wire.answer(*map(person, ids))
    wire.answer(code=LOST)
    with pytest.raises(UserServiceUnavailable):
        looked_up.result(5)
    again = wire.begin(*ids)
    assert wire.answer(person(ids[-1])) == [str(ids[-1])]
    assert again.result(5).keys() == set(ids)


def test_users_are_remembered_for_ten_minutes(wire: Wire) -> None:
    first = wire.users(ANN, answer=person(ANN))
    wire.clock.now += KEPT_SECONDS - 1
    assert wire.directory.users([ANN]) == first
    wire.clock.now += 1
    assert wire.users(ANN, answer=person(ANN, "Anna"))[ANN].name == "Anna"


@pytest.mark.parametrize("present", [person(BO), person(ANN, email=None)], ids=["unknown", "without address"])
def test_who_can_get_no_mail_is_asked_for_again_after_a_minute(wire: Wire, present: user_pb2.User) -> None:
    before = wire.users(ANN, answer=present)
    wire.clock.now += KEPT_SECONDS_WITHOUT_ADDRESS - 1
    assert wire.directory.users([ANN]) == before
    wire.clock.now += 1
    assert wire.users(ANN, answer=person(ANN))[ANN].email


@pytest.mark.parametrize("code", [LOST, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.INTERNAL])
def test_every_failure_is_the_one_error_and_is_counted_by_its_code(wire: Wire, code: grpc.StatusCode) -> None:
    before = counted(code.name)
    looked_up = wire.begin(ANN)
    wire.answer(code=code)
    with pytest.raises(UserServiceUnavailable):
        looked_up.result(5)
    assert counted(code.name) == before + 1


def test_a_service_that_keeps_failing_is_left_alone_and_then_tried_again(wire: Wire) -> None:
    known = wire.users(ANN, answer=person(ANN))
    for _ in range(FAILURES):
        wire.fails()
    assert REGISTRY.get_sample_value("nibble_user_service_breaker_open") == 1
    before = counted("BREAKER_OPEN")
    # Nobody answers a call here, so a call that was made would not end.
    with pytest.raises(UserServiceUnavailable):
        wire.begin(BO).result(5)
    assert counted("BREAKER_OPEN") == before + 1
    assert wire.directory.users([ANN]) == known

    wire.clock.now += PAUSE
    assert wire.users(BO, answer=person(BO)).keys() == {BO}
    assert REGISTRY.get_sample_value("nibble_user_service_breaker_open") == 0


def test_no_thread_waits_for_the_call_of_another(wire: Wire) -> None:
    calls = [wire.begin(uuid4()) for _ in range(4)]
    taken = [wire.channel.take_unary_unary(METHOD) for _ in calls]
    for _, request, rpc in reversed(taken):
        rpc.terminate(
            user_service_pb2.BatchGetUsersResponse(users=[person(UUID(request.user_ids[0]))]),
            (),
            grpc.StatusCode.OK,
            "",
        )
    assert all(call.result(5) for call in calls)


def test_many_threads_share_one_directory(wire: Wire) -> None:
    ids = [uuid4() for _ in range(50)]
    wire.users(ids[0], answer=person(ids[0]))
    stop = threading.Event()

    def answers() -> None:
        while not stop.is_set():
            wire.answer(*map(person, ids))

    responder = threading.Thread(target=answers, daemon=True)
    responder.start()
    results = [wire.begin(*ids[i % 7 :]) for i in range(40)]
    for i, result in enumerate(results):
        assert result.result(10).keys() == set(ids[i % 7 :])
    stop.set()
    # One more call, so that whoever waits for one sees that it is over.
    wire.begin(uuid4()).result(5)
    responder.join(5)


def test_who_was_not_asked_for_is_neither_told_nor_remembered(wire: Wire) -> None:
    assert wire.users(ANN, answer=person(BO)) == {}
    assert wire.users(BO, answer=person(BO, "Bo"))[BO].name == "Bo"


def test_an_id_that_is_none_counts_as_nobody(wire: Wire) -> None:
    assert wire.users(ANN, answer=user_pb2.User(id="ann'; --", name="Ann", email="ann@nibble.example")) == {}


def test_of_two_users_with_one_id_the_first_counts(wire: Wire) -> None:
    looked_up = wire.begin(ANN)
    wire.answer(person(ANN), person(ANN, "Eve", "eve@elsewhere.example"))
    assert looked_up.result(5)[ANN].name == "Ann"


@pytest.mark.parametrize(
    "email",
    [
        "",
        "ann",
        "@nibble.example",
        "ann@",
        "ann@nibble.example\r\nBcc: eve@elsewhere.example",
        "ann@nibble.example\n",
        "ann\x00@nibble.example",
        "ann@nibble.example, eve@elsewhere.example",
        "ann@nibble.example> SIZE=1",
        "Ann <ann@nibble.example>",
        '"ann eve"@nibble.example',
        "ann@nibble..example",
        "ann@-nibble.example",
        "änn@nibble.example",
        "ann@eve@nibble.example",
        "a" * 65 + "@nibble.example",
        "=?utf-8?q?a=0D=0ABcc:_eve?=@nibble.example",
        "a@" + ".".join(["b" * 60] * 5),
    ],
)
def test_an_address_that_can_not_be_used_as_it_stands_counts_as_none(wire: Wire, email: str) -> None:
    assert wire.users(ANN, answer=person(ANN, email=email)) == {ANN: User(ANN, "Ann", None)}


@pytest.mark.parametrize("email", ["a@b", "Ann.O'Hara+x@mail.nibble.example", "a@" + "b" * 63 + ".example"])
def test_an_ordinary_address_is_taken_as_it_stands(wire: Wire, email: str) -> None:
    assert len(email) <= LONGEST_EMAIL
    assert wire.users(ANN, answer=person(ANN, email=email))[ANN].email == email


@pytest.mark.parametrize(
    "name", ["", "  ", "x" * (LONGEST_NAME + 1), "Ann\r\nBcc: eve@elsewhere.example", "Ann\x1b[2J", "Ann\u202eevE"]
)
def test_a_name_that_can_not_be_shown_counts_as_none_and_the_address_stays(wire: Wire, name: str) -> None:
    assert wire.users(ANN, answer=person(ANN, name)) == {ANN: User(ANN, None, "ann@nibble.example")}


@pytest.mark.parametrize("name", ["Ann", "  Ann\n", "Å", "نیما\u200cنیا", "Ann\u00a0Lee", "x" * LONGEST_NAME])
def test_an_ordinary_name_is_trimmed_and_taken(wire: Wire, name: str) -> None:
    assert wire.users(ANN, answer=person(ANN, name))[ANN].name == name.strip()


@pytest.fixture
def token(tmp_path: Path) -> BearerFile:
    return BearerFile(tmp_path / "token")


def test_a_token_is_sent_as_the_file_has_it_now(token: BearerFile) -> None:
    wire = Wire(token)
    for text in ("one", "two\n"):
        token.path.write_text(text)
        wire.users(uuid4(), answer=person(ANN))
        assert wire.metadata["authorization"] == f"Bearer {text.strip()}"
    wire.close()


def test_without_a_token_file_no_token_is_sent(wire: Wire) -> None:
    wire.users(ANN, answer=person(ANN))
    assert "authorization" not in wire.metadata


@pytest.mark.parametrize("content", [None, b"", b" \n", b"a b", b"a\r\nx: y", b"\xff\xfe"])
def test_a_token_that_can_not_be_sent_is_the_one_error_too(token: BearerFile, content: bytes | None) -> None:
    if content is not None:
        token.path.write_bytes(content)
    wire, before = Wire(token), counted("NO_TOKEN")
    with pytest.raises(UserServiceUnavailable):
        wire.begin(ANN).result(5)
    assert counted("NO_TOKEN") == before + 1
    wire.close()
