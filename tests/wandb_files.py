"""What W&B writes offline, read back."""

import json
import struct
import time
from types import SimpleNamespace

from wandb.proto.wandb_internal_pb2 import Record

HEADER, BLOCK = 7, 1 << 15


def records(file):
    """The records of a .wandb file: a log of LevelDB's format after a header, a protobuf each."""
    data, at, parts = file.read_bytes(), HEADER, b""
    while at + HEADER <= len(data):
        left = BLOCK - at % BLOCK
        if left < HEADER:  # padding
            at += left
            continue
        length, kind = struct.unpack_from("<HB", data, at + 4)
        parts += data[at + HEADER : at + HEADER + length]
        at += HEADER + length
        if kind in (1, 4):  # whole, or the last part
            record = Record()
            record.ParseFromString(parts)
            yield record
            parts = b""


def whole(file):
    """All records of a run that has ended; W&B's own process may write the last of them when the run's has gone on."""
    until = time.monotonic() + 20
    while time.monotonic() < until:
        found = list(records(file))
        if any(record.WhichOneof("record_type") == "exit" for record in found):
            return found
        time.sleep(0.1)
    raise AssertionError(f"{file} has no end")


def told(folder):
    """What the offline runs below ``folder`` hold."""
    found = SimpleNamespace(runs=[], config={}, history=[], metrics={}, artifacts=[], alerts=[])
    for file in sorted(folder.glob("wandb/offline-run-*/run-*.wandb")):
        for record in whole(file):
            kind = record.WhichOneof("record_type")
            if kind == "run":
                found.runs.append(record.run)
                found.config.update({item.key: json.loads(item.value_json) for item in record.run.config.update})
            elif kind == "history":
                found.history.append({item.key or "/".join(item.nested_key): json.loads(item.value_json)
                                      for item in record.history.item})  # fmt: skip
            elif kind == "metric":
                found.metrics[record.metric.name or record.metric.glob_name] = record.metric
            elif kind == "artifact":
                found.artifacts.append(record.artifact)
            elif kind == "alert":
                found.alerts.append(record.alert)
    return found
