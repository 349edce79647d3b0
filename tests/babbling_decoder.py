"""A decoder process that answers nonsense: at once, or, to an agent that says so, to pictures."""

import socket

from pipeline.fetch import decoder


def main() -> None:
    with socket.socket(fileno=0) as connection:
        (size,) = decoder.LENGTH.unpack(connection.recv(decoder.LENGTH.size, socket.MSG_WAITALL))
        if b"patient" in connection.recv(size, socket.MSG_WAITALL):
            connection.sendall(decoder.PAIR.pack(2, 0) + b"[]")
            connection.recv(decoder.PAIR.size, socket.MSG_WAITALL)
        connection.sendall(decoder.PAIR.pack(8, 0) + b"nonsense")
        connection.recv(1)


if __name__ == "__main__":
    main()
