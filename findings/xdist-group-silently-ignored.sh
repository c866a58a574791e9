#!/usr/bin/env bash
# pytest-xdist 3.8.0 under pytest 9.2.0: `xdist_group` is ignored, and nothing is said.
#
# With `--dist loadgroup` all tests of one group have to run in one worker; suites rely on it for what exists once, a
# daemon or a port. Under pytest 9.2.0 they are spread over the workers as if they had no group. Under 8.4.2 they
# are not.
#
# Seen: eight tests of one group, two workers: 2 workers had some under 9.2.0, 1 worker had them all under 8.4.2.
set -eu
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
cat >"$work/test_group.py" <<'PYTHON'
import os
import time

import pytest

@pytest.mark.parametrize("n", range(8))
@pytest.mark.xdist_group("one")
def test_one(n, worker_id):
    time.sleep(0.2)  # so that a worker that may have some gets some
    with open(os.environ["WHO"], "a") as who:
        who.write(worker_id + "\n")
PYTHON
workers() {
    python3 -m venv "$work/$1"
    "$work/$1/bin/pip" install --quiet --disable-pip-version-check "pytest==$1" pytest-xdist==3.8.0
    : >"$work/who"
    (cd "$work" && WHO="$work/who" "$work/$1/bin/pytest" -q -p no:cacheprovider -n 2 --dist loadgroup >"$work/said" 2>&1)
    grep -q "8 passed" "$work/said"
    sort -u "$work/who" | wc -l
}
old=$(workers 8.4.2); new=$(workers 9.2.0)
echo "pytest 8.4.2, pytest-xdist 3.8.0: $old worker(s) ran the group"
echo "pytest 9.2.0, pytest-xdist 3.8.0: $new worker(s) ran the group"
[ "$old" = 1 ] && [ "$new" = 2 ]
