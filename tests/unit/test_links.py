"""Where the links of a page lead on the site."""

import pytest

from docs.links import anchor_of, links_of, rewritten, site_target


@pytest.mark.parametrize(
    ("page", "target", "found"),
    [
        ("docs/guarantees.md", "commands/lag.md#usage", "commands/lag.md#usage"),
        ("docs/commands/lag.md", "../running.md", "../running.md"),
        ("docs/guarantees.md", "../ARCHITECTURE.md#map", "architecture.md#map"),
        ("ARCHITECTURE.md", "docs/glossary.md", "glossary.md"),
        ("tests/faults/README.md", "results/soak.svg", "tests/faults/results/soak.svg"),
        ("docs/guarantees.md", "../worker/rights.py", None),
        ("docs/guarantees.md", "reference.py", None),
        ("docs/guarantees.md", "https://example.org/x.md", "https://example.org/x.md"),
        ("docs/guarantees.md", "#held-by", "#held-by"),
    ],
)
def test_a_link_leads_to_where_the_site_has_its_file(page: str, target: str, found: str | None):
    assert site_target(page, target) == found


def test_a_link_to_what_the_site_does_not_have_is_its_label():
    text = "See [`rights`](../worker/rights.py), [the page](page.md) and ![a picture](page.png)."
    known = {"page.md": "x.md", "page.png": "y.png"}
    assert rewritten(text, known.get) == "See `rights`, [the page](x.md) and ![a picture](y.png)."


def test_nothing_in_code_is_a_link():
    text = "`[a](b.md)`\n```\n[c](d.md)\n```\n[e](f.md)"
    assert [(link.line, link.target) for link in links_of(text)] == [(5, "f.md")]
    assert rewritten(text, {"f.md": "g.md"}.get).endswith("[c](d.md)\n```\n[e](g.md)")


def test_a_picture_within_a_link_is_a_link_as_well():
    assert [link.target for link in links_of("[![a](b.svg)](c.md)")] == ["c.md", "b.svg"]
    assert rewritten("[![a](b.svg)](c.md)", {"b.svg": "x.svg"}.get) == "![a](x.svg)"


def test_an_anchor_is_that_of_github():
    assert anchor_of("Kafka 4.3.1's `limits`, and [more](x.md)") == "kafka-431s-limits-and-more"
