"""How fast, how much, how punctual: each figure beside a floor or a peer that is measured in the same run.

`make bench` runs them. Nothing here is a test: a figure that misses its aim is said and is no failure.
"""
