"""Check that a package of an extra is installed: the extras are in setup.cfg and in docs/install.md."""

from importlib.util import find_spec

from captioning.errors import ConfigError


def need_package(*packages: str, extra: str, wanted_by: str) -> None:
    """Check that packages can be imported, without importing them.

    Args:
        packages: names to import.
        extra: the extra of this package that installs them.
        wanted_by: what needs them, for the message: a command, or a setting with its value.

    Raises:
        ConfigError: names the missing packages, and the extra to install.
    """
    missing = [package for package in packages if find_spec(package) is None]
    if missing:
        raise ConfigError(
            f"{wanted_by} needs the package {' and '.join(missing)}. Run: pip install 'captioning[{extra}]'"
        )
