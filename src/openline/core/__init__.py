"""The pure core: what a conversation is and what follows from what happens to it.

``Session.handle(input, now) -> Step(input, facts, effects, wake_at)`` and ``state = fold(facts)``. Standard
library only; no await, clock, randomness, logging or environment: time and ids come in as arguments.

Read in this order: ``inputs`` (what happened outside), ``facts`` (what is persisted), ``effects`` (what
shall be done), ``tables`` (the state machines), ``state`` (the fold), ``session`` (dispatch and replay);
then the decisions: ``lifecycle``, ``turns``, ``responses``, ``items``. ``floor`` is the second, volatile
family: it hears who speaks and only feeds inputs to the session.
"""
