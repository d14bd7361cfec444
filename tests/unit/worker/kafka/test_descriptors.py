"""The limit of open files, in a process of its own each."""

import subprocess
import sys

from worker.kafka.descriptors import require_descriptors


def test_while_there_are_descriptors_nothing_is_said():
    require_descriptors()


def in_a_process_with(soft: int, hard: int, code: str) -> str:
    limited = f"import resource; resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard}))\n{code}"
    return subprocess.run([sys.executable, "-c", limited], capture_output=True, text=True, check=True).stdout


def test_the_soft_limit_is_raised_to_the_hard_one():
    code = (
        "from worker.kafka.descriptors import raise_limit; raise_limit()\n"
        "print(resource.getrlimit(resource.RLIMIT_NOFILE))"
    )
    assert in_a_process_with(256, 512, code) == "(512, 512)\n"


def test_a_process_that_has_none_left_says_so_with_the_next_step():
    code = (
        "import os\n"
        "from worker.kafka.descriptors import OutOfDescriptorsError, require_descriptors\n"
        "try:\n"
        "    while True: os.dup(2)\n"
        "except OSError: pass\n"
        "try: require_descriptors()\n"
        "except OutOfDescriptorsError as error: print(error)"
    )
    said = in_a_process_with(64, 64, code)
    assert "of at most 64 files" in said
    assert "ulimit -Hn" in said
