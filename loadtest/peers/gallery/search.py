"""Searches with FAISS and hnswlib, for comparison with galleries.

    search.py VECTORS.npy QUERIES.npy

reads one command per line, and prints one line of JSON for each:

    exact          faiss.IndexFlatIP, one thread: {"ms": [per query], "ids": [[10 per query]]}
    build N        hnswlib with N threads: {"seconds": .., "mb": ..}
    approximate E  hnswlib with ef E, one thread: like `exact`
"""

import json
import sys
import time

import faiss
import hnswlib
import numpy

K = 10
# The parameters of dinoserve's index.
M, EF_CONSTRUCTION = 16, 128


def resident_mb():
    with open("/proc/self/status") as status:
        line = next(line for line in status if line.startswith("VmRSS:"))
    return int(line.split()[1]) / 1000


def timed(queries, search):
    times, ids = [], []
    for query in queries:
        started = time.perf_counter()
        found = search(query)
        times.append((time.perf_counter() - started) * 1e3)
        ids.append([int(i) for i in found[0]])
    return {"ms": times, "ids": ids}


def main():
    vectors = numpy.load(sys.argv[1], mmap_mode="r")
    queries = [row[None].copy() for row in numpy.load(sys.argv[2])]
    flat = graph = None
    faiss.omp_set_num_threads(1)
    for line in sys.stdin:
        command, *arguments = line.split()
        if command == "exact":
            if flat is None:
                flat = faiss.IndexFlatIP(vectors.shape[1])
                flat.add(numpy.ascontiguousarray(vectors))
            answer = timed(queries, lambda query: flat.search(query, K)[1])
        elif command == "build":
            before, started = resident_mb(), time.perf_counter()
            graph = hnswlib.Index(space="ip", dim=vectors.shape[1])
            graph.init_index(len(vectors), M=M, ef_construction=EF_CONSTRUCTION, random_seed=1)
            graph.add_items(vectors, num_threads=int(arguments[0]))
            graph.set_num_threads(1)
            answer = {"seconds": time.perf_counter() - started, "mb": resident_mb() - before}
        else:
            graph.set_ef(int(arguments[0]))
            answer = timed(queries, lambda query: graph.knn_query(query, k=K)[0])
        print(json.dumps(answer), flush=True)


main()
