# Asks for a page on new connections until the file "stop" is there; prints what came and what failed. Between
# two of them is a pause: TCP keeps the numbers of ended connections from use for a minute, and there are 28,000.
import os, socket, sys, threading, time
host, port, clients = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
lock, seen, failed, longest = threading.Lock(), {}, [], 0
def ask():
    with socket.create_connection((host, port), 5) as s:
        s.settimeout(5)
        s.sendall(b"GET /v HTTP/1.0\r\n\r\n")
        answer = b""
        while more := s.recv(4096):
            answer += more
    head, _, body = answer.partition(b"\r\n\r\n")
    if b" 200 " not in head.split(b"\r\n")[0] + b" ":
        raise OSError("answer %r" % answer)
    return body.decode().strip()
def client():
    global longest
    while not os.path.exists("stop"):
        begun = time.monotonic()
        try:
            what = ask()
        except OSError as e:
            what = None
            with lock:
                failed.append(repr(e))
        took = time.monotonic() - begun
        with lock:
            longest = max(longest, took)
            if what is not None:
                seen[what] = seen.get(what, 0) + 1
        time.sleep(0.01)
threads = [threading.Thread(target=client) for _ in range(clients)]
for t in threads: t.start()
for t in threads: t.join()
print("answers", sum(seen.values()), "of", " ".join(sorted(seen)), "longest", round(longest * 1000), "ms")
print("failed", len(failed), *sorted(set(failed)))
