"""One function over many cases in several processes, of which any may die."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from typing import TypeVar

from nnunet_topo.errors import DataError

T = TypeVar("T")
R = TypeVar("R")


def run_each(function: Callable[[T], R], tasks: Sequence[T], *, processes: int) -> Iterator[tuple[int, R | DataError]]:
    """Results as they come, each with the index of its task.

    A worker that the operating system kills (most often for want of memory) takes the whole pool with it. The tasks
    that may have been under way are then tried again, one at a time; one that fails alone is to blame and yields a
    DataError. All others are run as if nothing had happened.

    Args:
        function: importable by name; what it raises ends the whole run.
        tasks: picklable.
        processes: at least 1. With 1, everything runs in this process, and its death is the caller's.

    Yields:
        Index of the task, and its result or the error that a dead worker left.
    """
    if processes <= 1 or len(tasks) <= 1:
        for index, task in enumerate(tasks):
            yield index, function(task)
        return
    left = list(range(len(tasks)))
    while left:
        finished = set()
        for index, result in _run_pool(function, tasks, left, processes):
            finished.add(index)
            yield index, result
        left = [index for index in left if index not in finished]
        # Workers take tasks in order, and results of as many more may have been lost on their way.
        suspects, left = left[: 2 * processes], left[2 * processes :]
        for index in suspects:
            alone = dict(_run_pool(function, tasks, [index], 1))
            yield index, alone.get(index, _died())


def _run_pool(
    function: Callable[[T], R], tasks: Sequence[T], indices: Sequence[int], processes: int
) -> Iterator[tuple[int, R]]:
    """Results until all are there or a worker dies."""
    # A fork would copy the locks of threads that torch or a progress bar holds here.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(processes, len(indices)), mp_context=context) as pool:
        index_of: dict[Future[R], int] = {}
        with suppress(BrokenProcessPool):
            for index in indices:
                index_of[pool.submit(function, tasks[index])] = index
        try:
            for future in as_completed(index_of):
                with suppress(BrokenProcessPool):
                    yield index_of[future], future.result()
        finally:
            pool.shutdown(cancel_futures=True)


def _died() -> DataError:
    return DataError(
        "expected a score, got a dead process, even with nothing else running: most likely memory ran out. "
        "Score this case on a machine with more memory, or with fewer metrics."
    )
