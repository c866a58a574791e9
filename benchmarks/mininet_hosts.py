"""The peer for hosts of namespaces: Mininet with a Linux bridge. Runs under Debian's own Python, which has it."""

from __future__ import annotations

import json
import sys
import time

from mininet.net import Mininet  # type: ignore[import-not-found,unused-ignore]
from mininet.nodelib import LinuxBridge  # type: ignore[import-not-found,unused-ignore]
from mininet.topo import SingleSwitchTopo  # type: ignore[import-not-found,unused-ignore]

began = time.perf_counter()
net = Mininet(topo=SingleSwitchTopo(int(sys.argv[1])), switch=LinuxBridge, controller=None)
net.start()
up_s = time.perf_counter() - began
began = time.perf_counter()
net.stop()
print(json.dumps({"up_s": up_s, "down_s": time.perf_counter() - began}))
