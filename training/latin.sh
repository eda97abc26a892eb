#!/usr/bin/env bash
# What training/latin.yaml trains on, in the repository's root:
#   bash training/latin.sh SCENE RECEIPTS READINGS
# SCENE and RECEIPTS are folders of images with a labels.tsv, as training/README.md says; READINGS has a line
# `image<TAB>text` for each receipt, by any reader that tells case.
set -euo pipefail
mkdir -p runs/data
python training/fetch.py fonts
python training/fetch.py photographs
ln -sfn "$(realpath "$1")" runs/data/scene
ln -sfn "$(realpath "$2")" runs/data/receipts
grep -v '###' "$1/labels.tsv" > runs/data/scene.txt  # ### marks what nobody could read
python training/settle_case.py "$2/labels.tsv" "$3" runs/data/receipts.txt
python training/grow.py training/print.pth runs/wide.pth --widths 32,64,128,192,256 --hidden 192
