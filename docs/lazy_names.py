"""Choose what the API reference shows: the names that a lazy `__init__.py` exports, and no undocumented attributes.

Griffe, which reads the package for the site, does not run `lazy_loader.attach` and so finds an empty `__all__`. The
stubs (`__init__.pyi`) import the same names; this extension exports them. `mkdocs.yml` lists it under `extensions`.
"""

from collections.abc import Iterator
from typing import Any

import griffe


class LazyNames(griffe.Extension):
    """Set the exports of every module that loads its names lazily."""

    def on_package(self, *, pkg: griffe.Module, **_: Any) -> None:
        """Set them once the package is read."""
        for module in modules(pkg):
            if "lazy_loader" in module.members:
                module.exports = [name for name, member in module.members.items() if is_own(member, pkg.path)]
            for member in module.members.values():
                if not member.is_alias and member.is_class:
                    hide_attributes(member)


def hide_attributes(cls: griffe.Class) -> None:
    """Remove the undocumented attributes that the methods of a class set; a NamedTuple's are its fields."""
    if any("NamedTuple" in str(base) for base in cls.bases):
        return
    for name, member in list(cls.members.items()):
        if member.is_attribute and not member.has_docstring and member.labels == {"instance-attribute"}:
            del cls.members[name]


def modules(module: griffe.Module) -> Iterator[griffe.Module]:
    """Yield a module and its submodules."""
    yield module
    for member in module.members.values():
        if not member.is_alias and member.is_module:
            yield from modules(member)


def is_own(member: griffe.Object | griffe.Alias, package: str) -> bool:
    """Return whether a module imports this member from the package itself."""
    return member.is_alias and member.target_path.startswith(f"{package}.")
