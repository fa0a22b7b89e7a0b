"""The ports of a gateway machine, bound before anything else starts."""

import socket

from gateway.config import GatewayConfig
from gateway.parent import sockets


class Ports:
    """HTTP and metrics listen; gRPC is held for the processes. Raises CannotStart naming a port that is taken."""

    def __init__(self, config: GatewayConfig) -> None:
        self._bound: list[socket.socket] = []
        try:
            self.http = self._keep(sockets.listen(config.host, config.http_port, "--http-port"))
            self.grpc = self._keep(sockets.hold(config.host, config.grpc_port, "--grpc-port"))
            self.metrics = self._keep(sockets.listen(config.host, config.metrics_port, "--metrics-port"))
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Give all ports back."""
        for sock in self._bound:
            sock.close()

    def _keep(self, sock: socket.socket) -> socket.socket:
        self._bound.append(sock)
        return sock
