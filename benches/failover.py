#!/usr/bin/env python3
"""What failing servers cost: Portreeve and HAProxy in front of three hosts, one of which fails in each of four ways.

usage: benches/failover.py [--peers ours,haproxy] [--faults killed,cut_off,hangs,errors] [--rounds 3] [--rate 400] [--json FILE]

Each host is a network namespace of its own on a bridge (needs root, iproute2, python3 and haproxy), and so is the client. The
client asks for a small document at a steady rate over kept connections, all GET, and keeps a set of TCP connections on which it
sends a line ten times a second. Both proxies check `GET /healthz` with the same interval, timeout, rise and fall, reset the
connections of a server that goes down, may try a request again twice, and take a server out after five errors in a row. Four seconds in, one host

  killed    loses its server: the process gets SIGKILL, so that its ports are closed;
  cut_off   loses its network: packets are dropped without a word in both directions;
  hangs     keeps its ports open and answers nothing more (SIGSTOP);
  errors    answers every request with 500, health checks too.

Reported, as the median of the rounds: requests that failed (no answer within five seconds, or another status than 200), the
slowest request, the time until the proxy no longer uses the server (polled every 20 ms from its metrics or statistics), how many
of the TCP connections that were with it were moved, meaning that they were reset and stood again, and when the last one was.
Files go to a temporary folder; everything made is taken down again.
"""
import argparse, asyncio, collections, json, os, re, shutil, signal, socket, statistics, subprocess, sys, tempfile, time

HERE = os.path.dirname(os.path.abspath(__file__))
OURS = os.environ.get("OURS", os.path.join(os.path.dirname(HERE), "target/release/portreeve"))
HAPROXY = os.environ.get("HAPROXY_BIN") or shutil.which("haproxy") or "/usr/sbin/haproxy"
BRIDGE, GATE, CLIENT, HOSTS = "pr-bridge", "10.99.0.1", "10.99.0.20", ["10.99.0.11", "10.99.0.12", "10.99.0.13"]
FAILING = HOSTS[1]
BEFORE, AFTER = 4.0, 12.0
STREAMS = 30

OURS_CONFIG = """
workers = 2
drain_timeout = "1s"
[admin]
http = "127.0.0.1:9180"
[listeners.http]
bind = "{gate}:8080"
protocol = "http"
pool = "web"
[listeners.tcp]
bind = "{gate}:8081"
pool = "lines"
[pools.web]
servers = [{web}]
check = {{ type = "http", path = "/healthz", interval = "1s", fast_interval = "500ms", timeout = "500ms", rise = 2, fall = 3 }}
timeouts = {{ connect = "1s", response_header = "2s" }}
retries = 2
retry_on = ["connect", "reset", "timeout", "500", "502", "503", "504"]
outlier = {{ consecutive_5xx = 5, consecutive_gateway = 5, consecutive_failures = 5 }}
on_down = "reset"
[pools.lines]
servers = [{lines}]
check = {{ type = "http", path = "/healthz", interval = "1s", fast_interval = "500ms", timeout = "500ms", rise = 2, fall = 3 }}
timeouts = {{ connect = "1s" }}
retries = 2
on_down = "reset"
"""

HAPROXY_CONFIG = """
global
  nbthread 2
  stats socket {run}/haproxy.sock mode 600 level admin
defaults
  timeout connect 1s
  timeout client 60s
  timeout server 2s
  timeout check 500ms
  retries 2
  option redispatch 1
  default-server inter 1s fastinter 500ms rise 2 fall 3 on-marked-down shutdown-sessions
frontend http
  mode http
  bind {gate}:8080
  default_backend web
backend web
  mode http
  balance roundrobin
  retry-on conn-failure empty-response response-timeout 500 502 503 504
  option httpchk GET /healthz
  default-server observe layer7 error-limit 5 on-error mark-down
{web}
frontend tcp
  mode tcp
  bind {gate}:8081
  default_backend lines
backend lines
  mode tcp
  timeout server 60s
  balance roundrobin
  option httpchk GET /healthz
{lines}
"""


def run(*words, check=True):
    return subprocess.run(words, check=check, capture_output=True, text=True).stdout


def inside(name, *words, **more):
    return subprocess.Popen(["ip", "netns", "exec", name, *words], **more)


# --- the network ------------------------------------------------------------------------------------------------------------

def names():
    return {CLIENT: "pr-client"} | {host: f"pr-host-{place}" for place, host in enumerate(HOSTS)}


def build():
    run("ip", "link", "add", BRIDGE, "type", "bridge")
    run("ip", "addr", "add", GATE + "/24", "dev", BRIDGE)
    run("ip", "link", "set", BRIDGE, "up")
    for place, (address, name) in enumerate(names().items()):
        run("ip", "netns", "add", name)
        run("ip", "link", "add", f"pr-veth{place}", "type", "veth", "peer", "name", "eth0", "netns", name)
        run("ip", "link", "set", f"pr-veth{place}", "master", BRIDGE, "up")
        run("ip", "-n", name, "addr", "add", address + "/24", "dev", "eth0")
        run("ip", "-n", name, "link", "set", "eth0", "up")
        run("ip", "-n", name, "link", "set", "lo", "up")
        # Known for good, so that a host that is cut off is silent and not "unreachable" once its address is asked for anew.
        link = json.loads(run("ip", "-n", name, "-j", "link", "show", "eth0"))[0]["address"]
        run("ip", "neigh", "replace", address, "lladdr", link, "dev", BRIDGE, "nud", "permanent")


