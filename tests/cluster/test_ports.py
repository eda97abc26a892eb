"""Where a Ray of the command's own listens, on a machine that others reach."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from namespaces import alone, needs_namespaces

pytest.importorskip("ray.data", reason="needs the extra ray")
pytestmark = needs_namespaces


@pytest.fixture
def ray_home() -> Iterator[Path]:
    """A folder with a short path, as Ray's sockets need one."""
    folder = Path(tempfile.mkdtemp(prefix="r", dir="/tmp"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def test_nothing_listens_beside_loopback(tmp_path: Path, ray_home: Path) -> None:
    crops = tmp_path / "crops"
    crops.mkdir()
    for at in range(4):
        cv2.imwrite(str(crops / f"{at}.png"), np.full((32, 60), 40 * at, np.uint8))
    interface = (
        "ip link add there type veth peer name here && ip address add 10.21.0.1/24 dev here && "
        "ip link set here up && ip link set there up && ip route add default via 10.21.0.2 || exit 9"
    )
    run = f'"$python" -m crnn_deploy infer-cluster {crops} -o {tmp_path}/out --rows-per-file 1 --workers 1'
    look = "ss -ltunH | awk '{print \"listens \" $5}'"
    script = (
        f"{interface}; {run} & run=$!; while kill -0 $run 2>/dev/null; do {look}; sleep 0.3; done; wait $run"
    )
    ran = alone(script, ray_home)
    assert ran.returncode == 0, ran.stderr
    lines = [line.split() for line in ran.stdout.splitlines()]
    listening = {line[1] for line in lines if line[0] == "listens"}
    assert len(listening) >= 5, listening  # the driver, its worker and what belongs to Ray
    loopback = ("127.0.0.1:", "[::ffff:127.0.0.1]:", "[::1]:")
    assert not {address for address in listening if not address.startswith(loopback)}
