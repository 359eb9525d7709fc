"""The Python replica of the test: replica.py URL REPLICA FLUSH_EVERY."""

import json
import sys
from uuid import UUID

from boundary_usage import Tracker, connect

url, replica, flush_every = sys.argv[1:]
with Tracker(UUID(replica), connect(url), flush_interval=None) as tracker:
    for number, line in enumerate(sys.stdin, 1):
        activity = json.loads(line)
        tracker.track(UUID(activity["workspace"]), UUID(activity["owner"]), activity["allowed"], activity["denied"])
        if number % int(flush_every) == 0:
            tracker.flush()
