"""Makes softmax.json: what scikit-learn's LogisticRegression learns from small made-up features.

    pip install numpy scikit-learn
    python make.py

The features look like tokens: a common part that is larger than what tells the classes apart, and classes of different sizes
that overlap. Two classes need `C = 2 / l2`: with two, scikit-learn fits one weight vector where a softmax has two that are
its halves, so the same penalty weighs half.
"""

import json
from pathlib import Path

import numpy as np
import sklearn
from sklearn.linear_model import LogisticRegression

WIDTH = 10


def made_up(sizes, seed):
    random = np.random.default_rng(seed)
    common = random.normal(scale=3, size=WIDTH)
    centres = random.normal(scale=0.8, size=(len(sizes), WIDTH))
    labels = np.repeat(np.arange(len(sizes)), sizes)
    features = common + centres[labels] + random.normal(size=(len(labels), WIDTH))
    order = random.permutation(len(labels))
    # With so few digits that the file holds the very values that are learnt from.
    return features[order].round(3), labels[order]


def problem(sizes, strengths, seed):
    features, labels = made_up(sizes, seed)
    new, _ = made_up([5] * len(sizes), seed + 1)
    fits = []
    for l2 in strengths:
        C = (2 if len(sizes) == 2 else 1) / l2
        model = LogisticRegression(C=C, solver="newton-cholesky", tol=1e-12, max_iter=10_000)
        model.fit(features, labels)
        fits.append({
            "l2": l2,
            "weights": model.coef_.round(6).tolist(),
            "biases": model.intercept_.round(6).tolist(),
            "probabilities": model.predict_proba(new).round(6).tolist(),
        })
    return {
        "features": features.tolist(),
        "labels": [f"class {label}" for label in labels],
        "new": new.tolist(),
        "fits": fits,
    }


answer = {
    "made_with": f"scikit-learn {sklearn.__version__}, numpy {np.__version__}",
    "several": problem([40, 25, 15, 10], [100.0, 1.0, 0.01], 1),
    "two": problem([30, 20], [1.0], 2),
}
Path(__file__).with_name("softmax.json").write_text(json.dumps(answer, separators=(",", ":")) + "\n")
