"""Statistics of two features in pickles, as EDM (mu, sigma) and EDM2 (fid: mu, sigma) keep them."""

import pickle

import numpy

mu = numpy.array([0.5, -1.0])
sigma = numpy.array([[2.0, 0.25], [0.25, 3.0]])


def save(name, value, protocol):
    with open(name, "wb") as file:
        pickle.dump(value, file, protocol=protocol)


for protocol in [2, 3, 4, 5]:
    save(f"protocol{protocol}.pkl", {"mu": mu, "sigma": sigma}, protocol)
big = {"mu": mu.astype(">f4"), "sigma": numpy.asfortranarray(sigma).astype("f2")}
save("others.pkl", big, 4)
save("edm2.pkl", {"fd_dinov2": {"mu": mu[:1]}, "fid": {"mu": mu, "sigma": sigma}}, 4)
save("other.pkl", {"data": mu, "labels": [1, 2]}, 4)
