"""Measures anomaly detection of a running server on pictures with planted defects.

    pip install numpy==2.4.6 scipy==1.17.1 pillow==13.0.0
    dinoserve serve --model dinov2-small-focus &
    python anomalies.py [--url http://127.0.0.1:8080] [--categories wood,gear] [--seed 0] [--save DIR]

The pictures are drawn here, 448 by 448 pixels: six textures, and four objects whose position, angle and
brightness vary a little. A category has 10 good pictures to learn from, 20 other good ones, and 20 with
a defect whose mask is known. For each category it prints, and at the end their means:

    image    AUROC of the pictures' scores
    pixel    AUROC of the heat maps' pixels, over all test pictures together
    PRO      mean share of a defect that is found, over false positive rates of pixels up to 0.3 (MVTec AD)
    alarms   share of the good test pictures that are called anomalous
    found    share of the defective pictures that are called anomalous

--save DIR also writes all pictures and masks as DIR/CATEGORY/{train,good,defect,mask}/NUMBER.png.
"""

import argparse
import concurrent.futures
import io
import json
import urllib.parse
import urllib.request
from pathlib import Path

import numpy as np
from PIL import Image
from scipy import ndimage, spatial, stats

SIDE = 448
TRAIN, GOOD, DEFECTIVE = 10, 20, 20
SMALLEST = 450  # pixels of a defect
HIGHEST_FPR = 0.3
Y, X = np.mgrid[0:SIDE, 0:SIDE].astype(np.float64)


def noise(rng, sigma):
    """Gaussian noise smoothed by sigma pixels (or one sigma for each axis), of unit variance."""
    field = ndimage.gaussian_filter(rng.standard_normal((SIDE, SIDE)), sigma, mode="wrap")
    return field / field.std()


def color(*levels):
    return np.array(levels) / 255


def blend(pixels, cover, other):
    """Pixels with another color (or other pixels) where cover is 1."""
    return pixels + cover[..., None] * (other - pixels)


def inside(distance):
    """Coverage of a shape, from the signed distance to its edge in pixels."""
    return np.clip(0.5 - distance, 0, 1)


