"""A wire with nothing but its protocol: it passes every frame on at once, and lies when a test tells it to.

It is what the agent's own tests talk to, so that they fail for the agent's mistakes and not for the wire's.
"""

# Names that a test may set before this runs: what the wire says that it holds, and counters that it makes up.
SOURCE = """
import json, os, select, socket, sys
sys.path.insert(0, {root!r})
from testbed import linux
LIE, EXTRA = {lie!r}, {extra!r}
linux.unshare(linux.CLONE_NEWNET)
wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
ledger = open(sys.argv[2], "wb", buffering=0)
print(json.dumps({{"ready": {{"pid": os.getpid(), "scheduler": "other"}}}}), flush=True)
state = {{"links": [], "hosts": {{}}}}
counts = {{"in": {{}}, "links": {{}}, "unknown": {{}}}}

def take():
    frame, (dev, _, kind, _, _) = wire.recvfrom(70000)
    if kind == 4:
        return
    host = next((h for h, d in state["hosts"].items() if d == dev), None)
    if host is None:
        return
    counts["in"][host] = counts["in"].get(host, 0) + 1
    ledger.write(frame[:14])
    found = False
    for link in state["links"]:
        source, target = (bytes.fromhex(link[k].replace(":", "")) for k in ("source_mac", "target_mac"))
        if frame[6:12] == source and (frame[0] & 1 or frame[:6] == target):
            found = True
            counts["links"][link["id"]] = counts["links"].get(link["id"], 0) + 1
            if link["condition"].get("loss_ratio", 0) < 1:
                wire.sendto(target + frame[6:], (dev, 0))
    if not found:
        counts["unknown"][host] = counts["unknown"].get(host, 0) + 1

def answer(request):
    do = request["do"]
    if do == "conditions":
        state.update(links=request["links"], hosts=request["hosts"])
        held = {{l["id"]: LIE.get(l["id"], l["condition"]) for l in state["links"]}}
        return {{"links": held, "slot_bytes": 2048, "fate": 1}}
    now = report()
    if do == "drain":
        links = {{link: {{k: v for k, v in c.items() if k != "condition"}} for link, c in now["links"].items()}}
        return {{"over": True, "pending": 0, "ledger_bytes": ledger.tell(), "links": links}}
    if do == "under_way":
        return {{"frames": 0, "due_ns": 0}}
    return now

def report():
    report = {{
        "hosts": {{h: {{"frames_in": counts["in"].get(h, 0), "unknown": counts["unknown"].get(h, 0)}}
                  for h in state["hosts"]}},
        "links": {{l["id"]: {{"condition": l["condition"],
                               "frames": counts["links"].get(l["id"], 0), "unasked": 0}}
                  for l in state["links"]}},
        "ring": {{"rx_drops": 0, "too_large": 0, "bad_age": 0, "tx_busy": 0, "tx_errors": 0}},
    }}
    for path, value in EXTRA.items():
        *way, last = path.split("|")
        at = report
        for step in way:
            at = at[step]
        at[last] = value
    return report

while True:
    for ready in select.select([0, wire], [], [])[0]:
        if ready is wire:
            take()
            continue
        line = sys.stdin.readline()
        if not line:
            sys.exit(0)
        request = json.loads(line)
        print(json.dumps({{"id": request["id"], "ok": answer(request)}}), flush=True)
"""
