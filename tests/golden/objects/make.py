"""Objects without labels, from the patch tokens of one image: the reference for POST /v1/objects.

    pip install numpy==2.4.6 scipy==1.17.1 pillow==13.0.0 safetensors==0.8.0
    python make.py objects TOKENS.npy ATTENTION.npy IMAGE.png OUT   # one image, from files
    python make.py golden http://127.0.0.1:8080                     # the .safetensors beside this file

TOKENS is [h, w, dim], ATTENTION [heads, h, w] (softmax values of CLS in the last block), and IMAGE the
photograph as the model saw it, [h*patch, w*patch]. `golden` asks a server with dinov2-small-focus for
tokens and attention of the four photographs at 224 pixels, and computes all else here; made_up has
tokens that need several cuts and have several objects.

Written from the papers, with SciPy's dense eigensolver: normalized cuts (Shi and Malik 2000), on patch
tokens as in TokenCut (Wang et al. 2022), and the fast guided filter (He and Sun 2015).
"""
import io, json, sys, urllib.request
from pathlib import Path

import numpy as np
from PIL import Image
from scipy import linalg, ndimage

FLOOR = 1e-5       # similarity of patches that are not alike: keeps the graph connected
LIMIT = 0.5        # a cut of a higher value (of at most 2) goes through one thing, not between two
ALIKE = 0.9        # mean cosine of all pairs of tokens above which nothing stands out
SMALLEST = 0.01    # share of the patches below which a piece is not an object
CELLS = 2          # the guided filter works on cells, this many to a patch
RADIUS = 2         # of its windows, in cells: one patch
EPS = 1e-4         # its regularization, for colors from 0 to 1


def similarities(tokens):
    """Cosines between tokens after their mean is subtracted, and the mean cosine before."""
    x = tokens.reshape(-1, tokens.shape[-1]).astype(np.float64)
    unit = x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
    alike = float(np.sum(unit.mean(0) ** 2))
    x = x - x.mean(0)
    x /= np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
    return x @ x.T, alike


def cut(cosines, attention):
    """The normalized cut of the patches: eigenvalues 2 and 3, eigenvector 2, the side of large values
    (which CLS attends to more), and the value of the cut."""
    a = np.where(cosines > 0, 1.0, FLOOR)
    d = a.sum(1)
    top = min(2, len(d) - 1)
    values, vectors = linalg.eigh(np.diag(d) - a, np.diag(d), subset_by_index=[1, top])
    x = vectors[:, 0]
    x = x / np.sqrt(np.sum(d * x * x))
    side = x > x.mean()
    if side.any() and not side.all():
        if attention[side].mean() < attention[~side].mean():
            x, side = -x, x < x.mean()
        between = a[np.ix_(side, ~side)].sum()
        value = between / d[side].sum() + between / d[~side].sum()
    else:
        value = 2.0
    return values, x, side, value


def segments(cosines, attention):
    """Cuts each part again while a cut is cheap. Parts as lists of patches, and all cuts tried."""
    parts, cuts, todo = [], [], [np.arange(len(cosines))]
    while todo:
        part = todo.pop()
        if len(part) < 2:
            parts.append(part)
            continue
        values, x, side, value = cut(cosines[np.ix_(part, part)], attention[part])
        cuts.append((part, values, x, value))
        if value >= LIMIT:
            parts.append(part)
        else:
            todo += [part[~side], part[side]]
    return parts, cuts


def objects(tokens, heads):
    """Masks [n, h, w] of the objects, their shares of the attention, and the cuts that were tried."""
    h, w = tokens.shape[:2]
    attention = heads.astype(np.float64).mean(0).ravel()
    attention /= attention.sum()
    cosines, alike = similarities(tokens)
    if alike > ALIKE:
        return np.zeros((0, h, w), bool), np.zeros(0), [], alike
    parts, cuts = segments(cosines, attention)
    found = []
    if len(parts) > 1:
        for part in parts:
            if attention[part].mean() <= attention.mean():
                continue
            mask = np.zeros(h * w, bool)
            mask[part] = True
            labels, n = ndimage.label(mask.reshape(h, w))  # neighbors share an edge
            for i in range(1, n + 1):
                piece = labels == i
                if piece.sum() >= SMALLEST * h * w:
                    found.append((attention[piece.ravel()].sum(), piece))
    found.sort(key=lambda f: -f[0])
    masks = np.array([f[1] for f in found], bool).reshape(-1, h, w)
    return masks, np.array([f[0] for f in found]), cuts, alike


def box(a, r):
    """Means over windows of 2r+1 cells along the first two axes; at the border over what is there."""
    for axis in (0, 1):
        n = a.shape[axis]
        sums = np.concatenate([np.zeros_like(a.take([0], axis)), a.cumsum(axis)], axis)
        high, low = np.minimum(np.arange(n) + r + 1, n), np.maximum(np.arange(n) - r, 0)
        count = (high - low).reshape([n if i == axis else 1 for i in range(a.ndim)])
        a = (sums.take(high, axis) - sums.take(low, axis)) / count
    return a


def stretch(a, factor):
    """Bilinear: values stand at the centers of cells, and the border repeats the outermost ones."""
    for axis in (0, 1):
        n = a.shape[axis]
        at = np.clip((np.arange(n * factor) + 0.5) / factor - 0.5, 0, n - 1)
        low = np.floor(at).astype(int)
        t = (at - low).reshape([-1 if i == axis else 1 for i in range(a.ndim)])
        a = a.take(low, axis) * (1 - t) + a.take(np.minimum(low + 1, n - 1), axis) * t
    return a


