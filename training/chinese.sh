#!/usr/bin/env bash
# The Chinese model, from the print model's convolutions to its ONNX file, in the repository's root:
#   apt-get install $(crnn-deploy dataset fonts --packages) $(crnn-deploy dataset fonts --packages --tier chinese)
#   bash training/chinese.sh
set -euo pipefail
mkdir -p runs
python training/fetch.py fonts --chinese runs/fonts_cjk
python training/fetch.py photographs
python training/gb2312.py > runs/gb2312.txt
python training/grow.py training/print.pth runs/chinese_start.pth \
    --widths 32,64,128,192,256 --hidden 192 --head 128 --recipe training/chinese.toml
for part in chinese chinese_2 chinese_3; do
    torchrun --nproc-per-node 2 -m crnn_deploy train --config "training/$part.yaml"
done
python training/blend.py runs/chinese_2/best.pth runs/chinese_3/best.pth runs/chinese.pth --share 0.8
crnn-deploy export --checkpoint runs/chinese.pth -o chinese.onnx
