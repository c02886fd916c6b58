"""What the image of a workspace is called: it follows from the locked requirements, which it consists of."""

from pathlib import Path

from repblend.store import sha256

LOCK = Path("requirements/lock.txt")


def image_name(root: Path) -> str:
    """Return `repblend:` and the first 12 digits of the SHA-256 of the workspace's `requirements/lock.txt`."""
    return f"repblend:{sha256(root / LOCK)[:12]}"
