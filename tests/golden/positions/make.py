"""Writes hf.json: position tables by Hugging Face's rule (bicubic, a = -0.75, no antialias, border clamped, size given),
computed in f64 with numpy alone. The native table is v(y, x) = sin(0.7 y + 0.3) + 0.5 cos(1.1 x) + 0.01 y x."""

import json

import numpy as np


def cubic(t: float) -> float:
    a, t = -0.75, abs(t)
    if t < 1:
        return (a + 2) * t**3 - (a + 3) * t**2 + 1
    return a * t**3 - 5 * a * t**2 + 8 * a * t - 4 * a if t < 2 else 0.0


def matrix(n: int, native: int = 37) -> np.ndarray:
    out = np.zeros((n, native))
    for i in range(n):
        source = (i + 0.5) * native / n - 0.5
        first = int(np.floor(source)) - 1
        for j in range(first, first + 4):
            out[i, min(max(j, 0), native - 1)] += cubic(source - j)
    return out


def main() -> None:
    y, x = np.mgrid[0:37, 0:37]
    native = np.sin(0.7 * y + 0.3) + 0.5 * np.cos(1.1 * x) + 0.01 * y * x
    cases = []
    for height, width in ((16, 16), (10, 14), (38, 39), (64, 5)):
        table = matrix(height) @ native @ matrix(width).T
        cases.append({"height": height, "width": width, "table": [round(v, 7) for v in table.ravel()]})
    with open("hf.json", "w") as file:
        json.dump(cases, file)


if __name__ == "__main__":
    main()
