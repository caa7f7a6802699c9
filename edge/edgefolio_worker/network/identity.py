"""Who may connect: TLS 1.3, certificates on both sides, and exactly the one that the set names for each rank.

There is no authority: each certificate signs itself, and vouches for itself alone.
"""

from __future__ import annotations

import ssl

from edgefolio_worker.records.set_file import SetError, WorkerSet

__all__ = ["Identity"]


class Identity:
    """The certificates of a set, as its worker sees them. Without TLS it accepts whom the handshake accepts."""

    def __init__(self, worker_set: WorkerSet) -> None:
        """Raises :class:`SetError` if a certificate or the key cannot be read."""
        self._pinned: dict[int, bytes] = {}
        self._server: ssl.SSLContext | None = None
        self._clients: dict[int, ssl.SSLContext] = {}
        if not worker_set.is_encrypted:
            return
        try:
            for peer in worker_set.peers:
                self._pinned[peer.rank] = ssl.PEM_cert_to_DER_cert(peer.certificate)
                self._clients[peer.rank] = _context(ssl.PROTOCOL_TLS_CLIENT, worker_set, peer.certificate)
            # Those of lower rank connect.
            callers = "".join(peer.certificate for peer in worker_set.peers if peer.rank < worker_set.rank)
            self._server = _context(ssl.PROTOCOL_TLS_SERVER, worker_set, callers)
        except (OSError, ValueError) as error:
            raise SetError(f"a certificate or key cannot be used: {str(error)[:200]}") from error

    def accepting(self) -> ssl.SSLContext | None:
        """The context for those who connect; ``None`` without TLS."""
        return self._server

    def connecting(self, rank: int) -> ssl.SSLContext | None:
        """The context for a connection to ``rank``; ``None`` without TLS."""
        return self._clients.get(rank)

    def rank_of(self, certificate: bytes | None) -> int | None:
        """Whose certificate (DER) the other side presented; ``None`` if it is nobody's."""
        if certificate is None:
            return None
        return next((rank for rank, pinned in self._pinned.items() if pinned == certificate), None)


def _context(protocol: ssl._SSLMethod, worker_set: WorkerSet, trusted: str) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    # The certificate is compared as a whole; a name in it would prove less.
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_cert_chain(worker_set.certificate, worker_set.key)
    if trusted:
        context.load_verify_locations(cadata=trusted)
    if protocol == ssl.PROTOCOL_TLS_SERVER:
        # Nobody resumes a session: every connection shows its certificate.
        context.num_tickets = 0
    return context
