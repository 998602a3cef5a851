"""What pyproject.toml cannot express: conf/ of the checkout becomes ijepa/_conf in a wheel."""

from setuptools import find_namespace_packages, setup

setup(
    packages=[*find_namespace_packages(include=["ijepa", "ijepa.*"]), "ijepa._conf"],
    package_dir={"ijepa._conf": "conf"},
)
