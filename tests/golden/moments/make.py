"""Writes basis.json: mean, principal components and ranges of 125 made-up tokens of width 64, computed in f64 with numpy
alone. Token i is v(d) = 4 + 5 sin(0.37 i) cos(0.9 d) + 3 cos(0.61 i + 1) sin(0.5 d + 0.3) + 2 sin(0.11 i + 2) cos(0.23 d)
+ 0.2 sin(1.7 i + 2.3 d + 0.01 i d), rounded to f32. The entry of largest magnitude of a component is positive. Ranges are
the first and last percentile of what the tokens, rounded to f16, have as coordinates."""

import json

import numpy as np


def main() -> None:
    i, d = np.mgrid[0:125, 0:64].astype(np.float64)
    tokens = 4 + 5 * np.sin(0.37 * i) * np.cos(0.9 * d) + 3 * np.cos(0.61 * i + 1) * np.sin(0.5 * d + 0.3)
    tokens += 2 * np.sin(0.11 * i + 2) * np.cos(0.23 * d) + 0.2 * np.sin(1.7 * i + 2.3 * d + 0.01 * i * d)
    tokens = tokens.astype(np.float32)

    exact = tokens.astype(np.float64)
    mean = exact.mean(axis=0)
    _, singular, rows = np.linalg.svd(exact - mean, full_matrices=False)
    variances = singular**2 / len(exact)
    components = rows[:3]
    components *= np.sign(components[np.arange(3), np.abs(components).argmax(axis=1)])[:, None]
    coordinates = (tokens.astype(np.float16).astype(np.float64) - mean) @ components.T
    reference = {
        "mean": mean,
        "components": components,
        "explained": variances[:3] / variances.sum(),
        "ranges": np.quantile(coordinates, [0.01, 0.99], axis=0).T,
    }
    with open("basis.json", "w") as file:
        json.dump({name: np.round(values, 8).tolist() for name, values in reference.items()}, file)


if __name__ == "__main__":
    main()
