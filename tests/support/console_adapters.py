"""Adapters that the console's tests load, and their rows on the Adapters page."""

from pathlib import Path
from typing import Any

import httpx
from playwright.async_api import Locator, Page, expect
from servers import Server

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


def adapter(server: Server, name: str) -> dict[str, Any]:
    """Return what the server says of an adapter."""
    body: dict[str, Any] = httpx.get(f"{server.url}/v1/adapters/{name}", timeout=60).json()
    return body


def load_in_place(server: Server, name: str, source: Path) -> str:
    body = {"lora_name": name, "lora_path": str(source), "load_inplace": True}
    httpx.post(f"{server.url}/v1/load_lora_adapter", json=body, timeout=60).raise_for_status()
    return str(adapter(server, name)["version"])


def digest(version: str) -> str:
    """Return the part of a version after its name."""
    return version.rpartition("@")[2]


def rows(page: Page, name: str) -> Locator:
    """Return the rows of an adapter on the Adapters page."""
    return page.locator(".adapter").filter(has=page.get_by_role("button", name=name, exact=True))


async def open_row(page: Page, name: str) -> Locator:
    shown = rows(page, name)
    await shown.get_by_role("button", name=name, exact=True).click()
    return shown


async def expect_compared(page: Page, row: Locator, *versions: str) -> None:
    """Press the button that compares versions, and expect the Compare page to ask these first."""
    await row.get_by_role("button", name="Compare versions").click()
    fields = page.get_by_role("combobox")
    for place, version in enumerate(versions):
        await expect(fields.nth(place)).to_have_value(version)
