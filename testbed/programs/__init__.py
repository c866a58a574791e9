"""The socket programs that run inside hosts. Standard library only; nothing else of testbed is imported here.

Each module is one kind of socket, usable by hand: `python -m testbed.programs.datagram --help`.
"""