def refine(mask, image, patch):
    """The mask [h, w] of patches along the edges of the photograph: [h*patch, w*patch]."""
    h, w = mask.shape
    step = patch // CELLS
    full = image.astype(np.float64) / 255
    guide = full.reshape(h * CELLS, step, w * CELLS, step, 3).mean((1, 3))
    p = stretch(mask.astype(np.float64), CELLS)
    mean, mean_p = box(guide, RADIUS), box(p, RADIUS)
    cov_p = box(guide * p[..., None], RADIUS) - mean * mean_p[..., None]
    cov = box(guide[..., :, None] * guide[..., None, :], RADIUS) - mean[..., :, None] * mean[..., None, :]
    a = np.linalg.solve(cov + EPS * np.eye(3), cov_p[..., None])[..., 0]
    b = mean_p - (a * mean).sum(-1)
    a, b = stretch(box(a, RADIUS), step), stretch(box(b, RADIUS), step)
    return (a * full).sum(-1) + b > 0.5


def ask(url, path, accept):
    data = Path(path).read_bytes()
    kind = "image/png" if str(path).endswith("png") else "image/jpeg"
    request = urllib.request.Request(url, data, {"Content-Type": kind, "Accept": accept})
    return urllib.request.urlopen(request).read()


def served(server, path, size):
    """Tokens [h, w, dim], attention [heads, h, w] and the image as the model saw it, from a server."""
    q = f"size={size}&resize=fit"
    answer = json.loads(ask(f"{server}/v1/attention?{q}&head=all", path, "application/json"))
    answer = answer.get("data", [answer])[0] if isinstance(answer, dict) else answer[0]
    h, w = answer["grid"]
    heads = np.array(answer["attention"], np.float32).reshape(-1, h, w)
    tokens = np.load(io.BytesIO(ask(f"{server}/v1/embed?{q}&tokens=true", path, "application/x-npy")))
    tokens = tokens.reshape(h, w, -1).astype(np.float32)
    png = ask(f"{server}/v1/attention?{q}&head=mean&overlay=0", path, "image/png")
    return tokens, heads, np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))


def outputs(tokens, heads, image):
    h, w = tokens.shape[:2]
    patch = image.shape[0] // h
    masks, shares, cuts, alike = objects(tokens, heads)
    refined = np.array([refine(m, image, patch) for m in masks], bool)
    first = cuts[0] if cuts else (None, np.zeros(2), np.zeros(h * w), 2.0)
    out = {
        "attention": heads.mean(0),
        "eigenvector": first[2].reshape(h, w),
        "eigenvalues": np.asarray(first[1]),
        "cuts": np.array([[len(c[0]), c[3]] for c in cuts], np.float32).reshape(-1, 2),
        "alike": np.array([alike], np.float32),
        "shares": shares,
        "masks": masks.astype(np.uint8),
        "refined": refined.reshape(-1, h * patch, w * patch).astype(np.uint8),
    }
    return {k: np.ascontiguousarray(v, v.dtype if v.dtype == np.uint8 else np.float32)
            for k, v in out.items()}, first[2].reshape(h, w)


def golden(server):
    from safetensors.numpy import save_file

    here = Path(__file__).resolve().parent
    photos = here.parent / "dinov2-small-focus"
    for name in ("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg"):
        tokens, heads, image = served(server, photos / name, 224)
        out, _ = outputs(tokens, heads, image)
        save_file({"tokens": tokens, **out}, here / f"{name.split('.')[0]}_fit224.safetensors")
        print(name, out["masks"].shape, out["shares"], out["cuts"].tolist())
    tokens, heads, image = made_up()
    out, _ = outputs(tokens, heads, image)
    save_file({"tokens": tokens, "image": image, **out}, here / "made_up.safetensors")
    print("made up", out["masks"].shape, out["shares"], out["cuts"].tolist())


def made_up():
    """Tokens of two backgrounds, two things of one kind, one of another, and a speck too small to count."""
    rng = np.random.default_rng(7)
    kind = np.zeros((12, 20), int)
    kind[7:] = 1
    kind[2:6, 2:6] = kind[5:9, 14:18] = 2
    kind[1:5, 9:12] = 3
    kind[10, 3] = 2
    tokens = np.eye(16)[kind] * 3 + np.eye(16)[15] * 4 + rng.normal(size=(12, 20, 16)) * 0.25
    heads = rng.uniform(0.5, 1.5, (2, 12, 20)) * np.array([1.0, 1.5, 6.0, 4.0])[kind]
    heads /= heads.sum((1, 2), keepdims=True) * 1.1
    colors = np.array([[90, 140, 220], [80, 120, 60], [210, 60, 50], [240, 220, 90]])
    shift = np.roll(kind.repeat(14, 0).repeat(14, 1), (5, -4), (0, 1))  # edges that no patch has
    image = np.clip(colors[shift] + rng.integers(-20, 21, (168, 280, 1)), 0, 255).astype(np.uint8)
    return tokens.astype(np.float32), heads.astype(np.float32), image


def files(tokens, attention, image, folder):
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    out, exact = outputs(np.load(tokens), np.load(attention), np.asarray(Image.open(image).convert("RGB")))
    for name, value in {**out, "eigenvector": exact}.items():
        np.save(folder / f"{name}.npy", value)
    print(Path(tokens).stem, *(f"{k}={np.round(out[k], 4).tolist()}" for k in ("alike", "eigenvalues", "cuts", "shares")),
          "patches", out["masks"].sum((1, 2)).tolist(), "pixels", out["refined"].sum((1, 2)).tolist())


if __name__ == "__main__":
    if sys.argv[1] == "golden":
        golden(sys.argv[2])
    else:
        files(*sys.argv[2:])
