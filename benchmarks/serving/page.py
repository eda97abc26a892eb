"""What the page of `crnn-deploy serve` costs a browser, from choosing images until their texts are drawn.

    python -m benchmarks.serving.page [--rounds 7] [--images 1,12,100] [--json FILE]

CPU time is that of all threads of Chromium's renderer process. Its DevTools protocol gives it in steps of 10
ms. The commands of the program that drives the browser are in it: a fifth of it for 12 images. The server's
CPU time is beside it, in the same steps. Each round loads the page anew, so its script is as cold as for a
new visitor. The script needs the extras [cpu,serve], selenium, Chromium and chromedriver.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from benchmarks.common import measured, options, word_files, write
from benchmarks.serving.processes import crnn_deploy_server

__all__ = ["main"]

BROWSERS = ("chromium", "chromium-browser", "google-chrome")

# resolves when every image of the page has its text, and that is drawn
_ALL_SHOWN = """
const drawn = (then) => requestAnimationFrame(() => requestAnimationFrame(then));
window.allShown = new Promise((resolve) => {
  const observer = new MutationObserver(() => {
    if (document.querySelectorAll('.card[data-state=done] .text:not(:empty)').length === arguments[0]) {
      observer.disconnect(); drawn(resolve);
    }
  });
  observer.observe(document.querySelector('#summary'), {childList: true});
});
"""


def main(arguments: Sequence[str] | None = None) -> None:
    parser = options(__doc__, rounds=7)
    parser.add_argument("--images", default="1,12,100", help="Choose these numbers of images in the page.")
    given = parser.parse_args(arguments)
    counts = [int(count) for count in given.images.split(",")]
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    chromedriver = shutil.which("chromedriver")
    if browser is None or chromedriver is None:
        print("no Chromium or no chromedriver is on the PATH; install both", file=sys.stderr)
        raise SystemExit(2)

    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service
    from selenium.webdriver.common.by import By

    flags = webdriver.ChromeOptions()
    flags.binary_location = browser
    for flag in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        flags.add_argument(flag)
    spent: dict[int, dict[str, list[float]]] = {count: defaultdict(list) for count in counts}
    with tempfile.TemporaryDirectory() as folder:
        word_files(Path(folder, "words"), max(counts))
        words = [str(path) for path in sorted(Path(folder, "words").rglob("*.jpg"))]
        with (
            crnn_deploy_server("latin", Path(folder, "log"), "--workers", 1) as server,
            webdriver.Chrome(options=flags, service=Service(chromedriver)) as driver,
        ):
            driver.execute_cdp_cmd("Performance.enable", {})

            def renderer_ms() -> float:
                metrics = driver.execute_cdp_cmd("Performance.getMetrics", {})["metrics"]
                return 1e3 * float(next(one["value"] for one in metrics if one["name"] == "ProcessTime"))

            for at in range(given.rounds + 1):  # the first one warms up
                for count in counts:
                    driver.get(f"http://127.0.0.1:{server.port}/")
                    time.sleep(1)  # so that loading is over
                    driver.execute_script(_ALL_SHOWN, count)
                    begun, before, server_before = time.perf_counter(), renderer_ms(), server.cpu()
                    driver.find_element(By.ID, "files").send_keys("\n".join(words[:count]))
                    driver.execute_async_script("window.allShown.then(arguments[0])")
                    cpu, clock = renderer_ms() - before, 1e3 * (time.perf_counter() - begun)
                    if at:
                        spent[count]["cpu"].append(cpu)
                        spent[count]["server_cpu"].append(1e3 * (server.cpu() - server_before))
                        spent[count]["clock"].append(clock)
    rows = {
        f"{count} image{'s'[: count > 1]}": {
            "cpu": measured(found["cpu"], "CPU ms"),
            "server_cpu": measured(found["server_cpu"], "CPU ms"),
            "clock": measured(found["clock"], "ms"),
        }
        for count, found in spent.items()
    }
    for name, row in rows.items():
        cpu, served, clock = (row[key]["median"] for key in ("cpu", "server_cpu", "clock"))
        print(
            f"{name}: renderer {cpu:.4g} CPU ms, server {served:.4g} CPU ms, shown after {clock:.4g} ms",
            flush=True,
        )
    write("serving_page", rows, given.json)


if __name__ == "__main__":
    main()
