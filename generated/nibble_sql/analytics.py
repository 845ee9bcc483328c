"""Written by `make generate` from server/analytics/compositions.py, which explains each statement."""

from server.db.statement import Sharing, Statement

KEEP_EVENTS = Statement(
    """INSERT INTO analytics_service.ticket_events (ticket_id, sequence, occurred_at, created_at, priority, status, assigned_to, resolved_at, responder, rating) SELECT anon_1.ticket_id, anon_1.sequence, anon_1.occurred_at, anon_1.created_at, anon_1.priority, anon_1.status, anon_1.assigned_to, anon_1.resolved_at, anon_1.responder, anon_1.rating 
FROM unnest($1::UUID[], $2::INTEGER[], $3::TIMESTAMP WITH TIME ZONE[], $4::TIMESTAMP WITH TIME ZONE[], $5::TEXT[], $6::TEXT[], $7::UUID[], $8::TIMESTAMP WITH TIME ZONE[], $9::UUID[], $10::INTEGER[]) AS anon_1(ticket_id, sequence, occurred_at, created_at, priority, status, assigned_to, resolved_at, responder, rating) ON CONFLICT (ticket_id, sequence) DO UPDATE SET occurred_at = excluded.occurred_at, created_at = excluded.created_at, priority = excluded.priority, status = excluded.status, assigned_to = excluded.assigned_to, resolved_at = excluded.resolved_at, responder = excluded.responder, rating = excluded.rating""",
    ('ticket_id', 'sequence', 'occurred_at', 'created_at', 'priority', 'status', 'assigned_to', 'resolved_at', 'responder', 'rating'),
    Sharing.NONE,
)

LIST_EVENTS_OF_TICKETS = Statement(
    """SELECT analytics_service.ticket_events.ticket_id, analytics_service.ticket_events.sequence, analytics_service.ticket_events.occurred_at, analytics_service.ticket_events.created_at, analytics_service.ticket_events.priority, analytics_service.ticket_events.status, analytics_service.ticket_events.assigned_to, analytics_service.ticket_events.resolved_at, analytics_service.ticket_events.responder, analytics_service.ticket_events.rating 
FROM analytics_service.ticket_events 
WHERE analytics_service.ticket_events.ticket_id = ANY ($1::UUID[]) ORDER BY analytics_service.ticket_events.ticket_id""",
    ('ticket_ids',),
    Sharing.NONE,
)

PUT_FACT = Statement(
    """INSERT INTO analytics_service.ticket_facts (ticket_id, created_at, priority, settled_at, responded_at, responder, assignment_times, assignment_agents, resolution_times, resolution_agents, reopening_times, reopening_agents, resolution_stands, closed_at, closing_agent, rating_times, rating_agents, ratings) VALUES ($1::UUID, $2::TIMESTAMP WITH TIME ZONE, $3::VARCHAR, $4::TIMESTAMP WITH TIME ZONE, $5::TIMESTAMP WITH TIME ZONE, $6::UUID, $7::TIMESTAMP WITH TIME ZONE[], $8::UUID[], $9::TIMESTAMP WITH TIME ZONE[], $10::UUID[], $11::TIMESTAMP WITH TIME ZONE[], $12::UUID[], $13, $14::TIMESTAMP WITH TIME ZONE, $15::UUID, $16::TIMESTAMP WITH TIME ZONE[], $17::UUID[], $18::INTEGER[]) ON CONFLICT (ticket_id) DO UPDATE SET created_at = excluded.created_at, priority = excluded.priority, settled_at = excluded.settled_at, responded_at = excluded.responded_at, responder = excluded.responder, assignment_times = excluded.assignment_times, assignment_agents = excluded.assignment_agents, resolution_times = excluded.resolution_times, resolution_agents = excluded.resolution_agents, reopening_times = excluded.reopening_times, reopening_agents = excluded.reopening_agents, resolution_stands = excluded.resolution_stands, closed_at = excluded.closed_at, closing_agent = excluded.closing_agent, rating_times = excluded.rating_times, rating_agents = excluded.rating_agents, ratings = excluded.ratings""",
    ('ticket_id', 'created_at', 'priority', 'settled_at', 'responded_at', 'responder', 'assignment_times', 'assignment_agents', 'resolution_times', 'resolution_agents', 'reopening_times', 'reopening_agents', 'resolution_stands', 'closed_at', 'closing_agent', 'rating_times', 'rating_agents', 'ratings'),
    Sharing.NONE,
)

LOCK_FACTS = Statement(
    """SELECT analytics_service.ticket_facts.ticket_id 
FROM analytics_service.ticket_facts 
WHERE analytics_service.ticket_facts.ticket_id > $1::UUID ORDER BY analytics_service.ticket_facts.ticket_id 
 LIMIT $2::INTEGER FOR UPDATE""",
    ('after', 'limit'),
    Sharing.NONE,
)

GENERATION = Statement(
    """SELECT max(analytics_service.generations.number) AS max_1 
FROM analytics_service.generations""",
    (),
    Sharing.NONE,
)

BEGIN_GENERATION = Statement(
    """INSERT INTO analytics_service.generations (number, begun_at) SELECT max(analytics_service.generations.number) + 1 AS anon_1, $1::TIMESTAMP WITH TIME ZONE AS anon_2 
FROM analytics_service.generations RETURNING analytics_service.generations.number""",
    ('now',),
    Sharing.NONE,
)

LOCK_TABLES = Statement(
    """
LOCK TABLE analytics_service.consumed_events, analytics_service.generations, analytics_service.ticket_events,
    analytics_service.ticket_facts IN ACCESS EXCLUSIVE MODE
""",
    (),
    Sharing.NONE,
)

FORGET_CONSUMED = Statement(
    """TRUNCATE analytics_service.consumed_events""",
    (),
    Sharing.NONE,
)

FORGET_EVERYTHING = Statement(
    """TRUNCATE analytics_service.consumed_events, analytics_service.ticket_events, analytics_service.ticket_facts""",
    (),
    Sharing.NONE,
)

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
    ('start', 'end', 'period_length'),
    Sharing.NONE,
)

PROBE = Statement(
    """SELECT analytics_service.ticket_facts.ticket_id 
FROM analytics_service.ticket_facts 
WHERE false""",
    (),
    Sharing.NONE,
)
