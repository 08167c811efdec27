"""The page in a browser: what it shows, what it does, and what it leaves alone."""

import datetime
from collections.abc import Iterator
from pathlib import Path

import pytest
from reports.chromium import Tab, browser, find
from reports.report_runs import add_hostile, add_telemetry, make_home, run_directory

from harness.reports.gathering import gather
from harness.reports.page import page

PROGRAM = find()
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(PROGRAM is None, reason="no Chromium here"),
]

MADE = datetime.datetime(2026, 1, 2, 3, 4, tzinfo=datetime.UTC)
ALL_DRAWN = (
    "[...document.querySelectorAll('figure[data-figure]')].every(f => f.querySelector('.main-svg'))"
)


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("browser")
    home = make_home(folder / "home")
    add_telemetry(run_directory(home, "20240101-0-adamw-2"))
    add_hostile(home)
    path = folder / "report.html"
    path.write_text(page(gather(home, [], [], "cold"), MADE), encoding="utf-8")
    return path.as_uri()


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tab]:
    assert PROGRAM is not None
    with browser(PROGRAM, tmp_path_factory.mktemp("profile")) as opened:
        yield opened


def drawn(tab: Tab, url: str, width: int = 1280, dark: bool = False) -> Tab:
    tab.open(url, width=width, height=20_000, dark=dark)
    tab.until(ALL_DRAWN)
    return tab


def colours(tab: Tab, figure: str) -> dict[str, str]:
    """Return the colour of each median line by its name."""
    found: dict[str, str] = tab.evaluate(
        f"Object.fromEntries(document.querySelector('{figure} .plot').data"
        ".filter(t => t.mode === 'lines+markers').map(t => [t.name, t.line.color]))"
    )
    return found


CURVES = '[data-workload="blobs/two"] [data-figure=curves]'


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (390, True)])
def test_the_page_is_quiet_and_fits(tab: Tab, url: str, width: int, dark: bool) -> None:
    drawn(tab, url, width, dark)
    assert tab.complaints() == []
    assert tab.requests() == []
    assert tab.evaluate("document.documentElement.scrollWidth") == width
    assert tab.evaluate("globalThis.stolen === undefined && globalThis.stolen2 === undefined")
    background = tab.evaluate("getComputedStyle(document.body).backgroundColor")
    assert background == ("rgb(20, 22, 26)" if dark else "rgb(255, 255, 255)")
    paper = tab.evaluate(f"document.querySelector('{CURVES} .plot').layout.paper_bgcolor")
    assert paper == ("#14161a" if dark else "#ffffff")


def test_figures_show_medians_traces_and_the_target(tab: Tab, url: str) -> None:
    drawn(tab, url)
    plot = f"document.querySelector('{CURVES} .plot')"
    assert tab.evaluate(f"{plot}.data.length") == 5 + 1 + 5 + 1 + 1 + 1
    assert tab.evaluate(f"{plot}.layout.shapes[0].y0") == 0.9
    median = f"{plot}.data.find(t => t.mode === 'lines+markers' && t.name.startsWith('adamw'))"
    assert tab.evaluate(f"[...{median}.x]") == pytest.approx([1.04, 2.08, 3.12, 4.16])
    for axis, last in (("steps", 400), ("examples", 4000), ("passes", 12000)):
        tab.evaluate(f"document.querySelector('{CURVES} input[value={axis}]').click()")
        tab.until(f"{median}.x.at(-1) === {last}")
    assert tab.complaints() == []


def test_filters_hide_and_never_recolour(tab: Tab, url: str) -> None:
    drawn(tab, url)
    before = colours(tab, CURVES)
    assert len(before) == 3
    tab.evaluate("document.querySelector('.chip[value=adamw]').click()")
    tab.until(f"document.querySelector('{CURVES} .plot').data.every(t => t.name[0] !== 'a')")
    after = colours(tab, CURVES)
    assert after == {name: colour for name, colour in before.items() if name[0] != "a"}
    hidden = "getComputedStyle(document.querySelector('tr[data-submission=adamw]')).display"
    assert tab.evaluate(hidden) == "none"
    tab.evaluate("document.getElementById('all').click()")
    tab.until(f"document.querySelector('{CURVES} .plot').data.length > 10")
    assert colours(tab, CURVES) == before
    tab.evaluate(
        "const w = document.getElementById('workload'); w.value = 'blobs/three';"
        "w.dispatchEvent(new Event('change'))"
    )
    sections = "[...document.querySelectorAll('section.workload')].filter(s => s.offsetParent)"
    assert set(tab.evaluate(f"{sections}.map(s => s.dataset.workload)")) == {"blobs/three"}
    tab.evaluate(
        "const k = document.getElementById('kind'); k.value = 'unlisted';"
        "k.dispatchEvent(new Event('change'))"
    )
    assert tab.evaluate(hidden) == "none"
    assert tab.complaints() == []


def test_telemetry_shows_what_was_measured(tab: Tab, url: str) -> None:
    drawn(tab, url)
    names = tab.evaluate(
        "[...document.querySelector('[data-figure=telemetry] .plot').data].map(t => t.name)"
    )
    assert names == ["GPU power", "GPU utilisation", "CPU utilisation", "GPU memory", "memory"]


@pytest.mark.parametrize(
    ("form", "start"), [("svg", "data:image/svg+xml"), ("png", "data:image/png")]
)
def test_figures_can_be_taken_out(tab: Tab, url: str, form: str, start: str) -> None:
    drawn(tab, url, dark=True)
    tab.evaluate(
        "globalThis.saved = null; Plotly.downloadImage = (figure, how) =>"
        " Plotly.toImage(figure, how)"
        ".then(image => { saved = [image, how.filename, figure.layout] })"
    )
    tab.evaluate(f"document.querySelector('{CURVES} [data-format={form}]').click()")
    tab.until("saved !== null")
    image, name, layout = tab.evaluate("saved")
    assert image.startswith(start)
    assert name == "blobs-two-v1-curves"
    assert layout["paper_bgcolor"] == "#ffffff"  # also from a dark page
    assert tab.complaints() == []


@pytest.mark.slow
def test_the_page_prints_light_with_its_figures_and_folds_back(
    tab: Tab, url: str, tmp_path: Path
) -> None:
    tab.open(url, dark=True)
    tab.evaluate(
        "globalThis.printed = null; addEventListener('beforeprint', () => { printed ="
        " [...document.querySelectorAll('figure[data-figure] .plot')]"
        ".map(p => [p.layout.paper_bgcolor, p.layout.width]) })"
    )
    tab.pdf(tmp_path / "report.pdf")
    figures = tab.evaluate("printed")
    assert len(figures) == tab.evaluate("document.querySelectorAll('figure').length")
    assert {tuple(figure) for figure in figures} == {("#ffffff", 660)}
    assert not tab.evaluate("document.querySelector('details.provenance').open")
    content = (tmp_path / "report.pdf").read_bytes()
    assert content.startswith(b"%PDF")
    assert len(content) > 50_000
    assert tab.complaints() == []
