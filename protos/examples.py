"""Worked examples of requests and answers, by call: one ticket's story, in the words of the contract."""

from protos.values import Node

_TICKET_ID = "0199f3a2-7c1e-7b44-9d2f-5a8c3e6b1d07"
_OWNER = "c0ffee00-6c1d-4f0e-9d7b-2f1a5e8b3c46"
_AGENT = "a9e47000-51b2-4c8d-8f3e-7d6c5b4a3928"
_COMMENT_ID = "0199f3a9-11d0-7e52-b1f4-c20a4d8e9f63"
_OPENED = "2026-11-24T17:08:13.250Z"
_TAKEN = "2026-11-24T17:10:02.117Z"
_SOLVED = "2026-11-24T17:31:40.008Z"

_NEW: Node = {
    "id": _TICKET_ID,
    "user_id": _OWNER,
    "order_id": "7e57d004-2b97-4e7a-b45f-5387367791cd",
    "subject": "The soup never came",
    "description": "The order says delivered, but nobody was at the door.",
    "status": "open",
    "priority": "high",
    "created_at": _OPENED,
    "updated_at": _OPENED,
    "version": 1,
    "sensitive_findings": [],
}
_ASSIGNED: Node = {**_NEW, "status": "in_progress", "assigned_to": _AGENT, "updated_at": _TAKEN, "version": 2}
_RESOLVED: Node = {
    **_ASSIGNED,
    "status": "resolved",
    "resolved_at": _SOLVED,
    "resolution_notes": "Refunded the soup.",
    "updated_at": _SOLVED,
    "version": 3,
}
_COMMENT: Node = {
    "id": _COMMENT_ID,
    "ticket_id": _TICKET_ID,
    "user_id": _OWNER,
    "comment": "I have been waiting for an hour.",
    "is_internal": False,
    "created_at": "2026-11-24T17:09:30.500Z",
    "author_role": "customer",
    "sensitive_findings": [],
}
_FLAGGED: Node = {**_ASSIGNED, "flagged_at": "2026-11-24T18:10:02.117Z"}
_CARD: Node = {"field": "description", "kind": "card_number", "start": 11, "length": 16}
_MASKED: Node = {
    **_ASSIGNED,
    "description": "My card is ************1111, charge it again.",
    "sensitive_findings": [_CARD],
}
_REVEALED: Node = {**_MASKED, "description": "My card is 4111111111111111, charge it again."}
_REVEALED_COMMENT: Node = {
    **_COMMENT,
    "comment": "The PIN of the gate is 4711.",
    "sensitive_findings": [{"field": "comment", "kind": "pin", "start": 23, "length": 4}],
}
_RATED: Node = {
    "ticket_id": _TICKET_ID,
    "rating": 5,
    "remark": "Quick and kind.",
    "resolved_by": _AGENT,
    "rated_at": "2026-11-24T17:40:00Z",
    "updated_at": "2026-11-24T17:40:00Z",
    "changeable_until": "2026-12-01T17:40:00Z",
    "sensitive_findings": [],
}
_ORDER: Node = {
    "id": "7e57d004-2b97-4e7a-b45f-5387367791cd",
    "customer_id": _OWNER,
    "restaurant_id": "4e57a04a-2b97-4e7a-b45f-5387367791cd",
    "driver_id": "d41be400-2b97-4e7a-b45f-5387367791cd",
    "status": "delivered",
    "placed_at": "2026-11-24T16:12:00Z",
    "items": [{"name": "Soup of the day", "quantity": 1, "price": {"currency": "EUR", "minor_units": 650}}],
    "total": {"currency": "EUR", "minor_units": 650},
    "history": [
        {"status": "placed", "at": "2026-11-24T16:12:00Z"},
        {"status": "delivered", "at": "2026-11-24T16:58:00Z"},
    ],
    "payment": {
        "method": "card",
        "state": "captured",
        "amount": {"currency": "EUR", "minor_units": 650},
        "card_last_four": "1111",
    },
    "delivery": {
        "recipient": "C. Offee",
        "address_lines": ["1 Bean Street", "10115 Berlin"],
        "delivered_at": "2026-11-24T16:58:00Z",
    },
}
_ORDER_NOW: Node = {
    "ticket_id": _TICKET_ID,
    "state": "current",
    "order_id": "7e57d004-2b97-4e7a-b45f-5387367791cd",
    "fetched_at": _TAKEN,
    "age_seconds": 0,
    "order": _ORDER,
    "owner_takes_part": True,
}
_REQUESTER: Node = {
    "ticket_id": _TICKET_ID,
    "user_id": _OWNER,
    "state": "known",
    "name": "C. Offee",
    "email": "c.offee@nibble.example",
}
_ON_THE_ROSTER: Node = {
    "id": _AGENT,
    "display_name": "Ada L.",
    "role": "support_agent",
    "tier": 1,
    "capacity": 20,
    "active": True,
    "availability": "available",
    "availability_since": "2026-11-24T08:00:00Z",
    "open_tickets": 1,
    "created_at": "2026-11-02T08:00:00Z",
    "updated_at": "2026-11-24T08:00:00Z",
}
_AWAY: Node = {
    **_ON_THE_ROSTER,
    "availability": "away",
    "away_until": "2026-11-30T08:00:00Z",
    "availability_since": "2026-11-24T17:00:00Z",
    "updated_at": "2026-11-24T17:00:00Z",
}
_OTHER_AGENT = "a9e47001-90aa-4d11-b7c2-1e2f3a4b5c6d"
_PAGE: Node = {"tickets": [_ASSIGNED], "next_page_token": "kzR2ZDXJt0qv0YfXw1lq3Q"}
_LAST_PAGE: Node = {"tickets": [_RESOLVED], "next_page_token": ""}
_CREATED: Node = {
    "event_id": "0199f3a2-7c1e-7c09-8a77-1b2e94d0c5aa",
    "event_type": "ticket_created",
    "ticket_id": _TICKET_ID,
    "sequence": 1,
    "change_id": "0199f3a2-7c1e-7d31-a5c6-6e0f18b7d942",
    "occurred_at": _OPENED,
    "actor": {"user_id": _OWNER, "role": "customer"},
    "is_internal": False,
}
_TAKEN_UP: Node = {
    "event_id": "0199f3a4-2635-7a10-9c3b-64d1f0a2b7e8",
    "event_type": "ticket_assigned",
    "ticket_id": _TICKET_ID,
    "sequence": 2,
    "change_id": "0199f3a4-2635-7a10-8d42-0b9e5c7f1a36",
    "occurred_at": _TAKEN,
    "actor": {"user_id": _AGENT, "role": "support_agent"},
    "is_internal": False,
    "assigned_to": _AGENT,
    "reason": "self_assigned",
}

