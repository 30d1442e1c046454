"""The GPU: how much memory is free, which services hold it, and who may have it next.

In: the services and needs of `services.yaml`, a meter (NVML), and the host, which is what ComfyUI
itself holds. Out: leases. Taking one makes room by the smallest sufficient step (nothing, unload
ComfyUI's models, put services to sleep, stop them), verified by the meter; ending one gives back
what was paused. Modules: `meter` and `trace` (figures), `service` (the protocol) with one module
for each kind, `journal` and `lock` (what survives a crash, and who else is there), `arbiter`
(leases), `report` (what was done).

Everything that waits is asynchronous and runs on one event loop, the arbiter's.
"""
