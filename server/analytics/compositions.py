"""Every statement of the Analytics Service; `make generate` compiles each."""

from sqlalchemy import ARRAY, Boolean, Integer, Uuid, any_, bindparam, column, func, insert, literal_column, select
from sqlalchemy.dialects.postgresql import insert as pg_insert
from sqlalchemy.sql.selectable import Select

from server.analytics.rules import Snapshot
from server.analytics.tables import generations, ticket_events, ticket_facts
from server.db.composing import compiled, moment, param, uuid
from server.db.statement import Statement

_SNAPSHOT_COLUMNS = [ticket_events.c[name] for name in Snapshot._fields]


def _from_arrays() -> Select[tuple[object, ...]]:
    """Snapshots as rows, from one array parameter per column."""
    arrays = [param(each.name, ARRAY(each.type)) for each in _SNAPSHOT_COLUMNS]
    columns = [column(each.name, each.type) for each in _SNAPSHOT_COLUMNS]
    rows = func.unnest(*arrays).table_valued(*columns, name="snapshots").render_derived()
    return select(*rows.c)


def _keep_events() -> Statement:
    new = pg_insert(ticket_events).from_select(list(Snapshot._fields), _from_arrays())
    changed = {each.name: new.excluded[each.name] for each in _SNAPSHOT_COLUMNS if not each.primary_key}
    return compiled(new.on_conflict_do_update(index_elements=["ticket_id", "sequence"], set_=changed))


# Those that were kept before come again after a rebuild has begun; then the topic is right.
KEEP_EVENTS = _keep_events()

# Those of a ticket one after the other.
LIST_EVENTS_OF_TICKETS = compiled(
    select(*_SNAPSHOT_COLUMNS)
    .where(ticket_events.c.ticket_id == any_(param("ticket_ids", ARRAY(Uuid))))
    .order_by(ticket_events.c.ticket_id)
)


def _put_fact() -> Statement:
    written = [each for each in ticket_facts.c if each.computed is None]
    new = pg_insert(ticket_facts).values({each.name: bindparam(each.name, type_=each.type) for each in written})
    changed = {each.name: new.excluded[each.name] for each in written if not each.primary_key}
    return compiled(new.on_conflict_do_update(index_elements=["ticket_id"], set_=changed))


PUT_FACT = _put_fact()

# A ticket with events has a fact: both are written in one transaction.
LOCK_FACTS = compiled(
    select(ticket_facts.c.ticket_id)
    .where(ticket_facts.c.ticket_id > uuid("after"))
    .order_by(ticket_facts.c.ticket_id)
    .limit(param("limit", Integer))
    .with_for_update()
)

GENERATION = compiled(select(func.max(generations.c.number)))

BEGIN_GENERATION = compiled(
    insert(generations)
    .from_select(["number", "begun_at"], select(func.max(generations.c.number) + literal_column("1"), moment("now")))
    .returning(generations.c.number)
)

# In the order in which the transactions of consumers touch them: so each of those is waited for, and waits.
LOCK_TABLES = Statement(
    """
LOCK TABLE analytics_service.consumed_events, analytics_service.generations, analytics_service.ticket_events,
    analytics_service.ticket_facts IN ACCESS EXCLUSIVE MODE
""",
    (),
)
FORGET_CONSUMED = Statement("TRUNCATE analytics_service.consumed_events", ())
FORGET_EVERYTHING = Statement(
    "TRUNCATE analytics_service.consumed_events, analytics_service.ticket_events, analytics_service.ticket_facts", ()
)

