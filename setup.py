"""If a wheel contains compiled kernels, tags it with its platform. pyproject.toml has the rest."""

from pathlib import Path

from setuptools import Distribution, setup
from setuptools.command.bdist_wheel import bdist_wheel

PREBUILT = Path(__file__).parent / "worker" / "kernels" / "cpu" / "prebuilt"


class Lorikeet(Distribution):
    """A distribution that is specific to a platform only if it contains compiled kernels."""

    def has_ext_modules(self) -> bool:
        """Return whether the distribution contains compiled kernels."""
        return any(PREBUILT.glob("*.so"))


class LorikeetWheel(bdist_wheel):
    """A wheel for all versions of Python, because the kernels are called through ctypes."""

    def get_tag(self) -> tuple[str, str, str]:
        """Return the tags of Python, its ABI and the platform."""
        return "py3", "none", super().get_tag()[2]


setup(distclass=Lorikeet, cmdclass={"bdist_wheel": LorikeetWheel})
