#!/usr/bin/env python3
"""Trains the digit classifier and writes its data and weights as .npy files beside this file.

Needs numpy, scikit-learn (for the images and the split) and torch; scripts/python-env makes such an environment.
"""

import pathlib

import numpy
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch.nn import functional

HERE = pathlib.Path(__file__).parent
SIZES = [64, 64, 32, 10]


def forward(x, layers):
    for i, (w, b) in enumerate(layers):
        x = x @ w + b
        if i < len(layers) - 1:
            x = torch.relu(x)
    return x


def main():
    torch.manual_seed(8)
    torch.set_num_threads(1)
    digits = load_digits()
    images = (digits.data / 16).astype(numpy.float32)
    labels = digits.target.astype(numpy.int64)
    train, test = train_test_split(numpy.arange(len(labels)), test_size=360, random_state=0, stratify=labels)
    train, test = numpy.sort(train), numpy.sort(test)
    # He's initialisation; weights are [inputs, outputs], so that a layer is x·w + b.
    layers = [(torch.randn(n, m) * (2 / n) ** 0.5, torch.zeros(m)) for n, m in zip(SIZES, SIZES[1:])]
    parameters = [p.requires_grad_() for layer in layers for p in layer]
    epochs, batch = 120, 32
    optimizer = torch.optim.AdamW(parameters, lr=3e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, total_steps=epochs * -(-len(train) // batch))
    x, y = torch.from_numpy(images), torch.from_numpy(labels)
    for _ in range(epochs):
        for chosen in torch.from_numpy(train)[torch.randperm(len(train))].split(batch):
            # Images moved by up to one pixel, and noise.
            dy, dx = torch.randint(-1, 2, (2,)).tolist() if torch.rand(()) < 0.4 else (0, 0)
            inputs = functional.pad(x[chosen].reshape(-1, 8, 8), (1, 1, 1, 1))[:, 1 + dy : 9 + dy, 1 + dx : 9 + dx].reshape(-1, 64)
            loss = functional.cross_entropy(forward(inputs + 0.05 * torch.randn_like(inputs), layers), y[chosen], label_smoothing=0.05)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()

    arrays = {"images": images, "labels": labels, "test_index": test.astype(numpy.int64)}
    for i, (w, b) in enumerate(layers, 1):
        arrays |= {f"w{i}": w.detach().numpy(), f"b{i}": b.detach().numpy()}
    for name, array in arrays.items():
        numpy.save(HERE / f"{name}.npy", numpy.ascontiguousarray(array))
    report()


def report():
    """Accuracy of the stored files, by NumPy in f64."""
    load = lambda name: numpy.load(HERE / f"{name}.npy")
    x, labels, test = load("images").astype(float), load("labels"), load("test_index")
    for i in (1, 2, 3):
        x = x @ load(f"w{i}").astype(float) + load(f"b{i}")
        x = numpy.maximum(x, 0) if i < 3 else x
    right = x.argmax(1) == labels
    top = numpy.sort(x, 1)
    print(f"test {right[test].sum()}/{len(test)} = {right[test].mean():.2%}, all {right.sum()}/{len(labels)} = {right.mean():.2%}, "
          f"least margin {(top[:, -1] - top[:, -2]).min():.2e}")


if __name__ == "__main__":
    main()
