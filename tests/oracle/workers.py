"""Several databases at once, each with a process of its own: which of them plays a lot makes no difference."""

import multiprocessing
import queue
import traceback
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.queues import Queue

from tests.oracle.play import Database
from tests.oracle.run import run


@dataclass(frozen=True)
class Lot:
    """Histories of a family, always the same ones for a seed."""

    family: str
    count: int
    seed: int


@dataclass(frozen=True)
class News:
    """One more history agreed; or with `seen`, a whole lot did; or with `failure`, something did not."""

    family: str = ""
    seen: Counter[str] | None = None
    failure: str | None = None


def play(lots: list[Lot], *, jobs: int) -> Iterator[News]:
    """Ends with the last lot; who stops listening stops the workers."""
    # Not forked: a worker must not share its parent's threads and connections.
    processes = multiprocessing.get_context("spawn")
    todo: Queue[Lot | None] = processes.Queue()
    news: Queue[News] = processes.Queue()
    workers = [processes.Process(target=_work, args=(todo, news)) for _ in range(jobs)]
    waiting = len(lots)
    try:
        for lot in [*lots, *[None] * jobs]:
            todo.put(lot)
        for worker in workers:
            worker.start()
        while waiting:
            try:
                told = news.get(timeout=5)
            except queue.Empty:
                if not all(worker.is_alive() or worker.exitcode == 0 for worker in workers):
                    yield News(failure="A worker died.")
                    return
                continue
            waiting -= told.seen is not None
            yield told
    finally:
        # A worker's database ends with it, in its own time where all is done.
        for worker in workers:
            if worker.pid is not None:
                if waiting:
                    worker.terminate()
                worker.join()
        todo.cancel_join_thread()


def _work(todo: "Queue[Lot | None]", news: "Queue[News]") -> None:
    try:
        with Database.fresh() as database:
            while (lot := todo.get()) is not None:
                one_more = News(lot.family)

                def tell(one_more: News = one_more) -> None:
                    news.put(one_more)

                seen = run(database, lot.family, count=lot.count, seed=lot.seed, on_progress=tell)
                news.put(News(lot.family, seen=seen))
    except AssertionError as error:
        news.put(News(failure="\n".join([f"They part. {error}", *getattr(error, "__notes__", [])[:1]])))
    except Exception as error:
        news.put(News(failure="".join(traceback.format_exception(error))))
