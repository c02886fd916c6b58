"""GPUs for a container: whether the engine can give them, and how they are asked for."""

from typing import Any

from docker.types import DeviceRequest

from repro.runner import Gpus

CDI_KIND = "nvidia.com/gpu"


def device_requests(wish: Gpus, info: dict[str, Any]) -> tuple[DeviceRequest, ...]:
    """Return what gives a container all GPUs, or nothing.

    Args:
        info: what the engine says of itself (`client.info()`).

    Raises:
        ValueError: all GPUs are asked for and the engine has none to give.
    """
    if wish is Gpus.NONE:
        return ()
    if "nvidia" in (info.get("Runtimes") or {}):
        return (DeviceRequest(count=-1, capabilities=[["gpu"]]),)
    if any(device.get("ID", "").startswith(f"{CDI_KIND}=") for device in info.get("DiscoveredDevices") or []):
        return (DeviceRequest(driver="cdi", device_ids=[f"{CDI_KIND}=all"]),)
    if wish is Gpus.ALL:
        raise ValueError("--gpus all: the engine has neither the 'nvidia' runtime nor CDI devices of NVIDIA. Install "
                         "the NVIDIA Container Toolkit and restart the engine, or use --gpus none")
    return ()
