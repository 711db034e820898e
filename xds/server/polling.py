"""Who waits for the sockets: the thread that also hands on what came. Import this before anything that loads gRPC.

gRPC's core can wait for its sockets in two ways. By its usual one, the *event engine*, threads of a pool wait for them
and pass on what they read to the thread that feeds asyncio: every message wakes two threads, and on a few cores these
take turns with the interpreter. Without the event engine's listener the thread that feeds asyncio waits for the sockets
itself. What the least server costs per change and stream falls by a quarter, a storm of reconnections by an eighth
(``benchmarks/xds_floor.py``, 1,000 streams on two shared cores: 95 to 70 us, 810 to 720 ms).

The core reads the switch when it is loaded. Whoever sets ``GRPC_EXPERIMENTS`` themselves decides for themselves.
"""

import os

VARIABLE = "GRPC_EXPERIMENTS"
"""https://github.com/grpc/grpc/blob/master/doc/environment_variables.md"""

os.environ.setdefault(VARIABLE, "-event_engine_listener")
