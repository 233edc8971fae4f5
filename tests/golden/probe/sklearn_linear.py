"""scikit-learn's logistic regression on the features that `dinoserve eval linear` uses, to compare with.

    pip install numpy scikit-learn
    for set in train test; do
        dinoserve embed tests/golden/cifar10-sample/$set -o $set.npy --pooling cls_mean --no-normalize \\
            --model dinov2-small-focus
    done
    python sklearn_linear.py train.npy test.npy --l2 100 --json cifar10_sample.json

Prints the accuracy for each strength of the penalty that is given by --l2, and keeps the predictions of the last.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import sklearn
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_score


def read(path):
    paths = path.with_suffix(".paths.txt").read_text().splitlines()
    return np.load(path).astype(np.float64), np.array([line.split("/")[0] for line in paths]), paths


def model(l2):
    return LogisticRegression(C=1 / l2, tol=1e-6, max_iter=10_000)


parser = argparse.ArgumentParser()
parser.add_argument("train", type=Path)
parser.add_argument("test", type=Path)
parser.add_argument("--l2", type=float, nargs="+", required=True)
parser.add_argument("--json", type=Path)
arguments = parser.parse_args()

train, train_labels, _ = read(arguments.train)
test, test_labels, paths = read(arguments.test)
folds = StratifiedKFold(5, shuffle=True, random_state=0)
for l2 in arguments.l2:
    held_out = cross_val_score(model(l2), train, train_labels, cv=folds).mean()
    fitted = model(l2).fit(train, train_labels)
    accuracy = fitted.score(test, test_labels)
    print(f"l2 = {l2:>8g}  cross-validated {held_out * 100:5.1f} %  test {accuracy * 100:5.1f} %")
if arguments.json:
    kept = {
        "made_with": f"scikit-learn {sklearn.__version__}",
        "l2": l2,
        "accuracy": accuracy,
        "predictions": dict(zip(paths, fitted.predict(test).tolist())),
        "probabilities": dict(zip(paths, fitted.predict_proba(test).max(axis=1).round(5).tolist())),
    }
    arguments.json.write_text(json.dumps(kept, indent=1) + "\n")
