import os
from pathlib import Path

import pytest

from worker.errors import UsageError
from worker.operations.whole_file import written


def test_what_is_no_file_is_never_replaced_by_one(tmp_path: Path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for out in (pipe, tmp_path):
        with pytest.raises(UsageError, match="is no file"), written(out, force=True):
            pass
    assert pipe.is_fifo()


def test_what_a_link_points_to_is_written_and_the_link_stays(tmp_path: Path):
    file, link = tmp_path / "file", tmp_path / "link"
    file.write_bytes(b"before")
    link.symlink_to(file)
    with written(link, force=True) as out:
        out.write(b"after")
    assert (link.is_symlink(), file.read_bytes()) == (True, b"after")
    with pytest.raises(UsageError, match="exists"), written(link, force=False):
        pass
