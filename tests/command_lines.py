"""A command line for everything that the table of commands says a command can do, and its run.

    python tests/command_lines.py FOLDER [MODULE ...] [--quick]

runs what `doctor` says works in this Python, and what it says does not, on the files that `make_inputs` left
in FOLDER, as if the MODULEs were not installed. Prints what `doctor` was wrong about; on stderr, each command
with its CPU time. Needs the toolkit alone. --quick leaves the slowest out.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import redirect_stdout, suppress
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType
from typing import ClassVar

__all__ = ["LINES", "NOT_RUN", "OF_SPEED", "make_inputs"]

_HTML = "-o {out}/x.onnx --html {out}/x.html"
_BENCHMARK = "benchmark tiny.onnx --rounds 2 --max-images 4 --widths 100 --batches 1"
_QAT = "--qat --set start.checkpoint=tiny.pth --set start.recipe=paper"
_NUMBERS = "--alphabet-string 0123456789"
_TORCH = "--recipe paper"
_QUANTIZE = "--scales scales.json --target-device gpu -o {out}/q.onnx"

# by command and what it is used for, as crnn_deploy.commands has them; of a command alone, without any use
LINES = {
    "infer|with --backend onnxruntime, the default": "infer --model tiny.onnx crops",
    "infer|with --backend openvino": "infer --model tiny.onnx --backend openvino crops",
    "infer|with --decoder beam at full speed": "infer --model tiny.onnx --decoder beam crops",
    "export": f"export --checkpoint tiny.pth {_TORCH} -o {{out}}/x.onnx",
    "export|with an alphabet in YAML": f"export --checkpoint tiny.pth {_TORCH} --alphabet digits.yaml "
    "-o {out}/xy.onnx",
    "build-engine": "build-engine tiny.onnx --fp16 --width-range 100,100,200 -o {out}/x.engine",
    "build-engine|with --checkpoint": "build-engine tiny.onnx --width-range 100,100,200 "
    f"--checkpoint tiny.pth {_TORCH} -o {{out}}/z.engine",
    "calibrate": "calibrate tiny.onnx crops --method minmax -o {out}/x.json",
    "calibrate|without IMAGES": "calibrate tiny.onnx --method minmax --max-images 32 -o {out}/y.json",
    "quantize": f"quantize tiny.onnx crops {_QUANTIZE}",
    "quantize|without DATA": f"quantize tiny.onnx --synthetic-images 40 {_QUANTIZE}",
    "quantize|of an LMDB": f"quantize tiny.onnx packed.lmdb --kind lmdb {_QUANTIZE}",
    "quantize|with --rest fp16": f"quantize tiny.onnx crops --rest fp16 {_QUANTIZE}",
    "quantize|with --html": f"quantize tiny.onnx crops {_QUANTIZE} --html {{out}}/q.html",
    "verify|of .onnx files": "verify tiny.onnx tiny.onnx",
    "verify|of checkpoints": f"verify tiny.pth tiny.pth {_TORCH}",
    "verify|of an LMDB": "verify tiny.onnx tiny.onnx --labels packed.lmdb",
    "evaluate|of .onnx files": "evaluate tiny.onnx labels.txt",
    "evaluate|of checkpoints": f"evaluate tiny.pth labels.txt {_TORCH}",
    "evaluate|of an LMDB": "evaluate tiny.onnx packed.lmdb",
    "evaluate|with --html": "evaluate tiny.onnx labels.txt --html {out}/e.html",
    "evaluate|with --decoder beam at full speed": "evaluate tiny.onnx labels.txt --decoder beam",
    "benchmark|of .onnx files": _BENCHMARK,
    "benchmark|with operations counted": _BENCHMARK,
    "benchmark|with --plot": f"{_BENCHMARK} --plot {{out}}/b.png",
    "inspect|of .engine files": "inspect tiny.engine",
    "inspect|of .onnx files": "inspect tiny.onnx",
    "inspect|of checkpoints": f"inspect tiny.pth {_TORCH}",
    "describe": f"describe foreign.onnx {_TORCH} {_NUMBERS} -o {{out}}/d.onnx",
    "describe|with an alphabet in YAML": f"describe foreign.onnx {_TORCH} --alphabet digits.yaml "
    "-o {out}/dy.onnx",
    "set-decoding": "set-decoding tiny.onnx --allow 0123 -o {out}/s.onnx",
    "calibrate-confidence": "calibrate-confidence latin.onnx labels.txt -o {out}/c.onnx",
    "calibrate-confidence|of an LMDB": "calibrate-confidence latin.onnx packed.lmdb -o {out}/c.onnx",
    "calibrate-confidence|with --html": "calibrate-confidence latin.onnx labels.txt "
    "-o {out}/c.onnx --html {out}/c.html",
    "triton": "triton tiny.onnx -o {out}/repository",
    "lm train": "lm train lines.txt -o {out}/lines.arpa",
    "doctor|with --model": "doctor --model tiny.onnx",
    "recipes": "recipes paper",
    "train": "train --config train.yaml --set out={out}/run",
    "train|of an LMDB": "train --config train.yaml --set out={out}/run-lmdb --set train.0.path=packed.lmdb",
    "train|with --qat": f"train --config train.yaml --set out={{out}}/run-qat {_QAT}",
    "dataset check": f"dataset check labels.txt {_NUMBERS}",
    "dataset check|of an LMDB": f"dataset check packed.lmdb {_NUMBERS}",
    "dataset check|with --model": "dataset check labels.txt --model tiny.onnx",
    "dataset check|with --plot": f"dataset check labels.txt {_NUMBERS} --plot {{out}}/w.png",
    "dataset pack": "dataset pack labels.txt -o {out}/shards --pack-format webdataset",
    "dataset pack|into an LMDB": "dataset pack labels.txt -o {out}/packed.lmdb",
    "dataset preview": "dataset preview labels.txt --max-images 4 -o {out}/sheet.png",
    "dataset preview|of an LMDB": "dataset preview packed.lmdb --max-images 4 -o {out}/sheet.png",
    "dataset effects": "dataset effects document -o {out}/effects.png",
    "dataset fonts": "dataset fonts",
    "dataset pack-fonts": "dataset pack-fonts --folder fonts -o {out}/fonts.tar.xz",
}
NOT_RUN = {
    **dict.fromkeys(
        (
            *(f"{command}|of .engine files" for command in ("infer", "verify", "evaluate", "benchmark")),
            "build-engine|with a check on the GPU",
        ),
        "needs a GPU",
    ),
    **dict.fromkeys(
        ("infer|with a binary --lm", "evaluate|with a binary --lm"), "a program of KenLM's makes the file"
    ),
    **dict.fromkeys(
        (f"{command}|of shards in a store" for command in ("train", "dataset check", "dataset pack")),
        "needs an S3 server; tests/datasets and tests/training run it",
    ),
    "doctor": "it is what is asked",
    **dict.fromkeys(
        (
            *(f"serve|with --backend {name}" for name in ("onnxruntime, the default", "openvino")),
            *("serve|of .engine files", "serve|with decoder=beam at full speed"),
        ),
        "it does not end by itself; tests/serving run it",
    ),
    **dict.fromkeys(
        (
            *(f"infer-cluster|with --backend {name}" for name in ("onnxruntime, the default", "openvino")),
            *(f"infer-cluster|{use}" for use in ("of .engine files", "of an LMDB", "with a binary --lm")),
            "infer-cluster|with --decoder beam at full speed",
        ),
        "Ray listens on all interfaces; tests/cluster run it in a network of its own",
    ),
}
OF_SPEED = ("at full speed", "with operations counted")  # what works without the library too, and less well

_SLOW = ("export", "calibrate")

_FAILED = re.compile(
    r"needs .*; run |cannot be imported|unexpected|no inference library|is not usable here|Traceback"
)
_REFUSALS = {"quantize": (1,), "calibrate-confidence": (1,)}  # exit codes of a verdict, beside 0


def make_inputs(folder: Path, tiny_onnx: Path | None = None) -> None:
    """What the lines read. Needs all of the toolkit's extras but those for GPUs.

    tiny_onnx: the network of the tests, where it was exported before
    """
    import cv2
    import numpy as np
    import onnx
    import torch
    import yaml
    from matplotlib import get_data_path
    from paper_gpu import write_engine

    from crnn_deploy.cli.main import main
    from crnn_deploy.datasets import open_dataset
    from crnn_deploy.datasets.pack import pack
    from crnn_deploy.models import DEFAULT
    from crnn_deploy.networks.crnn import CRNN

    torch.manual_seed(0)
    module = CRNN(32, 1, 11, hidden=8, widths=(4, 4, 8, 8, 8, 8, 8))
    torch.save({"state_dict": module.state_dict(), "alphabet": "0123456789"}, folder / "tiny.pth")
    exported = folder / "tiny.onnx"
    if tiny_onnx is None:
        command = ["export", "--checkpoint", str(folder / "tiny.pth"), "--recipe", "paper"]
        main([*command, "-o", str(exported)], standalone_mode=False)
    else:
        shutil.copy(tiny_onnx, exported)
    foreign = onnx.load(folder / "tiny.onnx")
    del foreign.metadata_props[:]
    onnx.save(foreign, folder / "foreign.onnx")
    write_engine(folder / "tiny.onnx", folder / "tiny.engine")
    shutil.copy(DEFAULT, folder / "latin.onnx")
    (folder / "crops").mkdir()
    labels = []
    for at in range(60):
        text = str(7919 * (at + 1) ** 2)[: 2 + at % 5]
        image = np.full((28, 10 + 13 * len(text)), 230, np.uint8)
        cv2.putText(image, text, (4, 21), at % 8, 0.6, 20, 1 + at % 2, cv2.LINE_AA)
        if at % 3 == 0:  # some are read wrong
            cv2.GaussianBlur(image, (0, 0), 3, dst=image)
        cv2.imwrite(str(folder / "crops" / f"{at}.png"), image)
        labels.append(f"crops/{at}.png {text}\n")
    (folder / "labels.txt").write_text("".join(labels))
    pack(open_dataset(str(folder / "labels.txt")), folder / "packed.lmdb")
    (folder / "lines.txt").write_text("".join(f"line {at}\n" for at in range(5)))
    (folder / "fonts").mkdir()
    shutil.copy(Path(get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf", folder / "fonts")
    scales = [str(folder / "tiny.onnx"), str(folder / "crops"), "-o", str(folder / "scales.json")]
    main(["calibrate", *scales, "--method", "minmax"], standalone_mode=False)
    config = {
        **{"alphabet": {"string": "0123456789"}, "recipe": "paper", "out": "run", "steps": 2, "batch": 2},
        **{"network": {"name": "compact", "scale": 0.34, "hidden": 8}, "train": [{"path": "labels.txt"}]},
    }
    (folder / "digits.yaml").write_text("".join(f"- '{digit}'\n" for digit in range(10)))
    (folder / "train.yaml").write_text(yaml.safe_dump(config))


class _Without(PathFinder):
    """Finds modules as before, but for some."""

    absent: ClassVar[frozenset[str]] = frozenset()

    @classmethod
    def find_spec(
        cls, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        return None if fullname.partition(".")[0] in cls.absent else super().find_spec(fullname, path, target)


def _draw_with_few_fonts() -> None:
    """Those inside matplotlib, since a system's are looked through for seconds by every command."""
    with suppress(ImportError):
        from crnn_deploy.synthesis import fonts

        fonts.scan.__defaults__ = ("latin", ())


