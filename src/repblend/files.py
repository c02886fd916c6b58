"""Files that somebody gave us: sets, captions, recordings, weights, archives. Every reader opens them here.

Such a file is regular (a pipe would hang, a device never end), lies in the folder of its set also after links are
followed, and has at most the bytes that `LIMITS` states for its kind. Whatever is wrong with it, in whatever library,
becomes one `Refusal` that begins with the file's name and says how to mend it.
"""

import codecs
import contextlib
import errno
import json
import os
import re
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, Literal, TypeVar

Used = TypeVar("Used")
Kind = Literal["text", "attribution", "image", "recording", "tensors", "archive"]
MIB = 1 << 20
LIMITS: dict[Kind, int] = {"text": 512 * MIB, "attribution": MIB, "image": 128 * MIB, "recording": 1024 * MIB,
                           "tensors": 65_536 * MIB, "archive": 262_144 * MIB}
"""Bytes that a file of each kind may have; captions and all JSON are text. COCO's captions have 113 MB."""
SPECIAL = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a named pipe", stat.S_IFSOCK: "a socket",
           stat.S_IFCHR: "a device", stat.S_IFBLK: "a device"}
WIDE_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, codecs.BOM_UTF32_BE)
SHOWN = 20
"""Characters of a file that an error quotes."""
HEAD = 512
"""Bytes that tell what a file really is."""
SIGNS = {
    rb"\Z": "an empty file",
    rb"version https://git-lfs": "a Git LFS pointer; bring the file that it stands for",
    rb"(\xef\xbb\xbf)?\s*<(!doctype|html|head|\?xml)": "a web page",
    rb"PK\x03\x04|PK\x05\x06": "a ZIP archive",
    rb"\x1f\x8b": "a gzip file",
    rb"(?s).{257}ustar": "a tar archive",
    rb"\x89PNG|\xff\xd8\xff|GIF8": "an image",
    rb"%!PS|\xc5\xd0\xd3\xc6": "a PostScript file",
    rb"\x80[\x02-\x05]": "a Python pickle",
}
"""How a file begins -> what it is."""


class Refusal(ValueError):
    """A file that is not taken. The message begins with its name, and is not put into another one's."""


@contextlib.contextmanager
def named(where: object, expected: str, remedy: str, head: bytes | None = None) -> Iterator[None]:
    """Turn whatever a library raises on a file's content into one error.

    Args:
        where: what the error calls the file.
        expected: what the file should be, for example "a whole image file".
        remedy: one sentence, without its full stop.
        head: how the file begins, to say what it really is.

    Raises:
        Refusal: anything was raised.
    """
    try:
        yield
    except Refusal:
        raise
    except Exception as error:  # decoders raise whatever they come upon: SyntaxError, IndexError, struct.error
        found = looks_like(head) if head is not None else None
        is_another = found and found.split()[1] not in expected  # "an image" says nothing of a damaged image
        reason = f"it is {found}" if is_another else first_line(error)
        raise Refusal(f"{where}: expected {expected} ({reason}). {remedy}") from error


def first_line(error: BaseException) -> str:
    """Return what an error says, in one printable line of at most 200 characters."""
    line = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
    line = re.sub(r" <_io\.\w+ object at \w+>", "", line)  # Pillow's name of bytes in memory
    return "".join(sign if sign.isprintable() else ascii(sign)[1:-1] for sign in line)


def looks_like(head: bytes) -> str | None:
    """Return what a file that begins so is, if that can be told."""
    return next((what for sign, what in SIGNS.items() if re.match(sign, head, re.IGNORECASE)), None)


