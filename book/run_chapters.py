"""Run the chapters, several at a time, into the cache that the book is rendered from: python book/run_chapters.py CACHE CHAPTER...

As many at a time as there are cores, of one thread each, which takes about half the time on two cores. Sphinx itself runs what it does not
find in the cache, one after the other: a chapter that is not named here because it measures times, and one that failed, whose error it
reports. What is in the cache already is not run again.
"""

from __future__ import annotations

import logging
import os
import sys

from jupyter_cache import get_cache
from jupyter_cache.executors import load_executor

if __name__ == "__main__":
    os.environ["OMP_NUM_THREADS"] = "1"
    cache = get_cache(sys.argv[1])
    for chapter in sys.argv[2:]:
        cache.add_nb_to_project(os.path.abspath(chapter))
    logger = logging.getLogger("chapters")
    logger.setLevel(logging.INFO)  # says which chapter begins, which is done
    load_executor("local-parallel", cache, logger).run_and_cache(timeout=600)
