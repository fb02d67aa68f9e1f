"""Classify a photo in ten lines of PyTorch, without fieldguide: ten_lines.py WEIGHTS PHOTO."""

import sys
from itertools import pairwise

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import nn

layers: list[nn.Module] = []
for i, o in pairwise((3, 32, 64, 128, 256, 512)):
    layers += [nn.Conv2d(i, o, 3, padding=1, bias=False), nn.BatchNorm2d(o), nn.ReLU()]
    layers += [nn.MaxPool2d(2)]
net = nn.Sequential(*layers, nn.Flatten(), nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 10))
net.load_state_dict(load_file(sys.argv[1]))
pixels = np.asarray(Image.open(sys.argv[2]).convert("RGB").resize((32, 32)))  # (H, W, 3)
image = torch.tensor(pixels).permute(2, 0, 1)[None] / 255  # -> (1, 3, H, W)
with torch.inference_mode():
    print(*net.eval()((image - 0.5) / 0.25).softmax(dim=1)[0].topk(3).indices.tolist())
