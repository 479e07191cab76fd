"""Asks a UDP echo a thousand times a second until its standard input ends; then prints what came back.

usage: asker.py ADDRESS PORT

`{"sent": N, "lost": N, "gap_ns": N}`: the gap is the longest time between two answers.
"""

import json
import select
import socket
import sys
import threading
import time


def main():
    peer = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    peer.connect((sys.argv[1], int(sys.argv[2])))
    sent, over = 0, False

    def ask():
        nonlocal sent
        while not over:
            try:
                peer.send(sent.to_bytes(8, "little"))
            except OSError:
                # Nobody is there at this moment.
                pass
            sent += 1
            time.sleep(0.001)

    asking = threading.Thread(target=ask)
    asking.start()
    came, gap, last, end = 0, 0, None, None
    # What is on its way when the asking ends still counts.
    while end is None or time.monotonic() < end:
        ready, _, _ = select.select([peer] if over else [peer, sys.stdin], [], [], 0.2)
        if peer in ready:
            try:
                peer.recv(8)
            except OSError:
                continue
            now = time.monotonic_ns()
            gap = max(gap, now - (last or now))
            came, last = came + 1, now
            if came == 1:
                print("answers", flush=True)
        if sys.stdin in ready:
            over, end = True, time.monotonic() + 0.3
    asking.join()
    print(json.dumps({"sent": sent, "lost": sent - came, "gap_ns": gap}), flush=True)


if __name__ == "__main__":
    main()
