"""Run the chapters, several at a time, into the cache that the book is rendered from: python book/run_chapters.py CACHE CHAPTER...

As many at a time as there are cores, of one thread each, which takes about half the time on two cores. Sphinx itself runs what it does not
find in the cache, one after the other: a chapter that is not named here because it measures times, and one that failed, whose error it
reports. What is in the cache already is not run again.
"""

from __future__ import annotations

import logging
import os
import sys

from joblib import Parallel, cpu_count, delayed
from jupyter_cache import get_cache
from jupyter_cache.executors import load_executor


def run(cache: str, chapter: str) -> None:
    """Run one chapter, if it has to be, in a process of its own."""
    os.environ["OMP_NUM_THREADS"] = "1"
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    executor = load_executor("local-serial", get_cache(cache), logging.getLogger("chapters"))  # says what begins, and what is done
    executor.run_and_cache(filter_uris=[chapter], timeout=600)


if __name__ == "__main__":
    cache, *chapters = map(os.path.abspath, sys.argv[1:])
    for chapter in chapters:
        get_cache(cache).add_nb_to_project(chapter)
    # Not jupyter-cache's own pool: it counts the cores of the machine, where a container or a job may have fewer.
    Parallel(n_jobs=min(cpu_count(), len(chapters)))(delayed(run)(cache, chapter) for chapter in chapters)