def _wrong(out: str, left_out: Sequence[str]) -> list[str]:
    """What `doctor` says wrongly of this Python, having run everything in the current folder."""
    from click.testing import CliRunner

    from crnn_deploy.cli.main import main
    from crnn_deploy.commands import COMMANDS
    from crnn_deploy.doctor import examine

    _draw_with_few_fonts()
    wrong = []
    for found in examine().commands:
        command = COMMANDS[found.name]
        impossible = {limit.what for limit in found.limits}
        works = {
            f"{found.name}|{use.what}": found.status == "works" and use.what not in impossible
            for use in (*command.ways, *command.uses)
        }
        if not command.ways:
            works[found.name] = found.status == "works"
        for name, expected in works.items():
            if name in NOT_RUN or name in left_out or (not expected and name.endswith(OF_SPEED)):
                continue
            start = time.process_time()
            result = CliRunner().invoke(main, shlex.split(LINES[name].format(out=out)))
            said = result.stderr.strip().splitlines()[-1:]
            fine = result.exit_code in (0, *_REFUSALS.get(found.name, ())) and not _FAILED.search(
                result.stderr
            )
            if fine != expected:
                claim = "works" if expected else "does not work"
                wrong.append(f"doctor says that {name} {claim}; exit code {result.exit_code}, {said}")
            took = time.process_time() - start
            print(
                f"{took:5.1f} s  {name}: exit code {result.exit_code} {' '.join(said)[:90]}", file=sys.stderr
            )
    return wrong


if __name__ == "__main__":
    _Without.absent = frozenset(sys.argv[2:])
    sys.meta_path[sys.meta_path.index(PathFinder)] = _Without
    os.chdir(sys.argv[1])
    with tempfile.TemporaryDirectory() as made:
        os.environ["CRNN_DEPLOY_CACHE"] = made  # what is remembered from elsewhere may not run here
        with redirect_stdout(sys.stderr):  # OpenCV prints why it cannot be imported
            wrong = _wrong(made, _SLOW if "--quick" in sys.argv else [])
        for line in wrong:
            print(line)
