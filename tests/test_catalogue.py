import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from example_cards import SUBMISSION, WORKLOAD, changed

from harness import catalogue
from harness.errors import UsageError


@pytest.fixture(autouse=True)
def _fresh_catalogue() -> Iterator[None]:
    catalogue.workloads.cache_clear()
    catalogue.submissions.cache_clear()
    yield
    catalogue.workloads.cache_clear()
    catalogue.submissions.cache_clear()


def install(
    folder: Path,
    cards: dict[str, object],
    entry: str = "planted_plugin",
    group: str = "submissions",
) -> None:
    """Put a distribution with an entry point and cards, by path in the package, into `folder`."""
    for path, card in cards.items():
        file = folder / "planted_plugin" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(card if isinstance(card, str) else yaml.safe_dump(card))
    (folder / "planted_plugin").mkdir(exist_ok=True)
    # Reading cards imports no code, not even a package's.
    (folder / "planted_plugin" / "__init__.py").write_text("raise AssertionError('imported')\n")
    metadata = folder / "planted_plugin-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: planted-plugin\nVersion: 1.0\n"
    )
    (metadata / "entry_points.txt").write_text(f"[timetrial.{group}]\nany = {entry}\n")


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def test_the_bundled_cards_are_found_with_their_modules() -> None:
    entry = catalogue.workload("resnet/digits")
    assert entry.module == "workloads.resnet.digits"
    assert entry.module_path.name == "digits.py"
    assert entry.module_path.is_file()
    assert catalogue.submission("lion").module == "submissions.optimizers.lion"


def test_every_bundled_card_has_its_code_beside_it() -> None:
    for entries in (catalogue.workloads(), catalogue.submissions()):
        assert list(entries) == sorted(entries)
        for name, entry in entries.items():
            assert entry.card.name == name
            assert entry.module_path.is_file()


def test_a_family_means_its_single_embedded_member() -> None:
    assert catalogue.workload("resnet").card.name == "resnet/digits"


def test_a_family_without_a_single_embedded_member_lists_its_members(site: Path) -> None:
    cards: dict[str, object] = {
        f"{name}.yaml": changed(WORKLOAD, "name", f"blobs/{name}") for name in ("one", "two")
    }
    cards["far.yaml"] = changed(changed(WORKLOAD, "name", "far/away"), "tier", "embedded-slow")
    install(site, cards, group="workloads")
    with pytest.raises(UsageError, match=r"Name one of: blobs/one, blobs/two\."):
        catalogue.workload("blobs")
    with pytest.raises(UsageError, match=r"'far' has no single default. Name one of: far/away\."):
        catalogue.workload("far")
    assert catalogue.workload("far/away").module == "planted_plugin.blobs"


@pytest.mark.parametrize(
    ("name", "hint"),
    [("resnt", "'resnet'"), ("resnet/digit", "'resnet/digits'"), ("", "Available: "), ("+", "Av")],
)
def test_an_unknown_workload_gets_the_nearest_names(name: str, hint: str) -> None:
    with pytest.raises(UsageError, match=f"{hint}.*See `bench list workloads`"):
        catalogue.workload(name)


def test_an_unknown_submission_gets_the_nearest_names_and_the_way_to_a_file() -> None:
    with pytest.raises(UsageError) as caught:
        catalogue.submission("adam")
    message = str(caught.value)
    assert message.startswith("The submission 'adam' does not exist. Did you mean 'adamw'")
    assert message.endswith("or give a file: ./my_method.py[:Class].")


def test_an_installed_package_adds_cards_unimported(site: Path) -> None:
    install(site, {"deep/er/steady.yaml": SUBMISSION})
    entry = catalogue.submission("steady")
    assert entry.module == "planted_plugin.deep.er.steady"
    assert entry.module_path == site / "planted_plugin" / "deep" / "er" / "steady.py"
    assert "planted_plugin" not in sys.modules


def test_an_entry_point_may_name_a_subpackage_whose_parents_stay_unimported(site: Path) -> None:
    install(site, {"cards/steady.yaml": SUBMISSION}, entry="planted_plugin.cards")
    assert catalogue.submission("steady").module == "planted_plugin.cards.steady"
    assert "planted_plugin" not in sys.modules


def test_one_name_on_two_cards_names_both_files(site: Path) -> None:
    install(site, {"lion.yaml": changed(SUBMISSION, "name", "lion")})
    with pytest.raises(UsageError, match=r"Two cards are named 'lion': .*lion\.yaml and .*lion\.y"):
        catalogue.submission("adamw")


def test_a_broken_card_of_a_package_is_named(site: Path) -> None:
    install(site, {"bad.yaml": "name: [\n"})
    with pytest.raises(UsageError, match=r"The card .*planted_plugin/bad\.yaml is not valid YAML"):
        catalogue.submissions()


@pytest.mark.parametrize(
    "entry",
    ["gone", "planted_plugin.gone", "planted_plugin:attribute", ".relative", "json.decoder", "a b"],
)
def test_an_entry_point_to_no_package_names_the_group_and_the_fix(site: Path, entry: str) -> None:
    install(site, {}, entry=entry)
    with pytest.raises(UsageError, match=r"timetrial\.submissions names .* Reinstall or remove"):
        catalogue.submissions()
