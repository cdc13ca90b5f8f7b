"""One question to many hosts at once."""

import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import TypeVar

from shoal.errors import ShoalError, TimedOut
from shoal.host.base import Host

T = TypeVar("T")


def fanout(
    hosts: Sequence[Host], ask: Callable[[Host], T], *, deadline: float, width: int = 32
) -> tuple[T | ShoalError, ...]:
    """Each host's answer or error, in the order of the hosts.

    Args:
        ask: what is done with each host, in a thread of its own.
        deadline: seconds for each host. One that takes longer is TimedOut; its thread is left behind, and another
            host gets its turn.
        width: how many hosts are asked at once.

    Raises:
        Exception: what ``ask`` raised beside ShoalError, which is a mistake in it.
    """
    answers: dict[int, T | ShoalError] = {}
    waiting = deque(range(len(hosts)))
    asked: dict[int, float] = {}  # host -> when its time is over
    heard: queue.SimpleQueue[tuple[int, T | Exception]] = queue.SimpleQueue()

    def work(index: int) -> None:
        try:
            heard.put((index, ask(hosts[index])))
        except Exception as error:  # noqa: BLE001  handed over to the caller's thread
            heard.put((index, error))

    while waiting or asked:
        while waiting and len(asked) < width:
            index = waiting.popleft()
            asked[index] = time.monotonic() + deadline
            threading.Thread(target=work, args=(index,), name=f"ask {hosts[index].name}", daemon=True).start()
        try:
            index, answer = heard.get(timeout=max(0.0, min(asked.values()) - time.monotonic()))
        except queue.Empty:
            index = min(asked, key=asked.__getitem__)
            answer = _late(hosts[index], deadline)
        if asked.pop(index, None) is None:
            continue  # it was given up, and answers now
        if isinstance(answer, Exception) and not isinstance(answer, ShoalError):
            raise answer
        answers[index] = answer
    return tuple(answers[index] for index in range(len(hosts)))


def _late(host: Host, deadline: float) -> TimedOut:
    return TimedOut(
        f"{host.name} did not answer within {deadline:g} s",
        why="it hangs, or the way to it does; the other hosts were asked all the same",
        fix=f"ssh {host.name} uptime   # look whether it answers by hand",
    )
