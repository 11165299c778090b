"""Show the names that a lazy `__init__.py` exports in the API reference.

Griffe, which reads the package for the site, does not run `lazy_loader.attach` and so finds an empty `__all__`. The
stubs (`__init__.pyi`) import the same names; this extension exports them. `mkdocs.yml` lists it under `extensions`.
"""

from collections.abc import Iterator
from typing import Any

import griffe


class LazyNames(griffe.Extension):
    """Set the exports of every module that loads its names lazily."""

    def on_package(self, *, pkg: griffe.Module, **_: Any) -> None:
        """Set them once the whole package is read."""
        for module in modules(pkg):
            if "lazy_loader" in module.members:
                module.exports = [name for name, member in module.members.items() if is_own(member, pkg.path)]


def modules(module: griffe.Module) -> Iterator[griffe.Module]:
    """Yield a module and its submodules."""
    yield module
    for member in module.members.values():
        if not member.is_alias and member.is_module:
            yield from modules(member)


def is_own(member: griffe.Object | griffe.Alias, package: str) -> bool:
    """Return whether a module imports this member from the package itself."""
    return member.is_alias and member.target_path.startswith(f"{package}.")
