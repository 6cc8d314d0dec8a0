"""Take docs/images/demo.png: the page of `jpegsr demo` with a sample photo (CC0) enhanced.

python scripts/demo_screenshot.py

Needs playwright, of the extra `test`, and Chromium.
"""

import io
import pathlib
import shutil

from PIL import Image
from playwright.sync_api import sync_playwright

from jpegsr import demo
from jpegsr.config import DemoConfig
from jpegsr.demo_work import Models

TARGET = pathlib.Path(__file__).parent.parent / "docs" / "images" / "demo.png"


def main() -> None:
    with demo.served(Models(["base"]), DemoConfig(port=0)) as url, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.goto(url)
        page.get_by_role("button", name="sample photo coffee.jpg").click()
        page.get_by_text("JPEG quality").wait_for()
        page.get_by_role("button", name="Enhance", exact=True).click()
        page.get_by_text("of which the network took").wait_for()
        page.mouse.move(0, 0)
        page.wait_for_timeout(1000)  # until the pictures are there
        picture = page.screenshot(full_page=True)
        browser.close()
    # A palette of 256 colours is enough for a web page, and a quarter of the size.
    with Image.open(io.BytesIO(picture)) as screenshot:
        screenshot.convert("RGB").quantize(256).save(TARGET, optimize=True)


if __name__ == "__main__":
    main()
