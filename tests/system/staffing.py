"""More words of the system tests: the roster."""

from typing import Any

from tests.system.doors import Caller, Door, Json
from tests.system.stage import Stage
from tests.system.vocabulary import as_supervisor


def empty_roster(stage: Stage) -> None:
    """Nobody is on it any more: whom the service chooses depends on all who are, also on those of other tests."""
    stage.query("DELETE FROM admin_service.agents RETURNING id")


def hire(door: Door, agent: Caller, **fields: Json) -> dict[str, Any]:
    """Their entry of the roster, new or changed."""
    entry = {"display_name": "Ada", "role": agent.role, **fields}
    return door.call("SetAgent", as_supervisor(), agent_id=agent.id, **entry).resource


def set_off(door: Door, agent: Caller, availability: str = "away", **fields: Json) -> dict[str, Any]:
    """Their entry of the roster with what they say of themselves."""
    return door.call("SetAgentAvailability", agent, agent_id=agent.id, availability=availability, **fields).resource
