"""The commit that results name."""

import pathlib
import shutil
import subprocess
import sys

from jpegsr import provenance

PROGRAM = "from jpegsr import provenance; print(provenance.source()['commit'])"


def test_changes_but_those_of_results_mark_the_commit(tmp_path):
    def output(*command):
        return subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True).stdout.strip()

    def git(*arguments):
        return output("git", "-c", "user.name=a", "-c", "user.email=a@example.com", *arguments)

    def commit():
        return output(sys.executable, "-c", PROGRAM)

    for folder in ("jpegsr", "results"):
        (tmp_path / folder).mkdir()
    (tmp_path / "jpegsr" / "__init__.py").write_text("__version__ = '1'\n")
    shutil.copy(pathlib.Path(provenance.__file__), tmp_path / "jpegsr")
    table = tmp_path / "results" / "results.json"
    table.write_text("{}")
    git("init", "--quiet")
    assert commit().startswith("unknown")
    git("add", "--all")
    git("commit", "--quiet", "--message=first")
    head = git("rev-parse", "HEAD")
    assert commit() == head
    table.write_text('{"psnr_y": 30.0}')
    assert commit() == head
    (tmp_path / "jpegsr" / "__init__.py").write_text("__version__ = '2'\n")
    assert commit() == f"{head}-dirty"
