"""AnalyticsService: the fields to the use case, and the report back."""

from google.protobuf import timestamp_pb2
from google.protobuf.message import Message
from nibble.analytics.v1 import analytics_service_pb2 as pb
from nibble.analytics.v1 import support_metrics_pb2
from nibble.support.v1 import ticket_pb2

from server.analytics import reports
from server.analytics.reports import Interval, Metrics, Report, Satisfaction, Statistics
from server.api.boundary import Call, Method
from server.db.database import Database

_PRIORITY = dict(ticket_pb2.Ticket.Priority.items())
# Not said: days. A number that has no name is none that the use case knows.
_INTERVAL: dict[int, str] = {
    number: word if number else Interval.DAY for word, number in pb.GetSupportMetricsRequest.Interval.items()
}


class AnalyticsServicer:
    """The call of `nibble.analytics.v1.AnalyticsService`; the proto's comments say what it does."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def methods(self) -> dict[str, Method]:
        """The calls by their names in the proto."""
        return {"GetSupportMetrics": self.get_support_metrics}

    async def get_support_metrics(self, request: pb.GetSupportMetricsRequest, _call: Call) -> Message:
        """`GetSupportMetrics`."""
        start = _moment(request.start_time) if request.HasField("start_time") else None
        end = _moment(request.end_time) if request.HasField("end_time") else None
        return report_message(await reports.get_support_metrics(self._db, start, end, _INTERVAL.get(request.interval)))


def _moment(time: timestamp_pb2.Timestamp) -> reports.Time:
    return time.seconds, time.nanos


def report_message(report: Report) -> pb.SupportMetrics:
    """The answer; protobuf takes a datetime for a Timestamp, which the generated stubs don't know yet."""
    return pb.SupportMetrics(
        total=_metrics(report.total),
        periods=[
            support_metrics_pb2.PeriodMetrics(
                start_time=period.start,  # type: ignore[arg-type]
                end_time=period.end,  # type: ignore[arg-type]
                metrics=_metrics(period.metrics),
            )
            for period in report.periods
        ],
        priorities=[
            support_metrics_pb2.PriorityMetrics(priority=_PRIORITY[priority], metrics=_metrics(metrics))
            for priority, metrics in report.priorities.items()
        ],
        agents=[
            support_metrics_pb2.AgentMetrics(agent_id=str(agent), metrics=_metrics(metrics))
            for agent, metrics in report.agents.items()
        ],
    )


def _metrics(metrics: Metrics) -> support_metrics_pb2.Metrics:
    return support_metrics_pb2.Metrics(
        created=metrics.created,
        resolved=metrics.resolved,
        closed=metrics.closed,
        reopened=metrics.reopened,
        backlog=metrics.backlog,
        first_response_time=_statistics(metrics.first_response_time),
        resolution_time=_statistics(metrics.resolution_time),
        satisfaction=_satisfaction(metrics.satisfaction),
    )


def _satisfaction(satisfaction: Satisfaction) -> support_metrics_pb2.Satisfaction:
    return support_metrics_pb2.Satisfaction(
        count=satisfaction.cases,
        average=_to_the_thousandth(satisfaction.average),
        ratings=[
            support_metrics_pb2.RatingCount(rating=rating, count=count)
            for rating, count in enumerate(satisfaction.ratings, 1)
        ],
    )


def _statistics(statistics: Statistics) -> support_metrics_pb2.DurationStatistics:
    return support_metrics_pb2.DurationStatistics(
        count=statistics.cases,
        median_seconds=_to_the_thousandth(statistics.median),
        p90_seconds=_to_the_thousandth(statistics.p90),
        mean_seconds=_to_the_thousandth(statistics.mean),
    )


def _to_the_thousandth(value: float | None) -> float | None:
    """No finer: what follows would be the arithmetic's, not the tickets'."""
    return None if value is None else round(value, 3)
