"""What runs inside a lab of the namespaces engine: its first process, its builder, the root of each host.

Standard library and testbed.linux only: the interpreter runs isolated, and each import costs at every start.
"""
