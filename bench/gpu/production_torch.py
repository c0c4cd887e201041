"""The sizes of bench/gpu/production_cases.cpp by torch, in turn with ours: production_torch.py PROGRAM PRODUCTION_TSV [--match TEXT] [--small]

Adds lines "torch, case, our microseconds, torch's" to the table. Exit code 77: no torch, or none that sees a GPU.
"""
import statistics
import subprocess
import sys

ROUNDS = 3


def median_us(torch, work, flushed):
    """Of 5 runs, by events, with the L2 cache emptied before each."""
    times = []
    for _ in range(5):
        flushed.zero_()
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        work()
        end.record()
        torch.cuda.synchronize()
        times.append(1e3 * begin.elapsed_time(end))
    return statistics.median(times)


def matmul(torch, product, dtype, m, n, k):
    kind = {"bf16": torch.bfloat16, "f32": torch.float32}[dtype]
    m, n, k = int(m), int(n), int(k)

    def made(rows, columns):
        return torch.randn(rows, columns, device="cuda", dtype=kind)

    if product == "forward":
        a, b = made(m, k), made(n, k).t()
    elif product == "input_gradient":
        a, b = made(m, k), made(k, n)
    else:
        a, b = made(k, m).t(), made(k, n)
    return lambda: torch.matmul(a, b)


def attention(torch, b, t, h, kv, d):
    b, t, h, kv, d = (int(x) for x in (b, t, h, kv, d))
    q = torch.randn(b, h, t, d, device="cuda", dtype=torch.bfloat16)
    k, v = (torch.randn(b, kv, t, d, device="cuda", dtype=torch.bfloat16).repeat_interleave(h // kv, 1) for _ in range(2))
    return lambda: torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)


def norm(torch, kind, rows, columns):
    x = torch.randn(int(rows), int(columns), device="cuda", dtype=torch.bfloat16)
    residual, gain, bias = torch.randn_like(x), torch.randn(int(columns), device="cuda", dtype=x.dtype), torch.randn(int(columns), device="cuda", dtype=x.dtype)
    functional = torch.nn.functional
    if kind == "layer":
        return lambda: functional.layer_norm(x + residual, (int(columns),), gain, bias)
    return lambda: functional.rms_norm(x + residual, (int(columns),), gain)


KINDS = {"matmul": matmul, "attention": attention, "norm": norm}


def main():
    program, table, rest = sys.argv[1], sys.argv[2], sys.argv[3:]
    small = ["--small"] if "--small" in rest else []
    match = rest[rest.index("--match") + 1] if "--match" in rest else ""
    try:
        import torch
    except ImportError:
        print("no torch")
        return 77
    if not torch.cuda.is_available():
        print("torch sees no GPU")
        return 77
    listed = subprocess.run([program, "list", "production", *small], check=True, capture_output=True, text=True).stdout
    cases = [line.split("\t") for line in listed.splitlines()]
    cases = [(name, what.split()) for name, what in cases if what and match in name and what.split()[0] in KINDS]
    flushed = torch.empty(128 << 20, device="cuda", dtype=torch.uint8)
    ours = subprocess.Popen([program, "serve", *small], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    theirs, before = None, None
    for name, what in cases:
        if what != before:  # several candidates, one peer
            theirs, before = KINDS[what[0]](torch, *what[1:]), what
        pairs = []
        for _ in range(ROUNDS):
            ours.stdin.write(name + "\n")
            ours.stdin.flush()
            answer = ours.stdout.readline()
            if not answer:
                print("FAIL", name, "ended the program")
                return 1
            pairs.append((float(answer), median_us(torch, theirs, flushed)))
        line = [statistics.median(side) for side in zip(*pairs)]
        with open(table, "a", encoding="utf-8") as out:
            out.write(f"torch\t{name}\t{line[0]:.4g}\t{line[1]:.4g}\n")
    ours.stdin.close()
    ours.wait()
    print(f"torch {torch.__version__}, {len(cases)} cases")
    return 0


if __name__ == "__main__":
    sys.exit(main())
