"""What a Prometheus server gets to see."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.request import urlopen

from prometheus_client.parser import text_string_to_metric_families

from tests.support.processes import PATIENCE_S

Samples = Mapping[tuple[str, ...], float]


def scrape(url: str) -> Samples:
    """The samples at `url`, by name and the values of their labels in the order of the labels' names."""
    with urlopen(url, timeout=PATIENCE_S) as answer:
        assert answer.headers["Content-Type"].startswith("text/plain")
        text = answer.read().decode()
    return {
        (sample.name, *(value for _name, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if not sample.name.endswith("_created")
    }
