#!/usr/bin/env bash
# A GPU's speed as one table, in under 8 minutes: see benchmarks/gpu.py. Set up first with: make install
#   bash benchmarks/gpu.sh [--cifar10 FOLDER] [--out gpu.md]
cd "$(dirname "$0")/.." || exit 1
python=.venv/bin/python
[ -x "$python" ] || python=python3
exec timeout 480 "$python" -m benchmarks.gpu "$@"