_NOTIFICATION: Node = {
    "id": "0199f3a4-2701-7c55-b0d4-3f9e8a7c6b15",
    "type": "ticket_assigned",
    "ticket_id": _TICKET_ID,
    "subject": "The soup never came",
    "priority": "high",
    "status": "in_progress",
    "actor": {"user_id": _AGENT, "role": "support_agent"},
    "change_id": "0199f3a4-2635-7a10-8d42-0b9e5c7f1a36",
    "occurred_at": _TAKEN,
    "created_at": "2026-11-24T17:10:02.337Z",
}
_QUIET: Node = {"muted_channels": ["email"], "muted_types": ["ticket_status_changed"]}
_METRICS: Node = {
    "created": 1,
    "resolved": 1,
    "closed": 0,
    "reopened": 0,
    "backlog": 0,
    "first_response_time": {"count": 0},
    "resolution_time": {
        "count": 1,
        "median_seconds": 1406.758,
        "p90_seconds": 1406.758,
        "mean_seconds": 1406.758,
    },
    "satisfaction": {
        "count": 1,
        "average": 5,
        "ratings": [*({"rating": rating, "count": 0} for rating in range(1, 5)), {"rating": 5, "count": 1}],
    },
}
_NO_METRICS: Node = {
    "created": 0,
    "resolved": 0,
    "closed": 0,
    "reopened": 0,
    "backlog": 0,
    "first_response_time": {"count": 0},
    "resolution_time": {"count": 0},
    "satisfaction": {"count": 0, "ratings": [{"rating": rating, "count": 0} for rating in range(1, 6)]},
}

# By call and by what the example shows.
REQUESTS: dict[str, dict[str, Node]] = {
    "CreateTicket": {
        "a report": {
            "subject": "The soup never came",
            "description": "The order says delivered, but nobody was at the door.",
        },
        "a report about an order": {
            "subject": "The soup never came",
            "description": "The order says delivered, but nobody was at the door.",
            "order_id": "7e57d004-2b97-4e7a-b45f-5387367791cd",
            "priority": "high",
        },
        "a report for a user, by staff or a service": {
            "subject": "Called in: the soup never came",
            "description": "The customer called; the driver can't be reached.",
            "user_id": _OWNER,
        },
    },
    "UpdateTicketStatus": {
        "work begins": {"status": "in_progress"},
        "an answer was found": {"status": "resolved", "resolution_notes": "Refunded the soup."},
        "the owner closes it, as it was last seen": {"status": "closed", "expected_version": 3},
    },
    "AssignTicket": {
        "to whoever is free": {"assigned_to": _AGENT},
        "unless somebody was faster": {"assigned_to": _AGENT, "expected_version": 1},
    },
    "AddComment": {
        "a public comment": {"comment": "I have been waiting for an hour."},
        "an internal note, by staff": {"comment": "The driver's phone is off.", "is_internal": True},
    },
    "RevealTicket": {"what was masked": {}},
    "RevealComment": {"what was masked": {}},
    "RateTicket": {
        "content": {"rating": 5, "remark": "Quick and kind."},
        "not content, without a word": {"rating": 2},
    },
    "SetAgent": {
        "somebody new": {"display_name": "Ada L."},
        "somebody who can bear more": {"display_name": "Ada L.", "tier": 2, "capacity": 40},
        "somebody who has left": {"display_name": "Ada L.", "active": False},
    },
    "SetAgentAvailability": {
        "back at work": {"availability": "available"},
        "away over the week-end": {"availability": "away", "away_until": "2099-11-30T08:00:00Z"},
    },
    "ReassignTickets": {
        "all of one staff member, to whoever has room": {"from_agent": _AGENT},
        "one, to somebody": {"ticket_ids": [_TICKET_ID], "assigned_to": _OTHER_AGENT},
    },
    "ErasePersonalData": {"all of it": {}},
    "ExportPersonalData": {"the first page": {}, "pages of a hundred records": {"page_size": 100}},
    "MarkNotificationsRead": {
        "one that was looked at": {"notification_ids": [_NOTIFICATION["id"]]},
        "all up to the newest on the screen": {"up_to_id": _NOTIFICATION["id"]},
    },
    "UpdateNotificationPreferences": {
        "no e-mails, and nothing about changes of status": _QUIET,
        "everything again": {"muted_channels": [], "muted_types": []},
    },
}

