"""An S3 server in a process of its own, so that it computes beside the client and not instead of it.

`python -m benchmarks.scale.server` prints its address. For each number on its input it delays every later request
by so many seconds, and prints how many requests there were before. It ends with its input.
"""

import sys
import time

from tests.object_storage import serve


def main() -> None:
    """Serve until the input ends."""
    server, stop = serve()
    print(server.endpoint, flush=True)
    for line in sys.stdin:
        delay = float(line)
        server.spoil = lambda method, path, delay=delay: time.sleep(delay)
        print(len(server.seen), flush=True)
    stop()


if __name__ == "__main__":
    main()
