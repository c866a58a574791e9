"""The socket programs that run inside hosts. Standard library only; nothing else of testbed is imported here.

Each module with a `main` is a command, one kind of socket, usable by hand: `python -m testbed.programs.datagram
--help`. If it is a long one, its ends are in modules of their own beside it: `datagram_server`, `datagram_client`.
What begins with an underscore is shared by several: the command line (`_cli`), errors in words (`_errors`), the
life of a program (`_life`), what servers do (`_serving`), what is sent (`_sending`), and sockets (`_sockets`).
"""
