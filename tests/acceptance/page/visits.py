"""Orders for the page to show, and requests for it."""

import re
import urllib.error
import urllib.request
from email.message import Message as Headers
from html import unescape
from uuid import uuid4

from tests.support.builders import line, order_value
from tests.support.promises import Scene

SCRIPT = "<script>document.title='x'</script><img src=http://192.0.2.1/x.png onerror=alert(1)>"


class NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: object) -> None:
        return None


def get(url: str, method: str = "GET") -> tuple[int, Headers, str]:
    opener = urllib.request.build_opener(NoRedirect)
    try:
        with opener.open(urllib.request.Request(url, method=method), timeout=10) as answer:
            return answer.status, answer.headers, answer.read().decode(errors="replace")
    except urllib.error.HTTPError as error:
        return error.code, error.headers, error.read().decode()


def text_of(html: str) -> str:
    """As a person reads it."""
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]*>", " ", html)))


class Placed:
    """What was placed: an order of each fate."""

    def __init__(self, scene: Scene) -> None:
        self.confirmed, self.rejected = uuid4(), uuid4()
        scene.shop.stock_up({1: 5})
        confirmed = order_value(line(1, 5), order_id=self.confirmed)
        scene.place([confirmed, confirmed], partition=0)
        scene.place([order_value(line(1, 2), line(77, 1), order_id=self.rejected)], partition=0)
        scene.place([order_value(line(1, 9), order_id=self.confirmed)], partition=0)  # a conflict
        scene.place([order_value(line(1, -1))], partition=1)
        hostile = [("error.message", SCRIPT.encode()), (SCRIPT, SCRIPT.encode())]
        scene.place([SCRIPT.encode(), None, b"\xff\xfe\x00"], partition=1, headers=hostile)
