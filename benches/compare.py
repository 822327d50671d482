#!/usr/bin/env python3
"""Side-by-side benchmark against HAProxy and NGINX: same backend, same load, one run.

usage: benches/compare.py [--peers ours,haproxy,nginx] [--scen l4_cps,...] [--secs 5] [--rounds 3] [--workers 2]

Needs on PATH: nginx (backend and peer; Debian: nginx libnginx-mod-stream), haproxy, wrk, h2load (nghttp2-client), iperf3,
openssl; and a release build. The tls_ scenarios end TLS at the proxy and go on in plain TCP; every connection of tls_cps
is a full handshake, while those of tls_res resume a session. The h1_, https_ and h2_ scenarios are HTTP at the proxy, which
keeps its connections to the servers.
Other places: NGINX_BIN, NGINX_MODULES and HAPROXY_BIN name the binaries and their folder (newest.sh gets the newest); OURS is the start command of ours
(default: target/release/portreeve run -c CONFIG). A peer can be added as name=command. Files go to $BENCH_RUN or a fresh
temporary folder.

Per peer and scenario: rate, the proxy's own CPU per unit (all threads of its process tree), p99 where the client gives it, memory.
CPU per unit is the figure to compare: client, proxy and backend share the machine's few cores, so rates mix all three.
Everything stays on 127.0.0.1, ports 8001-8009 and 9001-9005.
"""
import argparse, json, os, re, shlex, shutil, signal, socket, ssl, statistics, subprocess, tempfile, time
HERE = os.path.dirname(os.path.abspath(__file__)); RUN = os.environ.get("BENCH_RUN") or tempfile.mkdtemp(prefix="compare-")
PROJECT = os.environ.get("PROJECT") or os.path.dirname(HERE)
BIN = {k: os.environ.get(k.upper() + "_BIN") or shutil.which(k) or k for k in ("nginx", "haproxy")}
MODULES = os.environ.get("NGINX_MODULES", "/usr/lib/nginx/modules")
HZ = os.sysconf("SC_CLK_TCK")
CMDS = {
  "ours": os.environ.get("OURS", PROJECT + "/target/release/portreeve run -c {R}/ours.toml"),
  "haproxy": "{haproxy} -db -f {R}/haproxy.cfg",
  "nginx": "{nginx} -c {R}/nginx.conf",
}
def tree(pid):
    out, stack = [], [pid]
    while stack:
        p = stack.pop(); out.append(p)
        try:
            for t in os.listdir(f"/proc/{p}/task"):
                stack += [int(x) for x in open(f"/proc/{p}/task/{t}/children").read().split()]
        except OSError: pass
    return out
def cpu(pid):
    u = s = 0
    for p in tree(pid):
        try: f = open(f"/proc/{p}/stat").read().rsplit(")", 1)[1].split()
        except OSError: continue
        u += int(f[11]); s += int(f[12])
    return u / HZ, s / HZ
def sched_cpu(pid):
    """nanosecond CPU over the process tree's threads (schedstat): finer than clock ticks"""
    n = 0
    for p in tree(pid):
        try:
            for t in os.listdir(f"/proc/{p}/task"): n += int(open(f"/proc/{p}/task/{t}/schedstat").read().split()[0])
        except OSError: pass
    return n / 1e9
def rss(pid):
    k = 0
    for p in tree(pid):
        try:
            m = re.search(r"^Pss:\s+(\d+)", open(f"/proc/{p}/smaps_rollup").read(), re.M); k += int(m.group(1)) if m else 0
        except OSError: pass
    return k
def sh(c, **k): return subprocess.run(c, shell=isinstance(c, str), capture_output=True, text=True, **k).stdout
def wait_port(port, t=10):
    end = time.time() + t
    while time.time() < end:
        try: socket.create_connection(("127.0.0.1", port), 0.5).close(); return True
        except OSError: time.sleep(0.05)
    return False
def end(process):
    """first asks a peer to go, so that one that records how it is used can write that down"""
    for asked in (signal.SIGTERM, signal.SIGKILL):
        try: os.killpg(process.pid, asked); process.wait(10)
        except (OSError, subprocess.TimeoutExpired): pass
def conv(s):
    m = re.match(r"([\d.]+)(us|ms|s)", s); return float(m[1]) * {"us": 1e-3, "ms": 1, "s": 1e3}[m[2]]
def wrk(url, secs, conns, close=False):
    c = ["wrk", "-t1", f"-c{conns}", f"-d{secs}s", "--latency"] + (["-H", "Connection: close"] if close else []) + [url]
    o = sh(c); n = int(re.search(r"(\d+) requests in", o)[1]); r = float(re.search(r"Requests/sec:\s+([\d.]+)", o)[1])
    p99 = conv(re.search(r"99%\s+(\S+)", o)[1]); err = "Socket errors" in o or "Non-2xx" in o
    return n, r, p99, (re.search(r"(Socket errors.*|Non-2xx.*)", o)[1] if err else "")
