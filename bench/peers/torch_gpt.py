#!/usr/bin/env python3
"""One training step of a GPT-2-like model in eager PyTorch, timed: the peer of `heddle bench train-step`.

Learned positions, LayerNorm, GELU (tanh), biases, head tied to the embedding, AdamW (0.9, 0.95, weight decay 0.1 on matrices), gradient norm
clipped to 1.0: forward, backward, clip, update; random tokens, no data loader. Runs on PyTorch 1.13 (no fused attention, no fused AdamW) and
later (both used). Prints one line of JSON; the speed is that of the median step.
"""
import argparse
import json
import math
import os
import statistics
import time


def memory_kib(field):
    with open("/proc/self/status") as status:
        for line in status:
            if line.startswith(field + ":"):
                return int(line.split()[1])
    return 0


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=["small", "gpt2-124m"], default="small", help="small: 6 layers of 384, 65 tokens; gpt2-124m: 12 of 768, 50257")
    for name in ["layers", "heads", "dim", "vocab"]:
        parser.add_argument("--" + name, type=int, help="instead of the model's")
    parser.add_argument("--seq", type=int, default=256)
    parser.add_argument("--batch", type=int, help="sequences a step (default: 8; gpt2-124m: 4)")
    parser.add_argument("--dtype", choices=["fp32", "bf16"], default="fp32", help="bf16: autocast, fp32 parameters")
    parser.add_argument("--untied", action="store_true", help="a head of its own")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--warmup", type=int, default=3)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    size = {"small": (6, 6, 384, 65, 8), "gpt2-124m": (12, 12, 768, 50257, 4)}[args.model]
    for name, value in zip(["layers", "heads", "dim", "vocab", "batch"], size):
        if getattr(args, name) is None:
            setattr(args, name, value)
    return args


args = arguments()
os.environ["OMP_NUM_THREADS"] = str(args.threads)  # before the import: MKL and OpenMP read it once

import torch  # noqa: E402
from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402

HAS_SDPA = hasattr(F, "scaled_dot_product_attention")


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        c = args.dim
        self.ln1, self.ln2 = nn.LayerNorm(c), nn.LayerNorm(c)
        self.qkv, self.out = nn.Linear(c, 3 * c), nn.Linear(c, c)
        self.fc, self.proj = nn.Linear(c, 4 * c), nn.Linear(4 * c, c)
        if not HAS_SDPA:
            self.register_buffer("future", torch.ones(args.seq, args.seq, dtype=torch.bool).triu(1), persistent=False)

    def attention(self, x):  # (B, T, C)
        b, t, c = x.shape
        q, k, v = self.qkv(x).view(b, t, 3, args.heads, c // args.heads).permute(2, 0, 3, 1, 4)  # (B, H, T, D) each
        if HAS_SDPA:
            y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        else:
            scores = (q @ k.transpose(-2, -1)) / math.sqrt(q.shape[-1])  # (B, H, T, T)
            y = F.softmax(scores.masked_fill(self.future, float("-inf")), dim=-1) @ v
        return self.out(y.transpose(1, 2).reshape(b, t, c))

    def forward(self, x):
        x = x + self.attention(self.ln1(x))
        return x + self.proj(F.gelu(self.fc(self.ln2(x)), approximate="tanh"))


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.tokens, self.positions = nn.Embedding(args.vocab, args.dim), nn.Embedding(args.seq, args.dim)
        self.blocks = nn.ModuleList(Block() for _ in range(args.layers))
        self.norm, self.head = nn.LayerNorm(args.dim), nn.Linear(args.dim, args.vocab, bias=False)
        for p in self.parameters():
            if p.dim() == 2:
                nn.init.normal_(p, std=0.02)
        if not args.untied:
            self.head.weight = self.tokens.weight

    def forward(self, tokens, targets):  # (B, T)
        x = self.tokens(tokens) + self.positions.weight
        for block in self.blocks:
            x = block(x)
        logits = self.head(self.norm(x))  # (B, T, V)
        return F.cross_entropy(logits.float().view(-1, args.vocab), targets.reshape(-1))


def make_optimizer(model):
    matrices = [p for p in model.parameters() if p.dim() == 2]
    rest = [p for p in model.parameters() if p.dim() != 2]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": rest, "weight_decay": 0.0}]
    for choice in ({"fused": True}, {"foreach": True}):  # the fused update takes CPU tensors since PyTorch 2.4
        try:
            return torch.optim.AdamW(groups, lr=3e-4, betas=(0.9, 0.95), **choice), next(iter(choice))
        except (RuntimeError, TypeError):
            continue
    return torch.optim.AdamW(groups, lr=3e-4, betas=(0.9, 0.95)), "loop"


def main():
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    idle_kib = memory_kib("VmRSS")
    model = Model()
    optimizer, update = make_optimizer(model)
    batches = [torch.randint(args.vocab, (args.batch, args.seq + 1)) for _ in range(4)]
    times, loss = [], None
    for step in range(args.warmup + args.steps):
        batch = batches[step % len(batches)]  # (B, T + 1)
        begin = time.perf_counter()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=args.dtype == "bf16"):
            loss = model(batch[:, :-1], batch[:, 1:])
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if step >= args.warmup:
            times.append(time.perf_counter() - begin)
    median = statistics.median(times)
    print(json.dumps({
        "peer": "torch", "version": torch.__version__, "dtype": args.dtype, "threads": args.threads,
        "layers": args.layers, "heads": args.heads, "dim": args.dim, "vocab": args.vocab, "seq": args.seq, "batch": args.batch,
        "parameters": sum(p.numel() for p in model.parameters()), "attention": "sdpa" if HAS_SDPA else "composed", "adamw": update,
        "tokens_per_s": round(args.batch * args.seq / median, 1), "step_ms": round(1e3 * median, 2),
        "step_ms_min": round(1e3 * min(times), 2), "step_ms_max": round(1e3 * max(times), 2), "steps": args.steps, "loss": round(loss.item(), 4),
        "peak_rss_above_idle_bytes": 1024 * (memory_kib("VmHWM") - idle_kib),
    }))


main()