def demolish():
    for place, name in enumerate(names().values()):
        subprocess.run(["ip", "netns", "del", name], capture_output=True)
        subprocess.run(["ip", "link", "del", f"pr-veth{place}"], capture_output=True)
    subprocess.run(["ip", "link", "del", BRIDGE], capture_output=True)


def port_of(host):
    return f"pr-veth{list(names()).index(host)}"


# --- a host: HTTP on 8080 with health checks, lines on 8081 -----------------------------------------------------------------

async def serve_host(address):
    failing = False

    def fail():
        nonlocal failing
        failing = True

    async def http(reader, writer):
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                status = "500 Internal Server Error" if failing else "200 OK"
                writer.write(f"HTTP/1.1 {status}\r\nContent-Length: 6\r\nX-Host: {address}\r\n\r\nhello\n".encode())
                if b"onnection: close" in head or b"HTTP/1.0" in head:
                    break
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        writer.close()

    async def lines(reader, writer):
        try:
            first = await reader.readline()
            if first.startswith(b"GET "):
                status = "500 Internal Server Error" if failing else "200 OK"
                writer.write(f"HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode())
            else:
                while first:
                    writer.write(address.encode() + b"\n")
                    first = await reader.readline()
        except ConnectionError:
            pass
        writer.close()

    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, fail)
    await asyncio.start_server(http, address, 8080, backlog=1024)
    await asyncio.start_server(lines, address, 8081, backlog=1024)
    print("ready", flush=True)
    await asyncio.Event().wait()


# --- the client -------------------------------------------------------------------------------------------------------------

async def ask(idle):
    """One request, on a connection that waits or a new one. A kept connection that the proxy has closed is not its failure."""
    for _ in range(2):
        kept = bool(idle)
        reader, writer = idle.pop() if kept else await asyncio.open_connection(GATE, 8080)
        try:
            writer.write(b"GET /document HTTP/1.1\r\nHost: shop.example\r\n\r\n")
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(re.search(rb"(?i)content-length: (\d+)", head)[1])
            await reader.readexactly(length)
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            writer.close()
            if kept and not getattr(error, "partial", b""):
                continue
            raise
        status = int(head.split(b" ", 2)[1])
        if re.search(rb"(?i)\r\nconnection: close", head):
            writer.close()
        else:
            idle.append((reader, writer))
        return status
    raise ConnectionError("closed twice")


async def request(idle, results):
    started = time.monotonic()
    try:
        outcome = await asyncio.wait_for(ask(idle), 5)
    except Exception as error:  # whatever it is, the request is lost
        outcome = type(error).__name__
    results.append((started, time.monotonic() - started, outcome))


async def line(events, until):
    """One TCP connection that is made anew whenever it ends; says when it was with which host."""
    while time.monotonic() < until:
        try:
            reader, writer = await asyncio.wait_for(asyncio.open_connection(GATE, 8081), 2)
            host = None
            while time.monotonic() < until:
                writer.write(b"line\n")
                said = (await reader.readline()).decode().strip()
                if not said:
                    break
                if said != host:
                    host = said
                    events.append((time.monotonic(), host))
                await asyncio.sleep(0.1)
            writer.close()
        except (OSError, asyncio.TimeoutError):
            await asyncio.sleep(0.05)


async def client(rate):
    results, idle, tasks = [], [], []
    begin = time.monotonic()
    print(f"begin {time.time()}", flush=True)
    streams = [[] for _ in range(STREAMS)]
    held = [asyncio.ensure_future(line(events, begin + BEFORE + AFTER)) for events in streams]
    for number in range(int((BEFORE + AFTER) * rate)):
        await asyncio.sleep(max(0, begin + number / rate - time.monotonic()))
        tasks.append(asyncio.ensure_future(request(idle, results)))
    await asyncio.gather(*tasks)
    for task in held:
        task.cancel()
    lost = collections.Counter(str(outcome) for _, _, outcome in results if outcome != 200)
    moved = [next((at - begin - BEFORE for at, host in events if at > begin + BEFORE and host != FAILING), None)
             for events in streams if (before := [host for at, host in events if at <= begin + BEFORE]) and before[-1] == FAILING]
    stood = [at for at in moved if at is not None]
    print(json.dumps({
        "requests": len(results), "lost": sum(lost.values()), "why": lost, "slowest": max(took for _, took, _ in results),
        "held": len(moved), "moved": len(stood), "last_moved": max(stood, default=None),
    }), flush=True)


# --- a round ----------------------------------------------------------------------------------------------------------------

