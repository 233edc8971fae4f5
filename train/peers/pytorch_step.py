#!/usr/bin/env python3
"""The same step as `dinoserve-train bench`, in idiomatic PyTorch.

    pip install torch
    train/peers/pytorch_step.py --dim 192 --depth 6 --heads 3 \
        --global-size 56 --local-size 28 --local-count 6 --batch 64

Forward pass of student and teacher over all crops, loss, backward pass, clipping per parameter,
AdamW, and the update of the teacher.
"""

import argparse
import statistics
import time

import torch
from torch import nn
from torch.nn import functional as F

PATCH = 14


class Block(nn.Module):
    def __init__(self, dim, heads):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(dim, eps=1e-6), nn.LayerNorm(dim, eps=1e-6)
        self.qkv, self.proj = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.fc1, self.fc2 = nn.Linear(dim, 4 * dim), nn.Linear(4 * dim, dim)
        self.ls1, self.ls2 = nn.Parameter(torch.full((dim,), 0.1)), nn.Parameter(torch.full((dim,), 0.1))

    def forward(self, x):
        b, n, d = x.shape
        q, k, v = self.qkv(self.norm1(x)).reshape(b, n, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
        attention = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, n, d)
        x = x + self.ls1 * self.proj(attention)
        return x + self.ls2 * self.fc2(F.gelu(self.fc1(self.norm2(x))))


class Network(nn.Module):
    def __init__(self, dim, depth, heads, side, hidden, bottleneck, prototypes):
        super().__init__()
        self.patch = nn.Conv2d(3, dim, PATCH, PATCH)
        self.native = side // PATCH
        self.cls = nn.Parameter(torch.zeros(1, 1, dim))
        self.pos = nn.Parameter(torch.randn(1, 1 + self.native**2, dim) * 0.02)
        self.blocks = nn.ModuleList(Block(dim, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.head = nn.Sequential(
            nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, hidden), nn.GELU(), nn.Linear(hidden, bottleneck)
        )
        self.prototypes = nn.Parameter(torch.randn(prototypes, bottleneck))

    def forward(self, images):
        x = self.patch(images).flatten(2).transpose(1, 2)
        side = images.shape[-1] // PATCH
        pos = self.pos[:, 1:]
        if side != self.native:
            table = pos.reshape(1, self.native, self.native, -1).permute(0, 3, 1, 2)
            pos = F.interpolate(table, size=(side, side), mode="bicubic").flatten(2).transpose(1, 2)
        cls = (self.cls + self.pos[:, :1]).expand(len(x), -1, -1)
        x = torch.cat([cls, x + pos], 1)
        for block in self.blocks:
            x = block(x)
        x = F.normalize(self.head(self.norm(x)[:, 0]), dim=-1)
        return x @ F.normalize(self.prototypes, dim=-1).T


def main():
    parser = argparse.ArgumentParser()
    for name, value in (
        [("dim", 192), ("depth", 6), ("heads", 3), ("global-size", 56), ("local-size", 28), ("local-count", 6)]
        + [("batch", 64), ("hidden", 2048), ("bottleneck", 256), ("prototypes", 4096), ("steps", 5), ("threads", 2)]
    ):
        parser.add_argument(f"--{name}", type=int, default=value)
    a = parser.parse_args()
    torch.set_num_threads(a.threads)
    torch.manual_seed(0)
    student, teacher = (
        Network(a.dim, a.depth, a.heads, a.global_size, a.hidden, a.bottleneck, a.prototypes) for _ in range(2)
    )
    teacher.load_state_dict(student.state_dict())
    teacher.requires_grad_(False)
    decayed = [p for p in student.parameters() if p.dim() > 1]
    not_decayed = [p for p in student.parameters() if p.dim() == 1]
    optimizer = torch.optim.AdamW([{"params": decayed}, {"params": not_decayed, "weight_decay": 0.0}], 5e-4, weight_decay=0.04)
    center = torch.zeros(1, a.prototypes)
    large = torch.rand(2 * a.batch, 3, a.global_size, a.global_size) * 4 - 2
    small = torch.rand(a.local_count * a.batch, 3, a.local_size, a.local_size) * 4 - 2

    times = []
    for _ in range(a.steps + 1):
        started = time.perf_counter()
        with torch.no_grad():
            logits = teacher(large)
            targets = F.softmax((logits - center) / 0.04, -1).chunk(2)
        views = [F.log_softmax(view / 0.1, -1) for view in student(large).chunk(2)]
        if a.local_count:
            views += [F.log_softmax(view / 0.1, -1) for view in student(small).chunk(a.local_count)]
        pairs = [(t, v) for i, t in enumerate(targets) for j, v in enumerate(views) if i != j]
        loss = sum(-(t * v).sum(-1).mean() for t, v in pairs) / len(pairs)
        optimizer.zero_grad()
        loss.backward()
        for parameter in student.parameters():
            if parameter.grad is not None:
                nn.utils.clip_grad_norm_(parameter, 3.0)
        optimizer.step()
        with torch.no_grad():
            center = center * 0.9 + logits.mean(0, keepdim=True) * 0.1
            for follower, leader in zip(teacher.parameters(), student.parameters()):
                follower.mul_(0.996).add_(leader, alpha=0.004)
        loss.item()
        times.append(time.perf_counter() - started)
    median = statistics.median(times[1:])
    print(f"{median:.3f} s a step (median of {a.steps}), {a.batch / median:.1f} images/s")


if __name__ == "__main__":
    main()
