"""A real browser: Chromium without a window, a new one for each page."""

import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

# As in the Makefile's `browser`, and where a Mac has it.
NAMES = ("chromium", "chromium-browser", "google-chrome")
ON_A_MAC = "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome"
HOW_TO_INSTALL = "no Chromium to test the page in: run `make browser` (as root), or install Chrome"

_CONSOLE = re.compile(r"^.*CONSOLE.*$", re.MULTILINE)


@dataclass(frozen=True)
class Seen:
    """A page after it was rendered: its DOM as HTML, and what the browser complained of."""

    dom: str
    console: list[str]


@dataclass(frozen=True)
class Browser:
    """`folder` is for its profiles: nothing of the user's own is touched."""

    program: str
    folder: Path

    def open(self, url: str, waits_ms: int = 0) -> Seen:
        """Render the page. No other host is found than this machine.

        `waits_ms`: of its own time, which passes at once where nothing happens, for scripts to end.
        """
        ran = self._run(url, f"--virtual-time-budget={waits_ms}" if waits_ms else "--dump-dom")
        return Seen(ran.stdout, _CONSOLE.findall(ran.stderr))

    def _run(self, url: str, option: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [
                self.program,
                *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"),
                *("--no-first-run", "--disable-background-networking", "--disable-component-update"),
                f"--user-data-dir={self.folder}",
                "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
                *("--enable-logging=stderr", "--v=0"),
                *("--window-size=1400,1000", "--hide-scrollbars", "--dump-dom", option),
                url,
            ],
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )


def find_browser() -> str | None:
    """The first one there is."""
    found = [path for name in NAMES if (path := shutil.which(name))]
    return found[0] if found else ON_A_MAC if Path(ON_A_MAC).exists() else None
