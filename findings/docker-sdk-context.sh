#!/usr/bin/env bash
# docker 7.2.0 (the Python SDK): two ways to get a client, two daemons.
#
# `docker.from_env()` follows the command line's current context; `DockerClient()` and `APIClient()`, with no
# arguments either, do not, and say nothing. Where a context is in use (Docker Desktop, rootless Docker, a remote
# machine) a program that mixes them looks for containers in one daemon that it made in another.
#
# Seen: from_env() -> tcp 198.51.100.7:2375, DockerClient() and APIClient() -> the local socket. No daemon is asked.
set -eu
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check docker==7.2.0
export HOME=$work DOCKER_CONFIG=$work/.docker
unset DOCKER_HOST DOCKER_CONTEXT
"$work/venv/bin/python" - <<'PYTHON'
import hashlib, json, os, sys
from pathlib import Path

config = Path(os.environ["DOCKER_CONFIG"])
meta = config / "contexts" / "meta" / hashlib.sha256(b"lab").hexdigest()
meta.mkdir(parents=True)
endpoint = {"Host": "tcp://198.51.100.7:2375", "SkipTLSVerify": False}
(meta / "meta.json").write_text(json.dumps({"Name": "lab", "Metadata": {}, "Endpoints": {"docker": endpoint}}))
(config / "config.json").write_text(json.dumps({"currentContext": "lab"}))

import docker

version = "1.41"  # stated, so that nobody asks the daemon for its own
found = {
    "from_env()": docker.from_env(version=version).api.base_url,
    "DockerClient()": docker.DockerClient(version=version).api.base_url,
    "APIClient()": docker.APIClient(version=version).base_url,
}
print("docker", docker.__version__)
for how, where in found.items():
    print(f"{how:15} {where}")
follows = ["198.51.100.7" in where for where in found.values()]
sys.exit(0 if docker.__version__ == "7.2.0" and follows == [True, False, False] else 1)
PYTHON
