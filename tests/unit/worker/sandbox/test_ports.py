"""Ports for servers on this machine."""

import socket

from worker.sandbox.servers.ports import free_port


def test_a_wanted_port_is_given_once_and_only_where_nobody_listens():
    with socket.create_server(("127.0.0.1", 0)) as server:
        wanted = server.getsockname()[1]
        assert free_port(wanted) != wanted
    assert free_port(wanted) == wanted
    assert free_port(wanted) != wanted
