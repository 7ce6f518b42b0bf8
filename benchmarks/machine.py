"""What a figure was measured on, and small arithmetic the benchmarks share."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[1]


def facts() -> dict[str, Any]:
    """Date, processor and kernel, and how busy the machine was."""
    model = next((line.split(":", 1)[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line), "")
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "cores": os.cpu_count(),
        "processor": model,
        "memory_mb": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20,
        "kernel": platform.release(),
        "python": platform.python_version(),
        "root": os.geteuid() == 0,
        "load_before": round(os.getloadavg()[0], 2),
    }


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest value that at least so many percent do not exceed (nearest rank), in milliseconds' precision."""
    ordered = sorted(values)
    return round(ordered[max(0, -(-len(ordered) * percent // 100).__int__() - 1)], 3) if ordered else 0.0


def spread(values: Sequence[float]) -> dict[str, float]:
    """Seconds: p50, p99, and the worst."""
    return {"p50": percentile(values, 50), "p99": percentile(values, 99), "max": round(max(values, default=0.0), 3), "n": len(values)}
