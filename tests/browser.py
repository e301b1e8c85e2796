"""Headless Chromium for the tests of a page: opens a file, and tells what the page logged and asked the network for.

Run as a script it photographs a report: `python tests/browser.py demo/labels/report.html reports/report.png [latent]`.
"""

import json
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
)


@contextmanager
def chromium(profile: Path, width: int = 1440, height: int = 900) -> Iterator:
    """A Selenium driver of headless Chromium with a fresh profile; skips where there is none."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="the report's browser test needs selenium")
    service, browser = shutil.which("chromedriver"), shutil.which("chromium") or shutil.which("google-chrome")
    if not service or not browser:
        pytest.skip("no chromedriver or Chromium on this machine: the report was not driven (see `make browser`)")
    options = webdriver.ChromeOptions()
    options.binary_location = browser
    for flag in (*FLAGS, f"--user-data-dir={profile}", f"--window-size={width},{height}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(service))
    try:
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        yield driver
    finally:
        driver.quit()


def wait_until(driver, script: str, seconds: float = 20):
    """What the script returns once that is true; fails with the script otherwise."""
    from selenium.webdriver.support.ui import WebDriverWait

    return WebDriverWait(driver, seconds, poll_frequency=0.05).until(
        lambda driver: driver.execute_script(f"return {script}"), f"never true in the page: {script}"
    )


def console_errors(driver) -> list[str]:
    """What the page has logged as an error since the last call: exceptions, blocked loads, broken rules."""
    return [entry["message"] for entry in driver.get_log("browser") if entry["level"] == "SEVERE"]


def network_requests(driver) -> list[str]:
    """Addresses beyond the file (and data inside it) that the page has asked for since the last call."""
    events = [json.loads(entry["message"])["message"] for entry in driver.get_log("performance")]
    asked = [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]
    return [address for address in asked if not address.startswith(("file:", "data:", "blob:"))]


def photograph(page: Path, picture: Path, latent: str = "", width: int = 1440, height: int = 900) -> None:
    """Save what a reader sees of a report, at twice the pixels, with this latent chosen."""
    with tempfile.TemporaryDirectory() as profile, chromium(Path(profile), width, height) as driver:
        metrics = {"width": width, "height": height, "deviceScaleFactor": 2, "mobile": False}
        driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        driver.get(page.resolve().as_uri() + (f"#latent={latent}" if latent else ""))
        wait_until(driver, "document.documentElement.dataset.ready === 'figures'")
        picture.parent.mkdir(parents=True, exist_ok=True)
        driver.save_screenshot(str(picture))


if __name__ == "__main__":
    photograph(Path(sys.argv[1]), Path(sys.argv[2]), *sys.argv[3:4])
