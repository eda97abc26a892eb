#!/usr/bin/env bash
# The print model from random weights to its ONNX file, in the repository's root: bash training/print.sh
set -euo pipefail
for part in print print_numbers; do
    torchrun --nproc-per-node 2 -m crnn_deploy train --config "training/$part.yaml"
done
crnn-deploy export --checkpoint runs/print_numbers/best.pth -o print.onnx
