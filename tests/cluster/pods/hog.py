"""A busy neighbour: as many loops as the first argument says, after as many seconds as the second."""

import multiprocessing
import signal
import sys
import time


def burn() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    while True:
        pass


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    time.sleep(float(sys.argv[2]))
    for _ in range(int(sys.argv[1])):
        multiprocessing.Process(target=burn, daemon=True).start()
    signal.pause()
