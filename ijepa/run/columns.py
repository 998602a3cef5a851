"""The columns of metrics.csv that a run will have, known before it starts."""

from ijepa.config import Tasks, TrainConfig
from ijepa.data.datamodule import DataModule
from ijepa.evaluation import tasks
from ijepa.evaluation.context import label_sets
from ijepa.evaluation.specs import lookup
from ijepa.health import kinds
from ijepa.health.specs import PROBES
from ijepa.training import specs as training
from ijepa.util.metric_spec import MetricSpec


def terms(config: TrainConfig) -> dict[str, MetricSpec]:
    """Specs of the objective terms that the user has added, by column."""
    return {f"train/{name}": lookup(f"train/{name}") for name in config.objective.terms}


def columns(config: TrainConfig, chosen: Tasks, data: DataModule) -> dict[str, MetricSpec]:
    """Specs of the run's metrics by column; ``chosen``: the tasks evaluated during the run."""
    names = label_sets(data)
    specs = {spec.name: spec for spec in (*training.LOSS, *training.SCHEDULE)} | terms(config)
    if config.callbacks.health_every_steps is not None:
        prefixes = [f"{name}/" for name in names] if len(names) > 1 else [""]
        for spec in kinds.measures(config.decoder is not None):
            specs |= {f"health/{prefix}{spec.name}": spec for prefix in (prefixes if spec in PROBES else [""])}
    return specs | {f"val/{name}": spec for name, spec in tasks.result_specs(chosen, names).items()}
