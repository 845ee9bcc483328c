"""What somebody sees in their inbox, and what marking and muting do to it."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from uuid import UUID, uuid4

import psycopg
import pytest

from server.domain.callers import Caller, Role
from server.errors import InvalidFields
from server.notification import inbox
from server.notification.notification import Preferences
from tests.integration.inbox import Post, arrive
from tests.integration.vocabulary import as_agent, as_customer, as_supervisor


@pytest.fixture
async def post(shared_dsn: str) -> AsyncIterator[Post]:
    """The inbox on empty tables."""
    async with Post.at(shared_dsn) as post:
        yield post


@pytest.fixture
async def sender(post: Post) -> AsyncIterator[psycopg.AsyncConnection]:
    """By which notifications arrive."""
    async with await psycopg.AsyncConnection.connect(post.dsn, autocommit=True) as connection:
        yield connection


async def rows_of(sender: psycopg.AsyncConnection, recipient: Caller) -> int:
    """How many unread rows there are, counted one by one."""
    text = """
        SELECT count(*) FROM notification_service.notifications
        WHERE recipient_id = %s AND in_inbox AND read_at IS NULL
    """
    (count,) = await (await sender.execute(text, [recipient.id])).fetchone() or (0,)
    return int(count)


async def known_staff(sender: psycopg.AsyncConnection) -> list[tuple[UUID, str]]:
    text = "SELECT user_id, role FROM notification_service.recipients WHERE role IS NOT NULL"
    return await (await sender.execute(text)).fetchall()


async def test_somebody_who_was_told_nothing_has_an_empty_inbox(post: Post) -> None:
    nobody = as_customer()
    assert await post.read(nobody) == ([], 0, "")
    assert await inbox.count_unread(post.on, nobody) == 0
    assert await inbox.get_preferences(post.on, nobody) == ([], [])
    assert await inbox.mark_read(post.on, nobody, [str(uuid4())], None) == 0
    assert await inbox.mark_read(post.on, nobody, [], str(uuid4())) == 0


async def test_the_newest_comes_first_and_nobody_sees_anothers(post: Post, sender: psycopg.AsyncConnection) -> None:
    mine, another = as_customer(), as_customer()
    ids = [await arrive(sender, mine) for _ in range(3)]
    await arrive(sender, another)
    page = await post.read(mine)
    assert [it.id for it in page.notifications] == ids[::-1]
    assert page.unread_count == 3


async def test_what_arrives_while_somebody_pages_is_neither_skipped_nor_repeated(
    post: Post, sender: psycopg.AsyncConnection
) -> None:
    mine = as_customer()
    ids = [await arrive(sender, mine) for _ in range(7)]
    page = await post.read(mine, size=2)
    seen = [it.id for it in page.notifications]
    while page.next_page_token:
        await arrive(sender, mine)
        page = await post.read(mine, size=2, token=page.next_page_token)
        seen += [it.id for it in page.notifications]
    assert seen == ids[::-1]
    assert page.unread_count == len(await post.everything(mine)) == 10


async def test_what_was_muted_is_on_no_page_and_counts_nowhere(post: Post, sender: psycopg.AsyncConnection) -> None:
    mine = as_customer()
    first = await arrive(sender, mine)
    hidden = await arrive(sender, mine, in_inbox=False)
    last = await arrive(sender, mine)
    assert await post.everything(mine, size=1) == [last, first]
    assert await inbox.mark_read(post.on, mine, [str(hidden)], None) == 2
    assert await inbox.mark_read(post.on, mine, [], str(hidden)) == 2


async def test_a_page_token_is_good_for_its_own_list_alone(post: Post, sender: psycopg.AsyncConnection) -> None:
    mine, another = as_customer(), as_customer()
    for recipient in (mine, mine, another, another):
        await arrive(sender, recipient)
    token = (await post.read(mine, size=1)).next_page_token
    with pytest.raises(InvalidFields):
        await post.read(another, size=1, token=token)
    with pytest.raises(InvalidFields):
        await post.read(mine, unread_only=True, token=token)
    with pytest.raises(InvalidFields):
        await post.read(mine, token=token[:-1])


async def test_what_was_read_leaves_the_unread_ones_and_stays_in_the_list(
    post: Post, sender: psycopg.AsyncConnection
) -> None:
    mine = as_customer()
    ids = [await arrive(sender, mine) for _ in range(4)]
    assert await inbox.mark_read(post.on, mine, [str(ids[1]), str(ids[3]).upper()], None) == 2
    page = await post.read(mine)
    assert {it.id: it.read_at for it in page.notifications if it.read_at} == {
        ids[1]: post.clock.now,
        ids[3]: post.clock.now,
    }
    assert await post.everything(mine, unread_only=True, size=1) == [ids[2], ids[0]]


async def test_marking_again_changes_nothing_not_even_when_it_was_read(
    post: Post, sender: psycopg.AsyncConnection
) -> None:
    mine = as_customer()
    ids = [str(await arrive(sender, mine)) for _ in range(3)]
    assert await inbox.mark_read(post.on, mine, [], ids[1]) == 1
    before = await post.read(mine)
    post.pass_by(timedelta(minutes=1))
    assert await inbox.mark_read(post.on, mine, ids[:2], None) == 1
    assert await inbox.mark_read(post.on, mine, [], ids[1]) == 1
    assert await post.read(mine) == before


async def test_nobody_marks_what_is_anothers(post: Post, sender: psycopg.AsyncConnection) -> None:
    mine, another = as_customer(), as_customer()
    await arrive(sender, mine)
    theirs = str(await arrive(sender, another))
    assert await inbox.mark_read(post.on, mine, [theirs], None) == 1
    assert await inbox.mark_read(post.on, mine, [], theirs) == 1
    assert await rows_of(sender, another) == 1


@pytest.mark.parametrize(
    ("ids", "up_to_id", "field"),
    [
        ([], None, "notification_ids"),
        (["0192f0c1-2345-7abc-8def-0123456789ab"], "0192f0c1-2345-7abc-8def-0123456789ab", "notification_ids"),
        (["42"], None, "notification_ids"),
        ([str(uuid4()) for _ in range(101)], None, "notification_ids"),
        ([], "", "up_to_id"),
    ],
)
async def test_what_to_mark_is_said_in_one_way_that_is_well_formed(
    post: Post, ids: list[str], up_to_id: str | None, field: str
) -> None:
    with pytest.raises(InvalidFields) as refused:
        await inbox.mark_read(post.on, as_customer(), ids, up_to_id)
    assert [violation.field for violation in refused.value.violations] == [field]


async def test_a_hundred_ids_are_not_too_many(post: Post, sender: psycopg.AsyncConnection) -> None:
    mine = as_customer()
    ids = [str(await arrive(sender, mine)) for _ in range(100)]
    assert await inbox.mark_read(post.on, mine, ids, None) == 0


async def test_the_count_is_exact_while_all_mark_and_more_arrives(post: Post, sender: psycopg.AsyncConnection) -> None:
    mine = as_customer()
    ids = [str(await arrive(sender, mine)) for _ in range(40)]

    async def arrivals() -> None:
        async with await psycopg.AsyncConnection.connect(post.dsn, autocommit=True) as connection:
            for _ in range(20):
                await arrive(connection, mine)

    await asyncio.gather(
        arrivals(),
        arrivals(),
        *(inbox.mark_read(post.on, mine, ids[i : i + 10], None) for i in range(0, 40, 2)),
        *(inbox.mark_read(post.on, mine, [], ids[i]) for i in range(0, 40, 5)),
    )
    assert await inbox.count_unread(post.on, mine) == await rows_of(sender, mine) == 40


async def test_preferences_are_replaced_and_kept_beside_what_arrives(
    post: Post, sender: psycopg.AsyncConnection
) -> None:
    mine = as_customer()
    muted = await inbox.set_preferences(post.on, mine, ["email", "inbox", "email"], ["ticket_closed", "ticket_created"])
    assert muted == Preferences(["inbox", "email"], ["ticket_created", "ticket_closed"])
    await arrive(sender, mine)
    assert await inbox.get_preferences(post.on, mine) == muted
    assert await inbox.set_preferences(post.on, mine, [], []) == ([], [])
    assert await inbox.count_unread(post.on, mine) == 1


async def test_a_channel_or_type_that_is_unknown_is_named(post: Post) -> None:
    with pytest.raises(InvalidFields) as refused:
        await inbox.set_preferences(post.on, as_customer(), [None], ["email"])
    assert [violation.field for violation in refused.value.violations] == ["muted_channels", "muted_types"]


async def test_staff_who_call_are_known_from_then_on_and_users_are_not(
    post: Post, sender: psycopg.AsyncConnection
) -> None:
    agent, supervisor = as_agent(), as_supervisor()
    for caller in (agent, supervisor, as_customer(), agent):
        await inbox.count_unread(post.on, caller)
    assert sorted(await known_staff(sender)) == sorted(
        [(agent.id, "support_agent"), (supervisor.id, "support_supervisor")]
    )


async def test_who_calls_often_is_written_once_an_hour(post: Post, sender: psycopg.AsyncConnection) -> None:
    agent = as_agent()
    text = "SELECT last_seen_at FROM notification_service.recipients"
    seen = []
    for minutes in (0, 59, 2, 30):
        post.pass_by(timedelta(minutes=minutes))
        await inbox.count_unread(post.on, agent)
        seen.append((await (await sender.execute(text)).fetchone() or ())[0])
    assert seen[0] == seen[1] < seen[2] == seen[3]


async def test_who_was_promoted_is_known_in_the_new_role_at_once(post: Post, sender: psycopg.AsyncConnection) -> None:
    agent = as_agent()
    await inbox.count_unread(post.on, agent)
    await inbox.count_unread(post.on, Caller(agent.id, Role.SUPPORT_SUPERVISOR))
    assert await known_staff(sender) == [(agent.id, "support_supervisor")]


async def test_who_calls_in_another_role_is_staff_no_more_and_may_be_again(
    post: Post, sender: psycopg.AsyncConnection
) -> None:
    agent = as_agent()
    async with post.beside() as other:
        for process in (post, other, post):
            await inbox.count_unread(process.on, agent)
            assert await known_staff(sender) == [(agent.id, "support_agent")]
            await inbox.count_unread(process.on, Caller(agent.id, Role.CUSTOMER))
            assert await known_staff(sender) == []
            post.pass_by(timedelta(minutes=1))


async def test_that_somebody_is_no_staff_is_written_for_those_alone_who_were(
    post: Post, sender: psycopg.AsyncConnection
) -> None:
    mine = as_customer()
    await arrive(sender, mine)
    await inbox.count_unread(post.on, mine)
    row = await sender.execute("SELECT role, last_seen_at FROM notification_service.recipients")
    assert await row.fetchall() == [(None, None)]


async def test_being_seen_waits_for_nobody_who_holds_the_row(post: Post, sender: psycopg.AsyncConnection) -> None:
    agent = as_agent()
    await arrive(sender, agent)
    async with sender.transaction():
        await sender.execute("SELECT FROM notification_service.recipients WHERE user_id = %s FOR UPDATE", [agent.id])
        async with asyncio.timeout(2):
            assert await inbox.count_unread(post.on, agent) == 1
    assert await known_staff(sender) == []
    await inbox.count_unread(post.on, agent)
    assert await known_staff(sender) == [(agent.id, "support_agent")]
