#!/usr/bin/env bash
# pytest-docker 3.2.6: an `up` that fails is never taken down.
#
# The plugin runs `up` before the `try` whose `finally` runs `down`. Where one service of a stack does not start,
# the others, their networks and their volumes stay, after every run of the tests. `docker compose up --wait` also
# ends with 1 when a service has simply done its work and exited with 0.
#
# Shown with a stand-in for the compose command that records how it is called, and fails at `up`.
# Seen: calls ["up"] and no "down"; where `up` succeeds, ["up", "down"].
set -eu
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check pytest-docker==3.2.6 pytest==9.2.0
cat >"$work/compose" <<'SHELL'
#!/bin/sh
for word; do case $word in up|down) echo "$word" >>"$CALLS";; esac; done
case " $* " in *" up "*) exit "$UP_ENDS_WITH";; esac
SHELL
chmod +x "$work/compose"
mkdir "$work/tests"
echo 'services: {a: {image: a}}' >"$work/tests/docker-compose.yml"
cat >"$work/tests/test_stack.py" <<'PYTHON'
import os
import pytest

@pytest.fixture(scope="session")
def docker_compose_command():
    return os.environ["COMPOSE"]

def test_the_stack_is_up(docker_services):
    pass
PYTHON
calls() {
    : >"$work/calls"
    (cd "$work/tests" && CALLS="$work/calls" COMPOSE="$work/compose" UP_ENDS_WITH=$1 \
        "$work/venv/bin/pytest" -q -p no:cacheprovider >"$work/said" 2>&1) || :
    tr '\n' ' ' <"$work/calls"
}
"$work/venv/bin/pip" list --disable-pip-version-check 2>/dev/null | grep pytest-docker
good=$(calls 0); bad=$(calls 1)
echo "up succeeds: $good"
echo "up fails:    $bad"
[ "$good" = "up down " ] && [ "$bad" = "up " ]
