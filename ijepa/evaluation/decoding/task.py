"""The metrics of task=decode, which evaluates decoders: see `ijepa.evaluation.decoding.decode`. Needs no diffusers."""

from ijepa.config.tasks import Decode
from ijepa.data.datamodule import DataModule
from ijepa.evaluation import specs
from ijepa.evaluation.context import EvalContext, EvaluatedModel, TaskResult
from ijepa.evaluation.task import ConfiguredTask
from ijepa.util.errors import ConfigError
from ijepa.util.metric_spec import MetricSpec


class DecodeTask(ConfiguredTask[Decode]):
    """The metrics of `decode`; as a task of an encoder it is refused."""

    name = "decode"
    needs_labels = False

    def metrics(self, several: bool) -> list[MetricSpec]:
        return list(specs.DECODE)

    def validate(self, data: DataModule) -> None:
        raise ConfigError(
            "task", "decode", "is for decoders; try python evaluate.py task=decode checkpoint=DECODER_RUN"
        )

    def evaluate(self, model: EvaluatedModel, ctx: EvalContext) -> dict[str, TaskResult]:
        raise NotImplementedError
