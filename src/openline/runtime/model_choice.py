"""One language model out of several ways to reach it: the first that the server offers. And what not all of them can."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from openline.core.model import Item
from openline.errors import LinkNotOffered
from openline.ports import NOT_OFFERED, LanguageModel, ModelEvent, ModelRequest, SteerableModel, SteerAnswer

log = logging.getLogger(__name__)


async def steer(model: LanguageModel, request: ModelRequest, items: tuple[Item, ...]) -> SteerAnswer:
    """``SteerableModel.steer``, of a model that may not have it."""
    return await model.steer(request, items) if isinstance(model, SteerableModel) else NOT_OFFERED


class FirstOffered:
    """Port ``LanguageModel``. Tries ``models`` in order at the first request; what is not offered is left out.

    A model that fails for any other reason is not passed over: a wrong key is wrong for all of them.
    """

    def __init__(self, models: Sequence[LanguageModel]) -> None:
        assert models, "at least one"
        self._models = list(models)

        self.name = models[0].name

    async def start(self) -> None:
        for model in self._models:
            await model.start()

    async def close(self) -> None:
        for model in self._models:
            await model.close()

    async def steer(self, request: ModelRequest, items: tuple[Item, ...]) -> SteerAnswer:
        return await steer(self._models[0], request, items)

    async def generate(self, request: ModelRequest) -> AsyncGenerator[ModelEvent, None]:
        """Raises LinkNotOffered when the server offers none of them."""
        while True:
            model = self._models[0]
            try:
                async with aclosing(model.generate(request)) as events:
                    async for event in events:
                        yield event
                return
            except LinkNotOffered as error:
                if model is self._models[0]:
                    if len(self._models) == 1:
                        raise
                    await self._models.pop(0).close()  # It has no socket: nobody was let in.
                    self.name = self._models[0].name
                    log.info("%s Trying %s.", error.message, self._models[0].name)
