"""What this machine says of itself, asked by psutil; each question takes it about a tenth of a millisecond."""

from __future__ import annotations

import psutil

GAUGES = ("cpu", "memory")
"""Metrics that can be read as they are, in percent."""

COUNTERS = ("disk", "network")
"""Metrics that are counted, in bytes since the machine was started; what is of interest is how fast."""


def read(metric: str) -> float | None:
    """Give the percentage or the count of a metric now, None where this machine has none."""
    try:
        match metric:
            case "cpu":
                return psutil.cpu_percent()  # since it was last asked, at first since psutil was imported
            case "memory":
                return psutil.virtual_memory().percent
            case "disk":
                disk = psutil.disk_io_counters()
                return None if disk is None else disk.read_bytes + disk.write_bytes
            case "network":
                network = psutil.net_io_counters()
                return None if network is None else network.bytes_recv + network.bytes_sent
    except (OSError, NotImplementedError, RuntimeError):  # a container may hide what psutil looks at
        return None
    raise ValueError(f"there is no metric {metric!r}")
