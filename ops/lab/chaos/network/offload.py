"""Program that turns off one interface's offload of checksums and segmentation.

Usage: python -m ops.lab.chaos.network.offload INTERFACE. By default, a virtual interface leaves
checksums and segmentation to its peer. A relay would then forward frames without checksums.
"""

import ctypes
import fcntl
import socket
import struct
import sys

SIOCETHTOOL = 0x8946
# Commands of linux/ethtool.h that set a feature.
TX_CHECKSUMS, SCATTER_GATHER, TCP_SEGMENTS, GENERIC_SEGMENTS = 0x17, 0x19, 0x1F, 0x24


def main() -> None:
    """Turn off checksum and segmentation offload of the interface."""
    name = sys.argv[1].encode()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        for command in (TCP_SEGMENTS, GENERIC_SEGMENTS, SCATTER_GATHER, TX_CHECKSUMS):
            value = ctypes.create_string_buffer(struct.pack("II", command, 0))
            request = struct.pack("16sP", name, ctypes.addressof(value))
            fcntl.ioctl(any_socket, SIOCETHTOOL, request)


if __name__ == "__main__":
    main()
