"""Who and what invented tickets are about: users, staff, orders and texts, by chance."""

import json
import random
from collections.abc import Iterator, Sequence
from typing import NamedTuple, Self, TypeVar

from bench.binary_copy import text, uuid
from server.domain.callers import STAFF, Role

T = TypeVar("T")

# Version and variant of a UUID, by their places among its last 80 bits, which else are free.
_VERSION_4, _VERSION_7, _MARKS = 4 << 76 | 2 << 62, 7 << 76 | 2 << 62, 0xF << 76 | 3 << 62
_ALL = (1 << 128) - 1
# Any odd number of 128 bits.
_SPREAD = 0x9E37_79B9_7F4A_7C15_F39C_C060_5CED_C835
# Made so many at a time: numbers of 80 bits side by side, marked all at once.
_IDS = 512
_SIDE_BY_SIDE = sum(1 << 80 * n for n in range(_IDS))

# A quarter of the tickets are of users who come back, one for 200 tickets: who comes back most has thousands. The
# others are of many more, of whom three quarters have one.
OF_REGULARS, TICKETS_PER_REGULAR, PASSERS_BY = 0.25, 200, 1.5
TICKETS_PER_AGENT, FEWEST_AGENTS = 4_000, 5

SUBJECTS = (
    "Cold soup", "Order never arrived", "Wrong dish", "Driver could not find me", "Charged twice", "Refund still open",
    "Voucher refused", "Allergen on the label", "Menu shows old prices", "App closes at checkout", "Payout too low",
    "Tip went missing", "Address can't be changed", "Drinks forgotten", "Rude driver", "Restaurant closed early",
    "Pizza upside down", "Große Bestellung zu spät", "Livraison incomplète", "Cannot log in",
)  # fmt: skip
_SENTENCES = (
    "The order came an hour late and was cold.", "Two of the five dishes were missing.", "Nobody answered the phone.",
    "I was told to write to you.", "The amount on my statement is not the one in the app.", "This is the second time.",
    "Please tell me what happens next.", "The driver left it with the neighbours.", "I have attached nothing so far.",
    "We had ordered for the whole office.", "It said delivered, which it was not.", "Die Suppe war kalt.",
    "I would like my money back.", "The restaurant says that it is your fault.", "Thank you for looking into it.",
    "I live on the third floor, the bell works.", "We are looking into it.", "The refund takes up to three days.",
    "I have asked the restaurant, which has not answered yet.", "Could you tell us the time of the delivery?",
)  # fmt: skip
_STATUSES = ("placed", "accepted", "picked_up", "delivered")


_ROLE = {role: text(role) for role in Role}
_CUSTOMER = _ROLE[Role.CUSTOMER]


class Person(NamedTuple):
    """Somebody, as rows name them: `id` and `role` are fields of COPY, `name` is the id as text."""

    id: bytes
    role: bytes
    name: str
    is_staff: bool

    @classmethod
    def of(cls, id_: bytes, role: Role) -> Self:
        """From the bytes of the id."""
        return cls(uuid(id_), _ROLE[role], spelled(id_), role in STAFF)


def spelled(id_: bytes) -> str:
    """A UUID as text."""
    digits = id_.hex()
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def _some_user(number: int) -> bytes:
    """A UUID of version 4, another one for each number."""
    return ((number + 1) * _SPREAD & _ALL & ~_MARKS | _VERSION_4).to_bytes(16, "big")


class World:
    """All that tickets have in common, for a number of them; the same for the same seed."""

    def __init__(self, tickets: int, seed: int) -> None:
        self._seed, self._passers_by = seed, int(tickets * PASSERS_BY)
        self.begin("the world")
        roles = (Role.RESTAURANT, Role.CUSTOMER, Role.DRIVER)
        self.regulars = [self._person(roles[n % 3]) for n in range(max(10, tickets // TICKETS_PER_REGULAR))]
        number = max(FEWEST_AGENTS, tickets // TICKETS_PER_AGENT)
        self.agents = [self._person(Role.SUPPORT_AGENT) for _ in range(number)]
        self.supervisors = [self._person(Role.SUPPORT_SUPERVISOR) for _ in range(max(1, number // 20))]
        self.subjects = [(subject, text(subject)) for subject in SUBJECTS]
        self.descriptions = [text(self._sentences(1, 6)) for _ in range(2_000)]
        self.comments = [text(self._sentences(1, 3)) for _ in range(1_000)]
        self.notes = [text(self._sentences(1, 2)) for _ in range(200)]
        self.orders = [self._order() for _ in range(300)]

    def begin(self, part: object) -> None:
        """Have chance begin anew, for a part of all that is invented."""
        self.chance = random.Random(f"{self._seed} {part}")  # noqa: S311 - is to be the same again
        self.random, self._bits = self.chance.random, self.chance.getrandbits
        self._endings = self._endings_of_ids()

    def new_id(self, at: int) -> bytes:
        """A UUID of version 7, made at that time (microseconds since 1970)."""
        return (at // 1000).to_bytes(6, "big") + next(self._endings)

    def some_id(self) -> bytes:
        """A UUID of version 4."""
        return (self._bits(128) & ~_MARKS | _VERSION_4).to_bytes(16, "big")

    def user(self) -> Person:
        """Whose the next ticket is: few have thousands, most have one."""
        if self.random() < OF_REGULARS:
            return self.regulars[int(len(self.regulars) * self.random() ** 2)]
        id_ = _some_user(int(self._passers_by * self.random()))
        return Person(uuid(id_), _CUSTOMER, spelled(id_), is_staff=False)

    def one_of(self, things: Sequence[T]) -> T:
        """Any of them, each as likely."""
        return things[int(len(things) * self.random())]

    def _endings_of_ids(self) -> Iterator[bytes]:
        while True:
            bits = self._bits(80 * _IDS) & ~(_MARKS * _SIDE_BY_SIDE) | _VERSION_7 * _SIDE_BY_SIDE
            together = bits.to_bytes(10 * _IDS, "big")
            yield from (together[begin : begin + 10] for begin in range(0, 10 * _IDS, 10))

    def _person(self, role: Role) -> Person:
        return Person.of(self.some_id(), role)

    def _sentences(self, least: int, most: int) -> str:
        return " ".join(self.chance.choices(_SENTENCES, k=self.chance.randint(least, most)))

    def _order(self) -> str:
        """What the Order Service told of an order, behind its ids and times, as `server.domain.orders` keeps it."""
        price = {"currency": "EUR", "minor_units": self.chance.randrange(300, 9_000)}
        dish = self.chance.choice(("Soup of the day", "Pizza Margherita", "Pad thai", "Falafel", "Bibimbap"))
        told = {
            "restaurant_id": spelled(self.some_id()),
            "driver_id": spelled(self.some_id()),
            "status": "delivered",
            "items": [{"name": dish, "quantity": self.chance.randint(1, 4), "price": price}],
            "total": price,
            "history": [{"status": self.chance.choice(_STATUSES), "at": None}],
            "payment": {
                "method": "card", "state": "captured", "amount": price, "card_last_four": None, "iban_last_four": None,
            },
            "delivery": None,
        }  # fmt: skip
        return json.dumps(told)[1:]
