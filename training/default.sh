#!/usr/bin/env bash
# The default model from random weights to its ONNX file, in the repository's root: bash training/default.sh
set -euo pipefail
for part in default default_numbers; do
    torchrun --nproc-per-node 2 -m crnn_deploy train --config "training/$part.yaml"
done
crnn-deploy export --checkpoint runs/default_numbers/best.pth -o latin.onnx
