"""CIFAR-10's test batch, of one image, as Python 3 pickles it again: protocols 2 to 5."""
import pathlib, pickle

import numpy as np

data = (np.arange(3072) * 7 % 256).astype(np.uint8).reshape(1, 3072)
batch = {b"batch_label": b"testing batch 1 of 1", b"labels": [8], b"data": data, b"filenames": [b"a.png"]}
for protocol in range(2, 6):
    # As torchvision's reader gives it (encoding="latin1"), or with encoding="bytes".
    text = {key.decode(): value for key, value in batch.items()}
    with open(pathlib.Path(__file__).with_name(f"protocol{protocol}.pkl"), "wb") as file:
        pickle.dump(text if protocol % 2 else batch, file, protocol)