def smooth(low, high, x):
    t = np.clip((x - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


def pose(rng, angle=0.0):
    """Coordinates of an object near the center that is turned and shifted a little."""
    turn = np.radians(angle + rng.uniform(-4, 4))
    x, y = X - SIDE / 2 - rng.uniform(-8, 8), Y - SIDE / 2 - rng.uniform(-8, 8)
    return np.cos(turn) * x + np.sin(turn) * y, np.cos(turn) * y - np.sin(turn) * x


# Textures. Each takes a generator (and one for broken parts, unused) and returns pixels and where defects may be.

EVERYWHERE = np.ones((SIDE, SIDE), bool)


def wood(rng, _):
    rings = np.sin((Y + 16 * noise(rng, (25, 110))) / 5.5)
    tone = 0.5 + 0.17 * rings + 0.1 * noise(rng, (1, 25)) + 0.06 * noise(rng, (30, 80))
    return blend(np.tile(color(206, 160, 106), (SIDE, SIDE, 1)), np.clip(tone, 0, 1), color(128, 80, 44)), EVERYWHERE


def fabric(rng, _):
    u, v = pose(rng)
    u, v = u + 0.8 * noise(rng, 30), v + 0.8 * noise(rng, 30)
    period = 14.0
    over = (np.floor(u / period) + np.floor(v / period)) % 2 == 0
    across = np.where(over, v, u) / period % 1 - 0.5
    along = np.where(over, u, v) / period % 1 - 0.5
    shade = np.cos(across * np.pi) ** 0.5 * (0.75 + 0.25 * np.cos(along * np.pi)) + 0.03 * noise(rng, 0.8)
    base = np.where(over[..., None], color(88, 112, 160), color(178, 184, 196))
    return base * np.clip(shade, 0.2, 1.1)[..., None], EVERYWHERE


def tiles(rng, _):
    u, v = pose(rng)
    size, gap = 112.0, 4.0
    column, row = np.floor(u / size).astype(int), np.floor(v / size).astype(int)
    edge = np.minimum(np.minimum(u % size, size - u % size), np.minimum(v % size, size - v % size))
    tones = rng.uniform(-0.035, 0.035, (16, 16))[row % 16, column % 16]
    marble = 0.04 * noise(rng, 14) + 0.025 * noise(rng, 3)
    tile = color(196, 205, 200) + (tones + marble + 0.1 * smooth(gap + 8, gap, edge))[..., None]
    grout = color(110, 106, 100) + (0.03 * noise(rng, 1))[..., None]
    return blend(tile, inside(edge - gap), grout), EVERYWHERE


def leather(rng, _):
    step = 13
    y, x = np.mgrid[-1 : SIDE // step + 3, -1 : SIDE // step + 3] * step
    points = np.stack([y, x], -1).reshape(-1, 2) + rng.uniform(-0.45, 0.45, (y.size, 2)) * step
    near = spatial.cKDTree(points).query(np.stack([Y, X], -1).reshape(-1, 2), k=2)[0]
    crease = (near[:, 1] - near[:, 0]).reshape(SIDE, SIDE)
    tone = 0.62 + 0.38 * smooth(0, 5, crease) + 0.03 * noise(rng, 1) + 0.03 * noise(rng, 60)
    return color(134, 82, 54) * tone[..., None], EVERYWHERE


def carpet(rng, _):
    tufts = 0.09 * noise(rng, 1.3) + 0.06 * noise(rng, 3)
    flecks = smooth(1.2, 1.8, noise(rng, 2.2))
    pixels = color(98, 104, 118) + tufts[..., None]
    return blend(pixels, 0.7 * flecks, color(180, 172, 150) + tufts[..., None]), EVERYWHERE


def metal(rng, _):
    lines = 0.035 * noise(rng, (0.6, 70)) + 0.025 * noise(rng, (2, 120))
    light = 0.06 * np.cos((X - rng.uniform(180, 260)) / 160)
    return color(164, 168, 172) + (lines + light)[..., None], EVERYWHERE


# Objects. With a second generator, a part is missing or broken at a random place.


def table(rng, *levels):
    return color(*levels) + (0.008 * noise(rng, 2) + 0.012 * noise(rng, 80))[..., None]


def shadow(pixels, distance):
    return pixels * (1 - 0.35 * np.exp(-np.maximum(np.roll(distance, (6, 6), (0, 1)), 0) / 6))[..., None]


def gear(rng, broken):
    x, y = pose(rng)
    radius, angle = np.hypot(x, y), np.arctan2(y, x)
    teeth = 16
    height = 22 * smooth(-0.35, 0.35, np.cos(teeth * angle))
    holes = np.min([np.hypot(x - 78 * np.cos(t), y - 78 * np.sin(t)) for t in np.arange(6) * np.pi / 3], 0) - 20
    if broken is not None:
        which = broken.integers(teeth) * 2 * np.pi / teeth
        off = np.abs((angle - which + np.pi) % (2 * np.pi) - np.pi) < np.pi / teeth
        height = np.where(off, height * broken.uniform(0, 0.2), height)
    distance = np.maximum(radius - 132 - height, np.maximum(28 - radius, -holes))
    shine = 0.03 * noise(rng, 1.2) + 0.05 * np.cos(angle * 2 + 0.6) - 0.12 * smooth(-6, 0, distance)
    steel = blend(color(150, 152, 158) + shine[..., None], inside(np.abs(radius - 112) - 2.5), color(96, 98, 104))
    return blend(shadow(table(rng, 222, 218, 208), distance), inside(distance), steel), distance < -4


def screw(rng, broken):
    x, y = pose(rng, 32)
    thread, tip, chip = np.ones_like(x), 165.0, np.full_like(x, -99.0)
    if broken is not None:
        kind = broken.integers(3)
        if kind == 0:
            start = broken.uniform(-60, 60)
            thread = 1 - ((x > start) & (x < start + 48))
        elif kind == 1:
            tip = broken.uniform(105, 125)
        else:
            chip = 26 - np.hypot(x + 150, np.abs(y) - 48 if broken.random() < 0.3 else y - 48)
    wave = np.sin(2 * np.pi * (x + 0.25 * y) / 15)
    taper = np.minimum(1, np.maximum(0, 175 - x) / 45)
    shaft = np.maximum(np.abs(y) - (21 + 5 * wave * thread) * taper, np.maximum(-112 - x, x - tip))
    head = np.maximum(np.maximum(np.abs(y) - 50 + 0.25 * np.maximum(x + 130, 0), np.maximum(-168 - x, x + 112)), chip)
    distance = np.minimum(shaft, head)
    round_ = np.sqrt(np.clip(1 - (y / np.where(x < -112, 54, 28)) ** 2, 0, 1))
    tone = 0.35 + 0.45 * round_ + np.where(x > -112, 0.13 * wave * thread, 0) + 0.02 * noise(rng, 1)
    brass = color(226, 190, 120) * tone[..., None]
    brass = blend(brass, inside(np.maximum(np.abs(y) - 7, np.abs(x + 160) - 10)), color(60, 46, 30))
    return blend(shadow(table(rng, 92, 112, 116), distance), inside(distance), brass), distance < -4


def cap(rng, broken):
    x, y = pose(rng)
    radius, angle = np.hypot(x, y), np.arctan2(y, x)
    edge = 160 + 6 * np.cos(21 * angle)
    ring = np.abs(radius - 92) - 7
    chip = np.full_like(x, -99.0)
    if broken is not None:
        where = broken.uniform(0, 2 * np.pi)
        if broken.random() < 0.5:
            off = np.abs((angle - where + np.pi) % (2 * np.pi) - np.pi) < 0.3
            ring = np.where(off, 99, ring)
        else:
            chip = 28 - np.hypot(x - 160 * np.cos(where), y - 160 * np.sin(where))
    distance = np.maximum(radius - edge, chip)
    tone = 0.82 + 0.14 * np.cos(angle + 2.2) * smooth(118, 150, radius) - 0.18 * smooth(-10, 0, radius - edge)
    tone += np.where(radius > 128, 0.1 * np.cos(21 * angle), 0) + 0.012 * noise(rng, 1.5)
    red = color(196, 44, 48) * tone[..., None]
    star = np.hypot(x, y) - (38 + 16 * np.cos(5 * angle))
    white = color(238, 232, 220)
    red = blend(blend(red, inside(ring), white), inside(star), white)
    return blend(shadow(table(rng, 168, 160, 146), distance), inside(distance), red), distance < -6


def capsule(rng, broken):
    x, y = pose(rng, -12)
    body = np.hypot(np.maximum(np.abs(x) - 100, 0), y) - 58
    marks = [(x0, height) for x0, height in ((28, 20), (46, 26), (64, 14), (82, 26), (100, 20))]
    dent = np.full_like(x, -99.0)
    if broken is not None:
        if broken.random() < 0.5:
            first = broken.integers(4)
            marks = [mark for i, mark in enumerate(marks) if i not in (first, first + 1)]
        else:
            dent = 30 - np.hypot(x - broken.uniform(-110, 110), y - 62 * broken.choice([-1, 1]))
    distance = np.maximum(body, dent)
    tone = 0.72 + 0.28 * np.sqrt(np.clip(1 - (y / 60) ** 2, 0, 1)) + 0.008 * noise(rng, 1.5)
    half = smooth(-1, 1, x)
    shell = blend(np.tile(color(36, 128, 116), (SIDE, SIDE, 1)), half, color(240, 226, 180)) * tone[..., None]
    shell = blend(shell, 0.7 * inside(np.abs(x) - 1.5), color(40, 60, 56))
    for x0, height in marks:
        shell = blend(shell, inside(np.maximum(np.abs(x - x0) - 4, np.abs(y) - height)), color(40, 40, 52))
    shell = blend(shell, 0.55 * smooth(9, 3, np.abs(y + 30)) * smooth(104, 80, np.abs(x)), color(255, 255, 255))
    return blend(shadow(table(rng, 208, 206, 214), distance), inside(distance), shell), distance < -6


# Defects. Each takes pixels and where it may be, and returns pixels and its cover of each pixel.


def place(rng, where, margin=24):
    allowed = where.copy()
    allowed[:margin], allowed[-margin:], allowed[:, :margin], allowed[:, -margin:] = False, False, False, False
    at = rng.choice(np.flatnonzero(allowed))
    return divmod(int(at), SIDE)


def scratch(rng, pixels, where):
    y, x = place(rng, where, 60)
    heading, bend = rng.uniform(0, 2 * np.pi), rng.uniform(-0.008, 0.008)
    steps = np.arange(int(rng.uniform(70, 150)))
    directions = heading + bend * (steps - len(steps) / 2)
    path = np.stack([np.cumsum(np.sin(directions)), np.cumsum(np.cos(directions))], 1)
    path += np.array([y, x]) - path[len(path) // 2]
    away = spatial.cKDTree(path).query(np.stack([Y, X], -1).reshape(-1, 2))[0].reshape(SIDE, SIDE)
    width = rng.uniform(2.5, 4)
    cover = inside(away - width - 0.5 * noise(rng, 3)) * where
    ridge = inside(np.abs(away - width - 1.5) - 1) * where
    ground = np.average(pixels.reshape(-1, 3), 0, cover.ravel() + 1e-9)
    marked = blend(pixels, 0.9 * cover, ground * (0.35 if ground.mean() > 0.45 else rng.choice([0.25, 1.9])))
    return blend(marked, 0.3 * ridge, color(255, 255, 255)), np.maximum(cover, ridge)


def stain(rng, pixels, where):
    y, x = place(rng, where)
    radius = rng.uniform(15, 30)
    stretch = rng.uniform(0.75, 1.3)
    away = np.hypot((Y - y) * stretch, (X - x) / stretch)
    cover = smooth(3, -3, away - radius - 4 * noise(rng, 8)) * where
    tint = [color(60, 36, 20), color(36, 40, 80), color(40, 70, 30)][rng.integers(3)]
    return blend(pixels, 0.65 * cover, tint), cover


def moved(rng, pixels, where, change):
    """Replaces a square by a changed one from another place."""
    y, x = place(rng, where, 60)
    size = int(rng.uniform(44, 72))
    from_y, from_x = rng.integers(0, SIDE - size, 2)
    piece = change(pixels[from_y : from_y + size, from_x : from_x + size])
    out, cover = pixels.copy(), np.zeros((SIDE, SIDE))
    y, x = y - size // 2, x - size // 2
    out[y : y + size, x : x + size] = piece
    cover[y : y + size, x : x + size] = 1
    return blend(pixels, cover * where, out), cover * where


def swapped(rng, pixels, where):
    return moved(rng, pixels, where, lambda piece: piece.transpose(1, 0, 2))


def enlarged(rng, pixels, where):
    def larger(piece):
        half = piece[: (len(piece) + 1) // 2, : (len(piece) + 1) // 2]
        return half.repeat(2, 0).repeat(2, 1)[: len(piece), : len(piece)]

    return moved(rng, pixels, where, lambda piece: ndimage.gaussian_filter(larger(piece), (0.8, 0.8, 0)))


def worn(rng, pixels, where):
    """A spot that has lost its texture."""
    y, x = place(rng, where)
    away = np.hypot(Y - y, X - x) - rng.uniform(20, 34) - 3 * noise(rng, 8)
    cover = smooth(4, -4, away) * where
    return blend(pixels, cover, ndimage.gaussian_filter(pixels, (7, 7, 0)) * 1.2), cover


def hole(rng, pixels, where):
    y, x = place(rng, where)
    away = np.hypot(Y - y, X - x) - rng.uniform(14, 24) - 2 * noise(rng, 5)
    cover, rim = inside(away) * where, 0.5 * inside(np.abs(away - 2) - 2) * where
    return blend(blend(pixels, cover, pixels * 0.3), rim, color(250, 246, 236)), np.maximum(cover, 2 * rim)


CATEGORIES = {
    "wood": (wood, (scratch, stain, swapped, hole)),
    "fabric": (fabric, (scratch, stain, enlarged, worn)),
    "tiles": (tiles, (scratch, stain, hole)),
    "leather": (leather, (scratch, stain, enlarged, worn)),
    "carpet": (carpet, (scratch, stain, enlarged, worn)),
    "metal": (metal, (scratch, stain, swapped, enlarged)),
    "gear": (gear, (scratch, stain, None)),
    "screw": (screw, (scratch, stain, None)),
    "cap": (cap, (scratch, stain, None)),
    "capsule": (capsule, (scratch, stain, None)),
}


def photographed(rng, pixels):
    """Pixels of 8 bits, with the light and the noise of a camera."""
    lit = pixels * rng.uniform(0.97, 1.03) + rng.normal(size=pixels.shape) * 0.012
    return np.clip(lit * 255 + 0.5, 0, 255).astype(np.uint8)


def good_picture(draw, seed):
    pixels, _ = draw(np.random.default_rng([*seed, 0]), None)
    return photographed(np.random.default_rng([*seed, 1]), pixels)


def defective_picture(draw, defect, seed):
    """A picture with a defect, and the mask of the defect. Without a function, a part is missing."""
    pixels, where = draw(np.random.default_rng([*seed, 0]), None)
    rng = np.random.default_rng([*seed, 2])
    if defect:
        mask = np.zeros((SIDE, SIDE), bool)
        while mask.sum() < SMALLEST:
            damaged, cover = defect(rng, pixels, where)
            mask = cover > 0.4
    else:
        damaged, _ = draw(np.random.default_rng([*seed, 0]), rng)
        mask = ndimage.binary_closing(np.abs(damaged - pixels).max(2) > 0.06, iterations=4)
        mask = ndimage.binary_opening(mask, iterations=1)
    return photographed(np.random.default_rng([*seed, 1]), damaged), mask


def pictures(category, seed):
    """Good pictures to learn from, pictures to test on, and the masks of the latter."""
    draw, defects = CATEGORIES[category]
    number = list(CATEGORIES).index(category)
    train = [good_picture(draw, (seed, number, i)) for i in range(TRAIN)]
    test = [good_picture(draw, (seed, number, 1000 + i)) for i in range(GOOD)]
    masks = [np.zeros((SIDE, SIDE), bool)] * GOOD
    for i in range(DEFECTIVE):
        picture, mask = defective_picture(draw, defects[i % len(defects)], (seed, number, 2000 + i))
        test.append(picture)
        masks.append(mask)
    return train, test, masks


def auroc(scores, positive):
    ranks = stats.rankdata(scores)
    count = int(positive.sum())
    return (ranks[positive].sum() - count * (count + 1) / 2) / (count * (len(scores) - count))


def pro(heats, masks):
    """Per-region overlap: its mean over false positive rates from 0 to HIGHEST_FPR."""
    negative = np.sort(np.concatenate([heat[~mask] for heat, mask in zip(heats, masks)]))[::-1]
    rates = np.linspace(0, HIGHEST_FPR, 1001)
    limits = negative[np.minimum((rates * len(negative)).astype(int), len(negative) - 1)]
    overlaps = []
    for heat, mask in zip(heats, masks):
        regions, count = ndimage.label(mask, np.ones((3, 3)))
        for region in range(1, count + 1):
            inner = np.sort(heat[regions == region])
            overlaps.append(1 - np.searchsorted(inner, limits, side="right") / len(inner))
    return float(np.trapezoid(np.mean(overlaps, 0), rates) / HIGHEST_FPR)


def png(picture):
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "PNG", compress_level=1)
    return file.getvalue()


def save(folder, train, test, masks):
    rows = [("train", train), ("good", test[:GOOD]), ("defect", test[GOOD:]), ("mask", masks[GOOD:])]
    for name, images in rows:
        (folder / name).mkdir(parents=True, exist_ok=True)
        for i, image in enumerate(images):
            Image.fromarray(image).save(folder / name / f"{i:02}.png")


def served(url, options):
    """A judge that asks a server. It returns of each test picture the score, the verdict and the heat map."""

    def send(method, path, body=None, **headers):
        headers = {name.replace("_", "-"): value for name, value in headers.items()}
        with urllib.request.urlopen(urllib.request.Request(url + path, body, headers, method=method)) as answer:
            return answer.read()

    def judge(category, train, test):
        route = f"/v1/anomaly/{urllib.parse.quote('loadtest-' + category)}"
        boundary = "picture-7d1f0c52b9a64e38"
        parts = []
        for i, picture in enumerate(train):
            head = f'--{boundary}\r\nContent-Disposition: form-data; name="image"; filename="{i}.png"\r\n'
            parts.append(head.encode() + b"Content-Type: image/png\r\n\r\n" + png(picture) + b"\r\n")
        form = b"".join(parts) + f"--{boundary}--\r\n".encode()
        query = "&".join(filter(None, ["wait=true", options]))
        send("PUT", f"{route}?{query}", form, content_type=f"multipart/form-data; boundary={boundary}")

        def score(picture):
            file = png(picture)
            ask = lambda kind: send("POST", f"{route}/score", file, content_type="image/png", accept=kind)
            verdict, heat = json.loads(ask("application/json")), ask("application/x-npy")
            return verdict["score"], verdict["anomalous"], np.load(io.BytesIO(heat))

        try:
            with concurrent.futures.ThreadPoolExecutor(4) as pool:
                return list(pool.map(score, test))
        finally:
            send("DELETE", route)

    return judge


def measure(category, seed, judge, folder=None):
    train, test, masks = pictures(category, seed)
    if folder:
        save(Path(folder) / category, train, test, masks)
    scores, verdicts, heats = zip(*judge(category, train, test))
    defective = np.arange(len(test)) >= GOOD
    verdicts = np.array(verdicts, bool)
    pixels = auroc(np.concatenate([heat.ravel() for heat in heats]), np.concatenate([mask.ravel() for mask in masks]))
    return [
        auroc(np.array(scores), defective),
        pixels,
        pro(heats, masks),
        verdicts[~defective].mean(),
        verdicts[defective].mean(),
    ]


def report(categories, seed, judge, folder=None):
    line = lambda name, row: print(f"{name:10}" + "".join(f"{value:8.3f}" for value in row), flush=True)
    print(f"{'':10}" + "".join(f"{name:>8}" for name in ("image", "pixel", "PRO", "alarms", "found")))
    rows = []
    for category in categories:
        rows.append(measure(category, seed, judge, folder))
        line(category, rows[-1])
    line("mean", np.mean(rows, 0))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--url", default="http://127.0.0.1:8080")
    parser.add_argument("--categories", default=",".join(CATEGORIES), help="names, separated by commas")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--options", default="", help="more of the query when learning, such as coreset=0.1")
    parser.add_argument("--save", metavar="DIR", help="folder for the pictures and masks")
    arguments = parser.parse_args()
    categories = arguments.categories.split(",")
    report(categories, arguments.seed, served(arguments.url, arguments.options), arguments.save)


if __name__ == "__main__":
    main()
