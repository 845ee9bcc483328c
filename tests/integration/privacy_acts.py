"""The acts of PrivacyService, each with defaults."""

from server.domain.callers import Caller
from server.domain.privacy import Progress
from server.usecases import erasure, export
from server.usecases.export import Record
from server.usecases.lists import Page, PageRequest
from tests.integration.vocabulary import Desk, Turn, as_supervisor


async def erase(desk: Desk, user: Caller, by: Caller | None = None) -> Progress:
    """ErasePersonalData, by a supervisor unless `by` names somebody."""
    return await erasure.erase_personal_data(desk.on, by or as_supervisor(), user_id=str(user.id))


def export_of(desk: Desk, user: Caller, by: Caller | None = None) -> Turn[Record]:
    """ExportPersonalData, page by page, for a supervisor unless `by` names somebody."""
    caller = by or as_supervisor()

    async def turn(page: PageRequest) -> Page[Record]:
        return await export.export_personal_data(desk.on, caller, user_id=str(user.id), page=page)

    return turn