def h2load(url, secs, conns, streams):
    o = sh(["h2load", "-t1", f"-c{conns}", f"-m{streams}", "-D", str(secs), "--warm-up-time=0", url])
    m = re.search(r"requests: (\d+) total.*?(\d+) succeeded, (\d+) failed", o, re.S); n = int(m[2])
    return n, n / secs, conv(re.search(r"time for request:\s+\S+\s+(\S+)", o)[1]), ("" if m[3] == "0" else f"failed {m[3]}")
def iperf(port, secs, rev):
    o = json.loads(sh(["iperf3", "-c", "127.0.0.1", "-p", str(port), "-t", str(secs), "-P", "2", "-J"] + (["-R"] if rev else [])))
    b = o["end"]["sum_received"]["bytes"]; return b / 2**30, b * 8 / secs / 1e9, 0, ""
def handshakes(port, secs, n=6):
    """full handshakes, each on a connection of its own that asks for one page"""
    c = ["openssl", "s_time", "-connect", f"127.0.0.1:{port}", "-new", "-time", str(secs), "-www", "/"]
    ps = [subprocess.Popen(c, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) for _ in range(n)]
    n = sum(int(re.search(r"(\d+) connections in \d+ real", p.communicate()[0])[1]) for p in ps)
    return n, n / secs, 0, ""
def idle(port, pid, n=4000, tls=False):
    if tls: context = ssl.create_default_context(); context.check_hostname = False; context.verify_mode = ssl.CERT_NONE
    before = rss(pid); cs = []
    for _ in range(n):
        s = socket.create_connection(("127.0.0.1", port), 10); s = context.wrap_socket(s) if tls else s; s.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"); s.recv(4096); cs.append(s)
    time.sleep(1); after = rss(pid)
    for s in cs: s.close()
    time.sleep(1)
    return n, (after - before) / n, 0, f"base {before/1024:.0f} MiB, {(after-before)/n:.1f} KiB a connection"
SC = {  # name: (port, unit, fn)
  "l4_cps":   (8001, "conn", lambda s, p: wrk("http://127.0.0.1:{port}/", s, 64, True)),
  "l4_rps":   (8001, "msg",  lambda s, p: wrk("http://127.0.0.1:{port}/", s, 64)),
  "l4_bulk":  (8005, "GiB",  lambda s, p: iperf("{port}", s, False)),
  "l4_bulkR": (8005, "GiB",  lambda s, p: iperf("{port}", s, True)),
  "l4_idle":  (8001, "KiB",  lambda s, p: idle("{port}", p)),
  "tls_cps":  (8003, "hs",   lambda s, p: handshakes("{port}", s)),
  "tls_res":  (8003, "hs",   lambda s, p: wrk("https://localhost:{port}/", s, 64, True)),
  "tls_rps":  (8003, "msg",  lambda s, p: wrk("https://localhost:{port}/", s, 64)),
  "tls_big":  (8003, "MiB",  lambda s, p: wrk("https://localhost:{port}/big", s, 16)),
  "tls_idle": (8003, "KiB",  lambda s, p: idle("{port}", p, 2000, True)),
  "h1_rps":   (8002, "req",  lambda s, p: wrk("http://localhost:{port}/", s, 64)),
  "h1_many":  (8002, "req",  lambda s, p: wrk("http://localhost:{port}/", s, 1000)),
  "h1_cps":   (8002, "conn", lambda s, p: wrk("http://localhost:{port}/", s, 64, True)),
  "h1_big":   (8002, "req",  lambda s, p: wrk("http://localhost:{port}/big", s, 16)),
  "h1_idle":  (8002, "KiB",  lambda s, p: idle("{port}", p)),
  "https_rps": (8006, "req", lambda s, p: wrk("https://localhost:{port}/", s, 64)),
  "https_cps": (8006, "hs",  lambda s, p: handshakes("{port}", s)),
  "h2_rps":   (8006, "req",  lambda s, p: h2load("https://localhost:{port}/", s, 8, 16)),
}
def fit(name, text):
    """Debian's nginx keeps stream in a module and, before 1.25.1, spells http2 on the listen line."""
    if name != "nginx.conf": return text
    v = subprocess.run([BIN["nginx"], "-V"], capture_output=True, text=True).stderr
    if "--with-stream=dynamic" in v: text = f"load_module {MODULES}/ngx_stream_module.so;\n" + text
    n = tuple(int(x) for x in re.search(r"nginx/(\d+)\.(\d+)\.(\d+)", v).groups())
    return text if n >= (1, 25, 1) else text.replace(" http2 on;", "").replace("8006 ssl ", "8006 ssl http2 ")
