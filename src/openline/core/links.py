"""The model link as the session sees it: asked for, and refused for good."""

from __future__ import annotations

from openline.core import effects as e
from openline.core import facts as f
from openline.core.draft import Draft
from openline.core.model import Problem

BACKOFF_FIRST_MS = 250
BACKOFF_MAX_MS = 8_000
LINK_ATTEMPTS_MAX = 8
"""Quick failures of a link in a row before it counts as refused (about half a minute of backoff)."""
LINK_PROVEN_MS = 30_000
"""A link that was open for so long has proved healthy, also if nobody said a word over it."""
REFUSED_MS = 5_000
"""After a refusal for good nothing is asked of the provider for so long, whoever asks for replies."""


def request_link(draft: Draft, attempt: int = 1) -> None:
    state = draft.state
    if state.link.phase != "closed":
        return
    epoch = state.link.epoch + 1
    delay = 0 if attempt == 1 else min(BACKOFF_FIRST_MS << (attempt - 2), BACKOFF_MAX_MS)
    draft.fact(f.LinkRequested(epoch, attempt))
    draft.effect(e.OpenLink(epoch, delay))


def refusal(draft: Draft) -> Problem | None:
    """Why a reply that is asked for now cannot be had: the link was refused for good a moment ago. None: it may
    be had. A refusal that is older is worth another try, for somebody may have put it right (a key, a quota)."""
    link = draft.state.link
    if not link.refused or draft.elapsed_ms(link.changed_ns) >= REFUSED_MS:
        return None
    return link_problem(link.refused, link.why, is_permanent=True)


def link_problem(code: str, why: str, *, is_permanent: bool) -> Problem:
    """What clients are told of a link that ended: the cause, not where the provider is or what it wrote."""
    cause = f" ({why})" if why else ""
    message = f"The connection to the model was lost{cause}."
    if is_permanent:
        message = f"The model cannot be reached{cause}. Put that right, then ask again."
    return Problem(code, message, "server_error")
