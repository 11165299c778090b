"""The bounds of what is depended on: both there, and the lower ones those that the oldest set is tested with."""

import configparser

from packaging.requirements import Requirement
from packaging.version import Version

# Programs that check, format or document the code. They are not part of what runs, so no oldest version is tested.
TOOLS = {"ruff", "mypy", "types-PyYAML", "types-tqdm", "check-jsonschema"}
TOOLS |= {"mkdocs", "mkdocs-material", "mkdocstrings", "mkdocstrings-python"}


def requirements(root) -> dict[str, Requirement]:
    config = configparser.ConfigParser()
    config.read(root / "setup.cfg")
    lines = config["options"]["install_requires"].split() + " ".join(config["options.extras_require"].values()).split()
    return {each.name: each for each in map(Requirement, lines)}


def test_every_dependency_has_a_lower_and_an_upper_bound(pytestconfig):
    bounds = {name: {s.operator for s in each.specifier} for name, each in requirements(pytestconfig.rootpath).items()}
    assert len(bounds) > 10
    assert not {name for name, kinds in bounds.items() if kinds != {">=", "<"} and kinds != {"=="}}


def test_the_oldest_set_is_that_of_the_lower_bounds(pytestconfig):
    wanted = requirements(pytestconfig.rootpath)
    lines = (pytestconfig.rootpath / "tests" / "oldest.txt").read_text().splitlines()
    pinned = {each.name: next(iter(each.specifier)).version for each in map(Requirement, lines[1:])}
    lowest = {
        name: specifier.version
        for name, each in wanted.items()
        for specifier in each.specifier
        if specifier.operator == ">=" and name not in TOOLS
    }
    assert pinned.keys() == lowest.keys()
    assert not {name for name in pinned if Version(pinned[name]) != Version(lowest[name])}