@contextlib.contextmanager
def open_given(path: Path, kind: Kind, inside: Path | None = None) -> Iterator[BinaryIO]:
    """Open a file that somebody gave us.

    Args:
        inside: the folder of the set that it belongs to; it may be a link itself.

    Raises:
        FileNotFoundError: there is no such file.
        Refusal: it is not regular, leaves the folder, is too large, or cannot be opened.
    """
    try:
        real = os.path.realpath(path)
        if inside is not None and not Path(real).is_relative_to(os.path.realpath(inside)):
            raise Refusal(f"{path}: leads out of {inside}, to {real}; expected files of the set's own folder. Put a "
                          "copy in the place of the link")
        _check(path, kind, os.stat(real))  # noqa: PTH116 (a string)
        descriptor = os.open(real, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise FileNotFoundError(errno.ENOENT, "no such file", str(path)) from error
    except Refusal:
        raise
    except (OSError, ValueError) as error:  # a name with a zero byte is a ValueError
        reason = error.strerror if isinstance(error, OSError) else error
        raise Refusal(f"{ascii(str(path))[1:-1]}: cannot be read ({reason}). Mend its name or permissions, or put "
                      "another file there") from error
    with os.fdopen(descriptor, "rb") as file:
        _check(path, kind, os.fstat(descriptor))  # what was opened may be another one than was looked at
        yield file


def _check(path: Path, kind: Kind, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise Refusal(f"{path}: is {SPECIAL.get(stat.S_IFMT(status.st_mode), 'no file')}, expected a file. Put one "
                      "there")
    if status.st_size > LIMITS[kind]:
        raise Refusal(f"{path}: has {status.st_size:,} bytes, expected at most {LIMITS[kind]:,} ({kind}). Put a "
                      "smaller file there")


def size_of(file: BinaryIO) -> int:
    """Return how many bytes an open file has."""
    return os.fstat(file.fileno()).st_size


def read_bytes(path: Path, kind: Kind, inside: Path | None = None) -> bytes:
    """Return a file's content; raises as `open_given`."""
    with open_given(path, kind, inside) as file, named(path, "a readable file", "Put it there again"):
        return file.read(size_of(file))  # never more, should it grow meanwhile


def read_text(path: Path, kind: Kind = "text", inside: Path | None = None) -> str:
    """Return a text in UTF-8, with or without a byte order mark; raises as `open_given`, or if it is none."""
    content = read_bytes(path, kind, inside)
    if content and (found := looks_like(content[:HEAD])):
        raise Refusal(f"{path}: expected UTF-8 text, but it is {found}. Put the text there")
    if not content.startswith(WIDE_MARKS) and b"\0" in content:
        line = content.count(b"\n", 0, content.index(0)) + 1
        raise Refusal(f"{path}, line {line}: expected UTF-8 text, but it has a zero byte, as UTF-16 and what is no "
                      "text have. Convert the file to UTF-8")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        found = "it is UTF-16 or UTF-32" if content.startswith(WIDE_MARKS) else f"byte {error.start} is none"
        raise Refusal(f"{path}, line {content.count(bytes([10]), 0, error.start) + 1}: expected UTF-8 text, but "
                      f"{found}. Convert the file to UTF-8") from error


def parse_json(text: str, where: object, first_line_number: int = 1) -> Any:
    """Return what a JSON text says: one value, and no key twice in an object.

    Args:
        where: what an error calls the file.
        first_line_number: of the file, where only a part of it is given.

    Raises:
        Refusal: it is no JSON; the message names the line.
    """
    try:
        return json.loads(text, object_pairs_hook=_unique)
    except json.JSONDecodeError as error:
        found = error.doc[error.pos:error.pos + SHOWN]
        raise Refusal(f"{where}, line {error.lineno + first_line_number - 1}: expected JSON ({error.msg}), found "
                      f"{found!r} at character {error.colno}. Correct it there, or make the file again") from error
    except (ValueError, RecursionError) as error:  # a key twice, a number of 5,000 digits, brackets in brackets
        raise Refusal(f"{where}: expected plain JSON ({first_line(error)}). Correct it, or make the file again"
                      ) from error


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        twice = next(key for number, (key, _) in enumerate(pairs) if key in dict(pairs[:number]))
        raise ValueError(f"key {twice!r} stands twice in one object, {dict(pairs)!r:.200}")
    return content


def confirmed(expected: str | None, check: Callable[[], object], use: Callable[[], Used]) -> Used:
    """Return what the use of imported files gives. Where their hash is expected, they are checked before; where none is
    given yet, it is asked for afterwards, so that nobody looks up the hash of a file that is of no use.

    Args:
        expected: the SHA-256 that the parameters give.
        check: raises `ValueError` unless that is given and right.
        use: raises `ValueError` if the files are of no use; writes nothing that stays.
    """
    if expected:
        check()
    used = use()
    if not expected:
        check()
    return used
