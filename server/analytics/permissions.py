"""Who may ask for a report."""

from server.domain.callers import Role

MAY_CALL: dict[str, frozenset[Role]] = {
    "AnalyticsService.GetSupportMetrics": frozenset({Role.SUPPORT_SUPERVISOR}),
}
