"""Bounded queues between the stages of a stream: a file waits for its reader, a live source drops what is late."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from threading import Condition
from typing import Generic, TypeVar

Item = TypeVar("Item")


class Channel(Generic[Item]):
    """Queues of several senders with one receiver, which takes turns between them.

    Args:
        dropping: for each sender, whether a full queue loses its oldest item; the sender waits otherwise.
        capacity: of each queue.

    Attributes:
        dropped: items that each sender lost.
    """

    def __init__(self, dropping: Sequence[bool], capacity: int) -> None:
        self._dropping = tuple(dropping)
        self._capacity = capacity
        self._queues: list[deque[Item]] = [deque() for _ in dropping]
        self._open = [True] * len(self._queues)
        # The queue that is looked at first; kept between calls, so that no sender is always the first of a batch.
        self._next = 0
        # One condition for all: who waits for room and who waits for items is woken alike, hence notify_all everywhere.
        self._changed = Condition()
        self.dropped = [0] * len(self._queues)

    def send(self, item: Item, sender: int = 0) -> bool:
        """Append an item; return whether the channel still takes items."""
        queue = self._queues[sender]
        with self._changed:
            # Abandoning closes the sender as well, so that one that waits for room ends.
            while self._open[sender] and len(queue) >= self._capacity and not self._dropping[sender]:
                self._changed.wait()
            if not self._open[sender]:
                return False
            if len(queue) >= self._capacity:
                # The oldest goes: a frame from a camera is worth less the older it is.
                queue.popleft()
                self.dropped[sender] += 1
            queue.append(item)
            self._changed.notify_all()
        return True

    def receive(self, most: int = 1, timeout_s: float | None = None) -> list[Item]:
        """Return up to ``most`` items, in turns; wait for the first. Nothing: all senders are done, or time is up."""
        with self._changed:
            self._changed.wait_for(lambda: any(self._queues) or not any(self._open), timeout_s)
            found: list[Item] = []
            # A turn for each sender, so that a fast source leaves the slow ones their places in a batch.
            while len(found) < most and any(self._queues):
                if queue := self._queues[self._next]:
                    found.append(queue.popleft())
                self._next = (self._next + 1) % len(self._queues)
            self._changed.notify_all()
        return found

    @property
    def is_done(self) -> bool:
        """Return whether nothing is left and nothing will come."""
        with self._changed:
            return not any(self._queues) and not any(self._open)

    def finish(self, sender: int = 0) -> None:
        """Say that a sender has no more items; what is queued stays."""
        with self._changed:
            self._open[sender] = False
            self._changed.notify_all()

    def abandon(self) -> None:
        """Drop everything and take nothing more, which ends senders and receiver."""
        with self._changed:
            self._open = [False] * len(self._open)
            for queue in self._queues:
                queue.clear()
            self._changed.notify_all()
