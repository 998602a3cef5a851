"""The typed schema of conf/statistics.yaml, in a file that takes no time to import."""

from typing import Annotated

from pydantic import Field

from ijepa.config import Count, Data, Section, Text


class StatisticsConfig(Section):
    """What `python -m ijepa.data.statistics` takes."""

    name: Text | None
    """conf/data/NAME.yaml is written; null: the name of data.root's folder"""
    images: Count | None
    """so many training images, drawn by seed, are read; null: all"""
    overwrite: bool
    """replace a conf/data/NAME.yaml that this command has written"""
    seed: Annotated[int, Field(ge=0, lt=2**63)]
    """of what is held out and of the drawn images"""
    data: Data
