from collections import Counter
from typing import cast

from contracts.events import DeadLetterCode
from worker.http.page.open_letters import OpenLetters
from worker.http.page.sources import Sources
from worker.observability.metrics import Metrics


class _Letters:
    async def open_letters(self) -> Counter[str]:
        return Counter({"not_json": 3, "(none)": 2, 'a"b\nc': 1, "z" * 1_000: 4})


async def test_codes_of_others_are_one_time_series_together():
    metrics = Metrics()
    await OpenLetters(cast("Sources", _Letters()), lambda: (), metrics).look()
    (family,) = metrics.open_dead_letters.collect()
    shown = {sample.labels["code"]: sample.value for sample in family.samples}
    none = {code.value: 0 for code in DeadLetterCode}
    assert shown == {**none, "not_json": 3, "(none)": 2, "(other)": 5}
