"""The official clients that this machine has."""

from pathlib import Path

from ops.lab.chaos.load.sdks.in_process import AnthropicSdk, OpenaiSdk
from ops.lab.chaos.load.sdks.process import SdkProgram, has_node_clients, node_sdks, start_node
from ops.lab.chaos.load.sdks.sdk import Sdk


class AvailableSdks:
    """Official clients for Python, and those for Node if `make clients` has installed them."""

    def __init__(self, node: SdkProgram | None) -> None:
        self._openai, self._anthropic, self._node = OpenaiSdk(), AnthropicSdk(), node
        self.all: list[Sdk] = [self._openai, self._anthropic, *(node_sdks(node) if node else ())]

    @classmethod
    async def start(cls, log: Path) -> "AvailableSdks":
        """Start the program for Node, if installed. Its errors are written to `log`."""
        return cls(await start_node(log) if has_node_clients() else None)

    async def close(self) -> None:
        """Close all connections, and end the program."""
        await self._openai.close()
        await self._anthropic.close()
        if self._node:
            await self._node.close()
