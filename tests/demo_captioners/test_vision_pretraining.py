"""Learning to look: the right answers for each cell, and queries that start out at one cell each."""

import math

import torch
from torch import nn

from caploom.demo.scenes import Placement, Scene
from caploom.demo.world import BACKGROUNDS, THINGS
from demo_captioners.vision_pretraining import _attend_to_cells, _cells, _sharp


def test_each_cell_knows_what_covers_it_what_is_centred_in_it_and_the_place():
    scene = Scene(0, "training", "beach", (Placement("dog", 32, 16, 16, False), Placement("cat", 16, 56, 40, True)))
    answers = _cells(scene).reshape(4, 4, 3)
    nothing = len(THINGS)
    names = [thing.name for thing in THINGS]
    dog, cat = names.index("dog"), names.index("cat")
    expected = torch.full((4, 4), nothing)
    expected[:2, :2] = dog
    expected[2, 3] = cat
    assert answers[..., 0].tolist() == expected.tolist()
    centres = torch.full((4, 4), nothing)
    centres[1, 1] = dog
    centres[2, 3] = cat
    assert answers[..., 1].tolist() == centres.tolist()
    assert {BACKGROUNDS[number].name for number in answers[..., 2].ravel()} == {"beach"}


def test_queries_start_out_attending_to_one_cell_each_and_stay_with_it():
    torch.manual_seed(0)
    width, heads, head = 128, 4, 32
    places = torch.linalg.qr(torch.randn(width, 16)).Q.T
    seen = places + 0.02 * torch.randn(8, 16, width)
    cells = _sharp(places, seen)
    queries = nn.Parameter(torch.zeros(1, 16, width))
    query, key, value, output = (nn.Linear(width, width) for _ in range(4))
    _attend_to_cells(queries, cells, query, key, value, output, heads)
    asked = query(nn.functional.layer_norm(queries, (width,))).view(16, heads, head)
    offered = key(seen).view(8, 16, heads, head)
    attention = (torch.einsum("qhd,bkhd->bhqk", asked, offered) / math.sqrt(head)).softmax(-1)
    assert attention.diagonal(dim1=-2, dim2=-1).min() > 0.9
    assert torch.allclose(output(value(seen)), seen, atol=1e-5)
    assert not any(weights.requires_grad for weights in (queries, *query.parameters(), *key.parameters()))