ANSWERS: dict[str, dict[str, Node]] = {
    "CreateTicket": {"the new ticket": _NEW},
    "ListTickets": {"a page": _PAGE, "the last page": _LAST_PAGE},
    "ListMyTickets": {"a page": _PAGE, "the last page": _LAST_PAGE},
    "ListAssignedTickets": {"a page": _PAGE, "the last page": _LAST_PAGE},
    "GetTicket": {"a ticket": _ASSIGNED, "a ticket in which something was masked": _MASKED},
    "UpdateTicketStatus": {"the ticket, resolved": _RESOLVED},
    "AssignTicket": {"the ticket, assigned": _ASSIGNED},
    "ListTicketHistory": {"the last page": {"entries": [_CREATED, _TAKEN_UP], "next_page_token": ""}},
    "AddComment": {"the new comment": _COMMENT},
    "ListComments": {"the last page": {"comments": [_COMMENT], "next_page_token": ""}},
    "GetTicketOrder": {
        "the order": _ORDER_NOW,
        "not known so far": {
            "ticket_id": _TICKET_ID,
            "state": "pending",
            "order_id": "7e57d004-2b97-4e7a-b45f-5387367791cd",
        },
    },
    "GetTicketRequester": {"the owner": _REQUESTER},
    "RevealTicket": {"the ticket as it was written": _REVEALED},
    "RateTicket": {"the feedback": _RATED},
    "GetTicketFeedback": {"the feedback": _RATED},
    "ListUnattendedTickets": {"the last page": {"tickets": [_FLAGGED], "next_page_token": ""}},
    "RevealComment": {"the comment as it was written": _REVEALED_COMMENT},
    "SetAgent": {"the entry": _ON_THE_ROSTER},
    "GetAgent": {"the entry": _ON_THE_ROSTER},
    "ListAgents": {"the last page": {"agents": [_ON_THE_ROSTER], "next_page_token": ""}},
    "SetAgentAvailability": {"somebody away": _AWAY},
    "ReassignTickets": {
        "one was moved": {
            "results": [{"ticket_id": _TICKET_ID, "assigned_to": _OTHER_AGENT, "reassigned": True}],
            "more": False,
        },
        "one could not be moved": {
            "results": [
                {
                    "ticket_id": _TICKET_ID,
                    "reassigned": False,
                    "reason": "NO_AGENT_AVAILABLE",
                    "message": "nobody who is available has capacity to spare",
                }
            ],
            "more": False,
        },
    },
    "ErasePersonalData": {"done": {"finished": True, "erased_tickets": 1}},
    "ExportPersonalData": {
        "the last page": {
            "records": [
                {"ticket": _RESOLVED, "feedback": _RATED, "order": _ORDER_NOW},
                {"comment": _COMMENT},
                {"history_entry": _CREATED},
            ],
            "next_page_token": "",
        }
    },
    "ListNotifications": {
        "the last page": {"notifications": [_NOTIFICATION], "unread_count": 1, "next_page_token": ""}
    },
    "GetUnreadCount": {"one is unread": {"unread_count": 1}},
    "MarkNotificationsRead": {"none is left": {"unread_count": 0}},
    "StreamNotifications": {
        "a notification": {"notification": _NOTIFICATION, "unread_count": 1, "sent_at": "2026-11-24T17:10:02.341Z"},
        "a sign of life": {"unread_count": 1, "sent_at": "2026-11-24T17:10:17.341Z"},
    },
    "GetNotificationPreferences": {"what is muted": _QUIET},
    "UpdateNotificationPreferences": {"what is muted now": _QUIET},
    "GetSupportMetrics": {
        "one day": {
            "total": _METRICS,
            "periods": [
                {
                    "start_time": "2026-11-24T00:00:00Z",
                    "end_time": "2026-11-25T00:00:00Z",
                    "metrics": _METRICS,
                }
            ],
            "priorities": [
                {"priority": "urgent", "metrics": _NO_METRICS},
                {"priority": "high", "metrics": _METRICS},
                {"priority": "medium", "metrics": _NO_METRICS},
                {"priority": "low", "metrics": _NO_METRICS},
            ],
            "agents": [{"agent_id": _AGENT, "metrics": _METRICS}],
        }
    },
}
