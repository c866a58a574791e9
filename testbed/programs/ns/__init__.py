"""The Network Systems protocols, in user space: IDP and SPP as packets, as a protocol core, and as sockets.

`packets` and `connection` know no socket and no clock. `sockets` is the thin shell that gives them both.
"""
