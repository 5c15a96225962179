"""CPU time of other processes, and cores."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from benchmarks.cpu import Cores, CpuClock, pinned, resident_bytes

# Works in a thread that ends, says what it cost by its own account, and then does nothing.
CHILD = """
import sys, threading, time
worker = threading.Thread(target=lambda: [0 for _ in range(3_000_000)])
worker.start()
worker.join()
print(time.process_time_ns(), flush=True)
sys.stdin.read()
"""


def test_the_clock_of_another_process_counts_its_work_in_all_threads_and_not_its_sleep() -> None:
    command = [sys.executable, "-c", CHILD]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdin is not None
        clock = CpuClock(child.pid)
        by_its_own_account = int(child.stdout.readline())
        time.sleep(0.2)
        assert by_its_own_account <= clock.read_ns() < by_its_own_account + 100_000_000
        assert resident_bytes(child.pid) > 1_000_000
        child.stdin.close()


def test_there_is_no_clock_of_a_process_that_is_not_there() -> None:
    with pytest.raises(ProcessLookupError):
        CpuClock(2**22 + 1)


def test_a_thread_may_run_everywhere_again_after_it_was_pinned() -> None:
    before = os.sched_getaffinity(0)
    cores = Cores.of_this_process()
    with pinned(cores.server):
        assert os.sched_getaffinity(0) == {cores.server}
    assert os.sched_getaffinity(0) == before
