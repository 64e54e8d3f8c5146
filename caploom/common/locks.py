"""Mutual exclusion by a lock on a file, which is released when the process that holds it ends, however it ends."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout


@contextmanager
def one_at_a_time(lock_file: Path, busy: str) -> Iterator[None]:
    """Hold the lock; while another process holds it, log `busy` once and wait."""
    lock = FileLock(lock_file)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        logging.getLogger(__name__).warning(busy)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()
