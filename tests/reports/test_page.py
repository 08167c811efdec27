import datetime
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from reports.report_runs import HOSTILE, add_hostile, make_home

from harness.reports.gathering import gather
from harness.reports.page import inert, json_block, page

MADE = datetime.datetime(2026, 1, 2, 3, 4, tzinfo=datetime.UTC)


class Elements(HTMLParser):
    """The elements of a page, with their attributes and what scripts hold."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self._in_script = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag == "script":
            self._in_script = True
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        if tag == "script":
            self._in_script = False

    def handle_data(self, data: str) -> None:
        if self._in_script:
            self.scripts[-1] += data


def parsed(text: str) -> Elements:
    elements = Elements()
    elements.feed(text)
    elements.close()
    return elements


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> str:
    home = make_home(tmp_path_factory.mktemp("page") / "home")
    return page(gather(home, [], [], "cold"), MADE)


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> str:
    home = make_home(tmp_path_factory.mktemp("hostile") / "home", seeds=1)
    add_hostile(home)
    return page(gather(home, [], [], "cold"), MADE)


def test_the_page_needs_nothing_from_outside(text: str) -> None:
    elements = parsed(text)
    for tag, attributes in elements.found:
        for name in ("src", "href", "srcset", "action", "data", "poster"):
            value = attributes.get(name)
            assert value is None or value.startswith(("#", "data:")), (tag, name, value)
    head = text[: text.index("<script")]
    assert "url(" not in head
    assert "@import" not in head


def test_the_policy_runs_the_pages_own_scripts_only(text: str) -> None:
    elements = parsed(text)
    (policy,) = [
        str(attributes["content"])
        for tag, attributes in elements.found
        if attributes.get("http-equiv") == "Content-Security-Policy"
    ]
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert policy.count("'sha256-") == 2
    assert "unsafe-eval" not in policy
    assert "http" not in policy
    assert len(elements.scripts) == 3  # the data, Plotly, the page's own


def test_text_of_strangers_is_text(hostile: str) -> None:
    elements = parsed(hostile)
    assert len(elements.scripts) == 3
    assert not [tag for tag, _ in elements.found if tag == "img"]
    assert not [name for _, attributes in elements.found for name in attributes if name[:2] == "on"]
    data = json.loads(elements.scripts[0])
    assert HOSTILE in [submission["name"] for submission in data["submissions"]]
    assert "</script>" not in json_block(HOSTILE)
    assert json.loads(json_block([HOSTILE, "<!--", "&amp;"])) == [HOSTILE, "<!--", "&amp;"]


def test_a_script_cannot_end_its_element() -> None:
    assert inert('a="</SCRIPT><!--"') == 'a="\\x3c/SCRIPT>\\x3c!--"'


def test_the_tables_stand_without_scripts(text: str) -> None:
    before_data = text[: text.index('<script type="application/json"')]
    assert re.search(r">adamw</th><td class=\"n\">5/5</td><td class=\"n\">3.12</td>", before_data)
    assert "the budget was used up" in before_data
    assert "the pace drifted by 20 %" in before_data
    assert "bench run -s lion -w blobs/two" in before_data
    assert "<noscript>" in before_data
    assert "torch 2.13.0" in before_data


def test_tables_have_captions_and_headers(text: str) -> None:
    tables = text.count("<table")
    assert tables >= 6
    assert text.count("<caption>") == tables
    assert all(attributes.get("scope") for tag, attributes in parsed(text).found if tag == "th")


def test_every_link_within_the_page_has_its_goal(text: str) -> None:
    found = parsed(text).found
    ids = {attributes["id"] for _, attributes in found if "id" in attributes}
    links = {attributes["href"] for tag, attributes in found if tag == "a"}
    assert links
    assert {f"#{name}" for name in ids} >= links


def test_the_same_runs_make_the_same_page(tmp_path: Path) -> None:
    home = make_home(tmp_path / "home", seeds=2)
    one, other = (page(gather(home, [], [], "cold"), MADE) for _ in range(2))
    assert one == other


def test_rows_beyond_the_limit_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.reports.page.MOST_ROWS", 4)
    monkeypatch.setattr("harness.reports.page.MOST_RUNS", 1)
    home = make_home(tmp_path / "home", seeds=1)
    text = page(gather(home, [], [], "cold"), MADE)
    assert "1 further rows are in" in text


def test_without_plotly_the_command_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    from harness.errors import UsageError

    home = make_home(tmp_path / "home", seeds=1)
    gathered = gather(home, [], [], "cold")
    monkeypatch.setitem(sys.modules, "plotly.offline", None)
    with pytest.raises(UsageError, match=r"plotly.*pip install 'timetrial\[report\]'"):
        page(gathered, MADE)
