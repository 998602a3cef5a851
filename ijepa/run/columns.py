"""What a run will log: the metrics by their columns, before there is a value of any."""

from ijepa.config import Tasks, TrainConfig
from ijepa.data.datamodule import DataModule
from ijepa.evaluation import tasks
from ijepa.evaluation.context import label_sets
from ijepa.evaluation.specs import lookup
from ijepa.health import specs as health
from ijepa.training import specs as training
from ijepa.util.metric_spec import MetricSpec


def terms(config: TrainConfig) -> dict[str, MetricSpec]:
    """The parts of the loss that are the user's own."""
    return {f"train/{name}": lookup(f"train/{name}") for name in config.objective.terms}


def columns(config: TrainConfig, chosen: Tasks, data: DataModule) -> dict[str, MetricSpec]:
    """The specs of the run's columns of metrics.csv; ``chosen``: what is evaluated."""
    names = label_sets(data)
    found = {spec.name: spec for spec in (*training.LOSS, *training.SCHEDULE)} | terms(config)
    if config.callbacks.health_every_steps is not None:
        prefixes = [f"{name}/" for name in names] if len(names) > 1 else [""]
        for spec in health.MEASURES:
            found |= {f"health/{prefix}{spec.name}": spec for prefix in (prefixes if spec in health.PROBES else [""])}
    return found | {f"val/{name}": spec for name, spec in tasks.promised(chosen, names).items()}
