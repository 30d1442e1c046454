"""Several things at once: none goes on when one fails, or when nobody waits any more."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from animation_studio.llm.together import together


class Works:
    """Coroutines that say when they began and how they ended."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.ended: list[str] = []
        self.go = asyncio.Event()
        self.released = asyncio.Event()

    async def waits(self, name: str) -> str:
        self.begun.append(name)
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            await asyncio.sleep(0)  # what ends takes a moment
            self.ended.append(f"{name} cancelled")
            raise
        self.ended.append(name)
        return name

    async def fails(self, name: str) -> str:
        self.begun.append(name)
        await asyncio.sleep(0)
        raise ValueError(name)

    async def lingers(self, name: str) -> str:
        """Ends only when it is released."""
        try:
            await self.go.wait()
        finally:
            await self.released.wait()
            self.ended.append(name)
        return name

    async def stubborn(self, name: str) -> str:
        """Takes several turns of the loop to end, whatever happens."""
        self.begun.append(name)
        try:
            await self.go.wait()
        finally:
            for _ in range(5):
                await asyncio.sleep(0)
            self.ended.append(name)
        return name


def run(work: Coroutine[Any, Any, None]) -> None:
    """Run a test on a loop that reports errors nobody looked at."""
    forgotten: list[str] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: forgotten.append(str(context["message"])))
        await work
        left = asyncio.all_tasks() - {asyncio.current_task()}
        assert not left, "nothing goes on by itself"

    asyncio.run(main())
    assert forgotten == []


def test_results_come_in_order_and_all_at_once():
    async def test() -> None:
        works = Works()
        both = asyncio.ensure_future(together([works.waits("a"), works.waits("b")]))
        await asyncio.sleep(0.01)
        assert works.begun == ["a", "b"]
        works.go.set()
        assert await both == ["a", "b"]
        assert await together([]) == []

    run(test())


def test_the_first_error_ends_the_others_before_it_is_raised():
    async def test() -> None:
        works = Works()
        with pytest.raises(ValueError, match="b"):
            await together(
                [works.waits("a"), works.fails("b"), works.fails("c"), works.stubborn("d")]
            )
        assert sorted(works.ended) == ["a cancelled", "d"]

    run(test())


def test_a_cancellation_ends_all_and_waits_for_them():
    async def test() -> None:
        works = Works()
        both = asyncio.ensure_future(together([works.waits("a"), works.stubborn("b")]))
        await asyncio.sleep(0.01)
        both.cancel()
        with pytest.raises(asyncio.CancelledError):
            await both
        assert sorted(works.ended) == ["a cancelled", "b"]

    run(test())


def test_a_cancellation_while_others_end_is_not_lost():
    async def test() -> None:
        works = Works()
        both = asyncio.ensure_future(together([works.fails("a"), works.lingers("b")]))
        for _ in range(2):
            await asyncio.sleep(0.01)
            assert not both.done(), "it waits for the one that ends"
            both.cancel()
        await asyncio.sleep(0.01)
        assert not both.done()
        works.released.set()
        with pytest.raises(asyncio.CancelledError):
            await both
        assert works.ended == ["b"]

    run(test())


def test_one_that_is_cancelled_from_outside_is_a_cancellation():
    async def test() -> None:
        works = Works()

        async def gives_up() -> str:
            raise asyncio.CancelledError

        works.go.set()
        with pytest.raises(asyncio.CancelledError):
            await together([gives_up(), works.waits("b")])
        assert works.ended == ["b"]

    run(test())
