"""What a field's comment says about its values, for machines: lengths, patterns, formats, defaults, examples."""

from collections.abc import Mapping, Sequence
from typing import TypeAlias

from google.protobuf.descriptor_pb2 import FieldDescriptorProto

Json: TypeAlias = "str | int | float | bool | Sequence[Json] | Mapping[str, Json]"
Node: TypeAlias = dict[str, Json]

# A text begins with any blanks, has a character that is none, and holds no control characters but newlines and tabs.
# That order, and not "blanks somewhere", so that no reader of the pattern ever has to go back in a long text.
_CONTROLS = r"\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f-\u009f"
_SPACES = r"\t\n\r \u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
_FILLERS = r"\u115f\u1160\u2800\u3164\uffa0"
# Format characters, which print nothing. Beyond U+FFFF as themselves: dialects differ in how they escape these.
_FORMATS = (
    r"\u00ad\u0600-\u0605\u061c\u06dd\u070f\u0890\u0891\u08e2\u180e\u200b-\u200f\u202a-\u202e\u2060-\u2064\u2066-\u206f\ufeff\ufff9-\ufffb"
    "\U000110bd\U000110cd\U00013430-\U0001343f\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0001\U000e0020-\U000e007f"
)
_BLANKS = _SPACES + _FILLERS + _FORMATS
TEXT = f"^[{_BLANKS}]*[^{_BLANKS}{_CONTROLS}][^{_CONTROLS}]*$"

UUID = "^[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}$"
VISIBLE_ASCII = r"^[\u0021-\u007e]+$"
PAGE_TOKEN = "^[A-Za-z0-9_-]*$"  # noqa: S105 - its alphabet
# RFC 3339, of which upper-case letters, years from 1 on, nine digits of a second and no leap seconds are taken.
MOMENT = (
    "^(000[1-9]|00[1-9][0-9]|0[1-9][0-9]{2}|[1-9][0-9]{3})-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])"
    r"T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\.[0-9]{1,9})?(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])$"
)


def _text(longest: int, example: str) -> Node:
    return {"minLength": 1, "maxLength": longest, "pattern": TEXT, "examples": [example]}


def _uuid(example: str = "0199f3a2-7c1e-7b44-9d2f-5a8c3e6b1d07") -> Node:
    return {"format": "uuid", "pattern": UUID, "examples": [example]}


