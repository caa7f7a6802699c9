"""Forward-only reader of a stored object that skips unread parts by a new request for the rest."""

from __future__ import annotations

from edgefolio.repository.storage import Storage

#: Less than this is read and dropped: a new request costs more.
_LEAST_SKIP_BYTES = 1 << 20
_BLOCK_BYTES = 256 << 10


class SkippingStream:
    """The object at ``path``. Raises FileNotFoundError if there is none."""

    def __init__(self, storage: Storage, path: str) -> None:
        self._storage = storage
        self._path = path
        self._stream = storage.open_at(path)
        self._at = 0

    def __enter__(self) -> SkippingStream:
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()

    def read(self, size: int, /) -> bytes:
        """``size`` bytes; fewer only at the end."""
        blocks = []
        while size > 0 and (block := self._stream.read(min(size, _BLOCK_BYTES))):
            blocks.append(block)
            size -= len(block)
            self._at += len(block)
        return b"".join(blocks)

    def seekable(self) -> bool:
        """Whether :meth:`seek` works: always, forwards."""
        return True

    def seek(self, offset: int, whence: int = 1, /) -> int:
        """Skip ``offset`` bytes; returns the new position."""
        if whence != 1 or offset < 0:
            raise ValueError("it skips forwards only")
        wanted = self._at + offset
        if offset >= _LEAST_SKIP_BYTES:
            self._stream.close()
            self._stream = self._storage.open_at(self._path, offset=wanted)
            # A server without ranges begins anew.
            self._at = self._stream.starts_at
        while self._at < wanted and self.read(min(wanted - self._at, _BLOCK_BYTES)):
            pass
        return self._at