# One look at the whole, so that all figures of a report are of the same moment. First what happened, one row for each
# time, only for tickets whose life touches the range: others have nothing to say to it. Then all rows are counted four
# times: together, by period, by priority, and by agent; happenings first by all three at once, which leaves few rows.
#
# - `opening` and `backlog` are the tickets in the backlog just before the start and just before the end of the range;
#   `abandoned` are the closings that took a ticket out of the backlog.
# - `rated_1` to `rated_5` are ratings.
# - width_bucket tells how many of ascending times lie before or at another.
# - date_bin tells the begin of the day or week: 2001 began on a Monday.
# - Texts are grouped in the order of their bytes, which takes a fraction of the time.
REPORT = Statement(
    """
WITH facts AS NOT MATERIALIZED (
    SELECT
        *, priority COLLATE "C" AS priority_word,
        $1::timestamptz - interval '1 microsecond' AS before_start,
        $2::timestamptz - interval '1 microsecond' AS before_end
    FROM analytics_service.ticket_facts
    WHERE life && tstzrange($1::timestamptz - interval '1 microsecond', $2)
), happenings (figure, at, priority, agent) AS (
    SELECT 'created', created_at, priority_word, assignment_agents[1] FROM facts
    UNION ALL
    SELECT 'resolved', unnest(resolution_times), priority_word, unnest(resolution_agents) FROM facts
    UNION ALL
    SELECT 'reopened', unnest(reopening_times), priority_word, unnest(reopening_agents) FROM facts
    UNION ALL
    SELECT 'closed', closed_at, priority_word, closing_agent FROM facts
    UNION ALL
    SELECT 'abandoned', closed_at, priority_word, closing_agent FROM facts WHERE NOT resolution_stands
    UNION ALL
    SELECT 'rated_' || unnest(ratings), unnest(rating_times), priority_word, unnest(rating_agents) FROM facts
    UNION ALL
    SELECT 'opening', before_end, priority_word, NULL
    FROM facts
    WHERE created_at <= before_start
        AND (closed_at IS NULL OR closed_at > before_start)
        AND width_bucket(before_start, resolution_times) <= width_bucket(before_start, reopening_times)
    UNION ALL
    SELECT 'backlog', before_end, priority_word, assignment_agents[width_bucket(before_end, assignment_times)]
    FROM facts
    WHERE created_at <= before_end
        AND (closed_at IS NULL OR closed_at > before_end)
        AND width_bucket(before_end, resolution_times) <= width_bucket(before_end, reopening_times)
), durations (figure, at, priority, agent, seconds) AS (
    SELECT
        'first_response_time'::text COLLATE "C", responded_at, priority_word, responder,
        date_part('epoch', responded_at - created_at)
    FROM facts
    UNION ALL
    SELECT
        'resolution_time', resolution_times[cardinality(resolution_times)], priority_word,
        resolution_agents[cardinality(resolution_agents)],
        date_part('epoch', resolution_times[cardinality(resolution_times)] - created_at)
    FROM facts
    WHERE resolution_stands
), counts AS (
    SELECT figure, date_bin($3, at, '2001-01-01Z') AS period, priority, agent, count(*) AS cases
    FROM happenings
    WHERE at >= $1 AND at < $2
    GROUP BY 1, 2, 3, 4
)
SELECT
    figure, period, priority, agent, sum(cases)::bigint AS cases,
    NULL::double precision AS median, NULL::double precision AS p90, NULL::double precision AS mean
FROM counts
GROUP BY GROUPING SETS ((figure), (figure, period), (figure, priority), (figure, agent))
HAVING grouping(agent) = 1 OR agent IS NOT NULL
UNION ALL
SELECT
    figure, period, priority, agent, count(*),
    percentile_cont(0.5) WITHIN GROUP (ORDER BY seconds),
    percentile_cont(0.9) WITHIN GROUP (ORDER BY seconds),
    avg(seconds)
FROM (SELECT *, date_bin($3, at, '2001-01-01Z') AS period FROM durations WHERE at >= $1 AND at < $2) AS within
GROUP BY GROUPING SETS ((figure), (figure, period), (figure, priority), (figure, agent))
HAVING grouping(agent) = 1 OR agent IS NOT NULL
""",
    ("start", "end", "period_length"),
)

# Works, and finds nothing, as soon as the schema is in place.
PROBE = compiled(select(ticket_facts.c.ticket_id).where(literal_column("false", Boolean)))