# A field name means the same in every message.
VALUES: dict[str, Node] = {
    "subject": _text(200, "The soup never came"),
    "description": _text(10_000, "The order says delivered, but nobody was at the door."),
    "comment": _text(10_000, "I have been waiting for an hour."),
    "resolution_notes": _text(10_000, "Refunded the soup."),
    "id": _uuid(),
    "ticket_id": _uuid(),
    "comment_id": _uuid("0199f3a9-11d0-7e52-b1f4-c20a4d8e9f63"),
    "event_id": _uuid("0199f3a2-7c1e-7c09-8a77-1b2e94d0c5aa"),
    "change_id": _uuid("0199f3a2-7c1e-7d31-a5c6-6e0f18b7d942"),
    "order_id": _uuid("7e57d004-2b97-4e7a-b45f-5387367791cd"),
    "notification_ids": _uuid("0199f3a4-2701-7c55-b0d4-3f9e8a7c6b15"),
    "up_to_id": _uuid("0199f3a4-2701-7c55-b0d4-3f9e8a7c6b15"),
    "after_id": _uuid("0199f3a4-2701-7c55-b0d4-3f9e8a7c6b15"),
    "agent_id": _uuid("a9e47000-51b2-4c8d-8f3e-7d6c5b4a3928"),
    "user_id": _uuid("c0ffee00-6c1d-4f0e-9d7b-2f1a5e8b3c46"),
    "assigned_to": _uuid("a9e47000-51b2-4c8d-8f3e-7d6c5b4a3928"),
    "previous_assignee": _uuid("a9e47001-90aa-4d11-b7c2-1e2f3a4b5c6d"),
    "ticket_ids": _uuid(),
    "from_agent": _uuid("a9e47000-51b2-4c8d-8f3e-7d6c5b4a3928"),
    "erased_user_id": _uuid("c0ffee00-6c1d-4f0e-9d7b-2f1a5e8b3c46"),
    "resolved_by": _uuid("a9e47000-51b2-4c8d-8f3e-7d6c5b4a3928"),
    "customer_id": _uuid("c0ffee00-6c1d-4f0e-9d7b-2f1a5e8b3c46"),
    "restaurant_id": _uuid("4e57a04a-2b97-4e7a-b45f-5387367791cd"),
    "driver_id": _uuid("d41be400-2b97-4e7a-b45f-5387367791cd"),
    "priority": {"default": "medium"},
    "remark": _text(2_000, "Quick and kind."),
    "display_name": _text(200, "Ada L."),
    "rating": {"minimum": 1, "maximum": 5, "examples": [5]},
    "tier": {"minimum": 1, "maximum": 5, "default": 1, "examples": [1]},
    "capacity": {"minimum": 0, "maximum": 1_000, "default": 20, "examples": [20]},
    "active": {"default": True},
    "with_inactive": {"default": False},
    "only_flagged": {"default": False},
    "is_internal": {"default": False},
    "unassigned": {"default": False},
    "unread_only": {"default": False},
    "interval": {"default": "day"},
    "start_time": {"examples": ["2026-11-24T00:00:00Z"]},
    "end_time": {"examples": ["2026-11-25T00:00:00Z"]},
    "page_size": {"minimum": 0, "default": 20, "examples": [50]},
    "page_token": {"pattern": PAGE_TOKEN, "default": ""},
    "next_page_token": {"pattern": PAGE_TOKEN},
    "expected_version": {"minimum": 1, "examples": [1]},
    "version": {"minimum": 1, "examples": [1]},
    "sequence": {"minimum": 1, "examples": [1]},
    "start": {"minimum": 0, "examples": [12]},
    "length": {"minimum": 1, "examples": [16]},
}

# How many values a repeated field takes; what VALUES has under its name is about each of them.
ARRAYS: dict[str, Node] = {
    "notification_ids": {"maxItems": 100},
    "ticket_ids": {"maxItems": 100, "uniqueItems": True},
}

SCALARS: dict[int, Node] = {
    FieldDescriptorProto.TYPE_STRING: {"type": "string"},
    FieldDescriptorProto.TYPE_BOOL: {"type": "boolean"},
    FieldDescriptorProto.TYPE_DOUBLE: {"type": "number", "format": "double", "minimum": 0},
    FieldDescriptorProto.TYPE_INT32: {"type": "integer", "format": "int32", "maximum": 2**31 - 1},
}
TIMESTAMP: Node = {
    "type": "string",
    "format": "date-time",
    "pattern": MOMENT,
    "examples": ["2026-11-24T17:08:13.250Z"],
}

# What a field's value means for the others of the same message.
TOGETHER: dict[str, Node] = {
    "UpdateTicketStatusRequest": {
        "dependentSchemas": {"resolution_notes": {"properties": {"status": {"const": "resolved"}}}}
    },
    "SetAgentRequest": {"allOf": [{"properties": {"role": {"enum": ["support_agent", "support_supervisor"]}}}]},
    "SetAgentAvailabilityRequest": {
        "dependentSchemas": {"away_until": {"properties": {"availability": {"const": "away"}}}}
    },
    # An empty array is none, to protobuf.
    "ReassignTicketsRequest": {
        "oneOf": [
            {"required": ["ticket_ids"], "properties": {"ticket_ids": {"minItems": 1}, "from_agent": False}},
            {"required": ["from_agent"], "properties": {"ticket_ids": {"maxItems": 0}}},
        ]
    },
    "MarkNotificationsReadRequest": {
        "oneOf": [
            {
                "required": ["notification_ids"],
                "properties": {"notification_ids": {"minItems": 1}, "up_to_id": False},
            },
            {"required": ["up_to_id"], "properties": {"notification_ids": {"maxItems": 0}}},
        ]
    },
}
