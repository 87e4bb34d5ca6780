"""The three descriptions of the environment agree with each other and with what is installed."""

import re
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = ("book", "test", "sweep")
BUILD_TOOLS = {"setuptools", "wheel"}  # come with Python's venv in some versions; pip freeze leaves them out
PINNED = r"[A-Za-z0-9._-]+==[^\s=*]+"


def read_pins() -> dict[str, Version]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    entries = [line for line in lines if line and not line.startswith("#")]
    assert [entry for entry in entries if not re.fullmatch(PINNED, entry)] == [], "not an exact pin"
    pairs = [entry.split("==") for entry in entries]
    pins = {canonicalize_name(name): Version(version) for name, version in pairs}
    assert len(pins) == len(pairs), "a package is pinned twice"
    return pins


def needed(**elsewhere: str) -> dict[str, list[Requirement]]:
    """Everything the project needs on this machine, directly or through others, with who asks for it how; or elsewhere, by its markers."""
    wanted: dict[str, list[Requirement]] = {}
    done: set[tuple[str, str]] = set()
    extras = [line for extra in EXTRAS for line in PROJECT["optional-dependencies"][extra]]
    queue = [Requirement(line) for line in (*PROJECT["dependencies"], *extras)]
    while queue:
        requirement = queue.pop()
        name = canonicalize_name(requirement.name)
        wanted.setdefault(name, []).append(requirement)
        for extra in {"", *requirement.extras}:
            if (name, extra) in done:
                continue
            done.add((name, extra))
            try:
                lines = distribution(name).requires or []
            except PackageNotFoundError:
                continue  # test_installed_versions_are_the_pinned_ones names it
            children = [Requirement(line) for line in lines]
            queue += [child for child in children if child.marker is None or child.marker.evaluate({**elsewhere, "extra": extra})]
    return wanted


PINS = read_pins()
# What a GPU build of torch brings is its own affair: constraints.txt describes the CPU build.
GPU = re.compile(r"nvidia|cuda|triton|pytorch-triton")
NEEDED = {name: asked for name, asked in needed().items() if not GPU.match(name)}


def test_everything_needed_is_pinned():
    assert sorted(set(NEEDED) - set(PINS) - BUILD_TOOLS) == []


def test_nothing_else_is_pinned():
    """The environment was resolved on Linux; elsewhere and in later Pythons some of it is not needed."""
    if sys.platform != "linux" or sys.version_info[:2] != (3, 11):
        pytest.skip("constraints.txt was resolved for Python 3.11 on Linux")
    assert sorted(set(PINS) - set(NEEDED)) == []


@pytest.mark.parametrize("name", sorted(NEEDED))
def test_pins_satisfy_the_requirements(name):
    if name in PINS:
        refused = [str(asked) for asked in NEEDED[name] if not asked.specifier.contains(PINS[name], prereleases=True)]
        assert refused == [], f"{name}=={PINS[name]} does not satisfy them"


def test_installed_versions_are_the_pinned_ones():
    different = {}
    for name in sorted(set(NEEDED) & set(PINS)):
        try:
            installed = Version(distribution(name).version).public  # without torch's +cpu
        except PackageNotFoundError:
            installed = None
        if installed != str(PINS[name]):
            different[name] = f"{installed}, pinned {PINS[name]}"
    assert different == {}


# What packages see of a system in the markers of their requirements.
SYSTEMS = {
    "linux-x86_64": {"sys_platform": "linux", "platform_system": "Linux", "os_name": "posix", "platform_machine": "x86_64"},
    "linux-arm64": {"sys_platform": "linux", "platform_system": "Linux", "os_name": "posix", "platform_machine": "aarch64"},
    "macos-arm64": {"sys_platform": "darwin", "platform_system": "Darwin", "os_name": "posix", "platform_machine": "arm64"},
    "windows-amd64": {"sys_platform": "win32", "platform_system": "Windows", "os_name": "nt", "platform_machine": "AMD64"},
}
PYTHONS = ("3.11", "3.12", "3.13", "3.14")
# Asked for on some other system or Python only, so not pinned: constraints.txt was resolved on Linux.
NOT_PINNED = {"aiohttp", "appnope", "colorama", "pyreadline3", "pywinpty"}


@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize("system", SYSTEMS)
def test_pins_satisfy_the_requirements_elsewhere(system, python):
    found = needed(**SYSTEMS[system], python_version=python, python_full_version=f"{python}.0")
    found = {name: asked for name, asked in found.items() if not GPU.match(name)}
    refused = [str(r) for name in set(found) & set(PINS) for r in found[name] if not r.specifier.contains(PINS[name], prereleases=True)]
    assert refused == [] and set(found) - set(PINS) - BUILD_TOOLS <= NOT_PINNED
    assert set(found) >= {"torch", "numba", "jupyter-book"}


@pytest.mark.parametrize("python", PYTHONS)
def test_pins_can_be_installed_with_the_first_release_of_every_python(python):
    """Debian 12 has Python 3.11.2: a pin that wants 3.11.5 cannot be installed there."""
    assert SpecifierSet(PROJECT["requires-python"]).contains(f"{python}.0")
    wanted = {name: distribution(name).metadata["Requires-Python"] for name in sorted(set(NEEDED) & set(PINS))}
    assert {name: asked for name, asked in wanted.items() if asked and not SpecifierSet(asked).contains(f"{python}.0")} == {}


def test_torch_is_the_tested_one_without_its_relatives():
    assert str(PINS["torch"]) == "2.13.0"
    assert [name for name in PINS if re.match(r"torchvision|torchaudio|nvidia|cuda|triton|prom-mri", name)] == []


def test_conda_installs_the_same():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    plain = [entry for entry in environment["dependencies"] if isinstance(entry, str)]
    [pip] = [entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict)]
    [python] = [entry.removeprefix("python=") for entry in plain if entry.startswith("python=")]
    assert SpecifierSet(PROJECT["requires-python"]).contains(python)
    assert "pip" in plain
    assert pip == ["-c constraints.txt", f"-e .[{','.join(EXTRAS)}]"]


def test_make_installs_the_same():
    assert f"-c constraints.txt -e '.[{','.join(EXTRAS)}]'" in (ROOT / "Makefile").read_text(encoding="utf-8")