def proxy(peer, folder):
    listing = lambda port, form: form(port)
    if peer == "ours":
        quoted = lambda port: ", ".join(f'{{ name = "{host}", address = "{host}:{port}" }}' for host in HOSTS)
        text = OURS_CONFIG.format(gate=GATE, web=listing(8080, quoted), lines=listing(8081, quoted))
        words = [OURS, "run", "-c", os.path.join(folder, "ours")]
    else:
        servers = lambda port: "\n".join(f"  server {host} {host}:{port} check" for host in HOSTS)
        text = HAPROXY_CONFIG.format(gate=GATE, run=folder, web=listing(8080, servers), lines=listing(8081, servers))
        words = [HAPROXY, "-db", "-f", os.path.join(folder, "haproxy")]
    with open(os.path.join(folder, peer), "w") as file:
        file.write(text)
    log = open(os.path.join(folder, peer + ".log"), "w")
    started = subprocess.Popen(words, stdout=log, stderr=log)
    end = time.monotonic() + 10
    while time.monotonic() < end:
        try:
            for port in (8080, 8081):
                socket.create_connection((GATE, port), 0.2).close()
            return started
        except OSError:
            time.sleep(0.05)
    sys.exit(f"{peer} does not start: see {folder}/{peer}.log")


def is_used(peer, folder):
    """Whether the proxy still sends requests to the failing host."""
    if peer == "ours":
        with socket.create_connection(("127.0.0.1", 9180), 1) as link:
            link.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
            text = b"".join(iter(lambda: link.recv(65536), b"")).decode()
        value = lambda name: re.search(rf'^{name}{{pool="web",server="{FAILING}"}} (\S+)', text, re.M)[1]
        return value("portreeve_server_up") == "1" and value("portreeve_server_ejected") == "0"
    with socket.socket(socket.AF_UNIX) as link:
        link.connect(folder + "/haproxy.sock")
        link.sendall(b"show stat\n")
        text = b"".join(iter(lambda: link.recv(65536), b"")).decode()
    row = next(row.split(",") for row in text.splitlines() if row.startswith(f"web,{FAILING},"))
    return row[17].startswith("UP")


def round_of(peer, fault, rate, folder):
    hosts = {}
    for host in HOSTS:
        hosts[host] = inside(names()[host], sys.executable, __file__, "--host", host, stdout=subprocess.PIPE, text=True)
        hosts[host].stdout.readline()
    started = proxy(peer, folder)
    time.sleep(2.5)  # both proxies have checked every server by then
    load = inside(names()[CLIENT], sys.executable, __file__, "--client", str(rate), stdout=subprocess.PIPE, text=True)
    began = float(load.stdout.readline().split()[1])
    time.sleep(max(0, began + BEFORE - time.time()))
    failed = time.monotonic()
    match fault:
        case "killed":
            hosts[FAILING].kill()
        case "cut_off":
            run("ip", "link", "set", port_of(FAILING), "nomaster")
        case "hangs":
            hosts[FAILING].send_signal(signal.SIGSTOP)
        case "errors":
            hosts[FAILING].send_signal(signal.SIGUSR1)
    detected = None
    while detected is None and time.monotonic() < failed + AFTER:
        if not is_used(peer, folder):
            detected = time.monotonic() - failed
        time.sleep(0.02)
    result = json.loads(load.stdout.readline()) | {"detected": detected}
    started.kill()
    for process in [started, load, *hosts.values()]:
        process.kill()
        process.wait()
    run("ip", "link", "set", port_of(FAILING), "master", BRIDGE)
    return result


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--peers", default="ours,haproxy")
    parser.add_argument("--faults", default="killed,cut_off,hangs,errors")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rate", type=int, default=400)
    parser.add_argument("--json")
    parser.add_argument("--host", help=argparse.SUPPRESS)
    parser.add_argument("--client", type=int, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.host:
        return asyncio.run(serve_host(asked.host))
    if asked.client:
        return asyncio.run(client(asked.client))
    folder = tempfile.mkdtemp(prefix="failover-")
    demolish()
    build()
    everything = {}
    try:
        print("| one of three servers | proxy | requests lost | slowest | found out after | connections moved | the last after |")
        print("| --- | --- | --- | --- | --- | --- | --- |")
        for fault in asked.faults.split(","):
            for peer in asked.peers.split(","):
                rounds = [round_of(peer, fault, asked.rate, folder) for _ in range(asked.rounds)]
                everything[f"{fault}/{peer}"] = rounds
                middle = lambda key: statistics.median(value if (value := each[key]) is not None else float("inf") for each in rounds)
                seconds = lambda value: "never" if value == float("inf") else f"{value:.2f} s"
                print(f"| {fault} | {peer} | {middle('lost'):g} of {middle('requests'):g} | {seconds(middle('slowest'))} "
                      f"| {seconds(middle('detected'))} | {middle('moved'):g} of {middle('held'):g} | {seconds(middle('last_moved'))} |", flush=True)
    finally:
        demolish()
    if asked.json:
        with open(asked.json, "w") as file:
            json.dump(everything, file, indent=1)


if __name__ == "__main__":
    main()