def main():
    a = argparse.ArgumentParser(); a.add_argument("--peers", default="ours,haproxy,nginx"); a.add_argument("--scen", default=",".join(SC)); a.add_argument("--secs", type=int, default=5); a.add_argument("--rounds", type=int, default=3); a.add_argument("--workers", type=int, default=2); a.add_argument("--json", default="")
    a = a.parse_args(); os.makedirs(RUN, exist_ok=True)
    os.chmod(RUN, 0o755)
    if not os.path.exists(f"{RUN}/cert.pem"):
        sh(f"openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 3650 -subj /CN=localhost -addext subjectAltName=DNS:localhost -keyout {RUN}/key.pem -out {RUN}/crt.pem && cat {RUN}/crt.pem {RUN}/key.pem > {RUN}/cert.pem")
    open(f"{RUN}/big", "wb").write(os.urandom(1 << 20)); os.chmod(f"{RUN}/big", 0o644)
    for f in os.listdir(f"{HERE}/peers"):
        if os.path.isfile(f"{HERE}/peers/{f}"): open(f"{RUN}/{f}", "w").write(fit(f, open(f"{HERE}/peers/{f}").read()).replace("@RUN@", RUN).replace("@WORKERS@", str(a.workers)))
    procs = [subprocess.Popen([BIN["nginx"], "-c", f"{RUN}/backend-nginx.conf", "-g", "daemon off;"]), subprocess.Popen(["iperf3", "-s", "-p", "9005"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)]
    wait_port(9001); wait_port(9005); res = {}
    try:
        for rnd in range(a.rounds):
            for sc in a.scen.split(","):
                port, unit, fn = SC[sc]
                for peer in a.peers.split(","):
                    name, _, cmd = peer.partition("=")
                    if name == "direct":
                        if sc.endswith("_idle") or sc.startswith(("tls", "h2", "https")): continue
                        pid, pr, tgt = procs[0].pid, None, 9005 if "bulk" in sc else 9001
                    else:
                        c = (cmd or CMDS[name]).format(R=RUN, W=a.workers, **BIN)
                        pr = subprocess.Popen(shlex.split(c), stdout=open(f"{RUN}/{name}.log", "w"), stderr=subprocess.STDOUT, start_new_session=True); tgt = port
                        if not wait_port(port): print(f"{sc:9} {name:10} did not start", flush=True); os.killpg(pr.pid, 9); pr.wait(); continue
                        time.sleep(0.7); pid = pr.pid
                    try:
                        code = fn.__code__
                        g = {"wrk": lambda u, *x, **k: wrk(u.replace("{port}", str(tgt)), *x, **k), "h2load": lambda u, *x: h2load(u.replace("{port}", str(tgt)), *x), "iperf": lambda p, *x: iperf(tgt, *x), "handshakes": lambda p, *x: handshakes(tgt, *x), "idle": lambda p, *x: idle(tgt, *x)}
                        f2 = type(fn)(code, g); c0, (u0, s0) = sched_cpu(pid), cpu(pid)
                        n, rate, p99, note = f2(a.secs, pid); c1, (u1, s1) = sched_cpu(pid), cpu(pid)
                        per = (c1 - c0) / n * 1e6 if name != "direct" else 0; us = (u1 - u0) / max(1e-9, (u1 - u0 + s1 - s0))
                        r = dict(rate=rate, us_per_unit=per, p99=p99, user_share=us, rss=rss(pid) / 1024, note=note); res.setdefault(sc, {}).setdefault(name, []).append(r)
                        print(f"{sc:9} {name:10} rate {rate:11.1f}/s  cpu {per:10.2f} us/{unit:4} user {us*100:3.0f}%  p99 {p99:8.2f} ms  mem {r['rss']:6.1f} MiB {note}", flush=True)
                    except Exception as e: print(f"{sc:9} {name:10} FAILED {e!r}", flush=True)
                    finally:
                        if pr: end(pr); time.sleep(0.3)
    finally:
        for p in procs:
            for q in tree(p.pid)[::-1]:
                try: os.kill(q, 9)
                except OSError: pass
    print("\nmedian, relative to the best peer (cpu per unit; lower is better)")
    for sc, d in res.items():
        med = {k: statistics.median(x["us_per_unit"] if SC[sc][1] != "KiB" else x["rate"] for x in v) for k, v in d.items() if k != "direct"}
        if med: b = min(med.values()); print(f"{sc:9} " + "  ".join(f"{k} {v:.1f} ({v/b:.2f}x)" for k, v in sorted(med.items(), key=lambda t: t[1])))
    if a.json: json.dump(res, open(a.json, "w"), indent=1)
main()
