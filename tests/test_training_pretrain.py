"""The store holds the data, and cut-outs show the object that they are labelled with."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from harness.datasets.shapes import LABELS, Shapes
from harness.interfaces import MODELS
from models._ssd import Ssd
from models.training.augment import Augmentation
from models.training.batches import Feed
from models.training.options import Pretrain
from models.training.order import Order
from models.training.pretrain import Namer, cut_out, cut_outs
from models.training.store import open_images

SPEC = MODELS.get("etinynet_ssd_lite")(LABELS, width=0.35)


@pytest.fixture(scope="module")
def feed(tmp_path_factory: pytest.TempPathFactory) -> Feed:
    cache = tmp_path_factory.mktemp("cache")
    store = open_images("shapes:train", 16, cache, workers=0)
    return Feed(
        store, SPEC.image, SPEC.decoding, Augmentation(), 0.4, seed=3, order=Order(16, seed=3)
    )


def test_store_holds_the_data_set(feed: Feed) -> None:
    data = Shapes("train", 16)
    assert len(feed.store) == 16
    for index in range(16):
        sample, truth = feed.store.sample(index), data.truth(index)
        np.testing.assert_array_equal(sample.image, data.image(index))
        np.testing.assert_array_equal(sample.boxes, truth.boxes)
        np.testing.assert_array_equal(sample.labels, truth.labels)
        assert not sample.image.flags.writeable


def test_every_epoch_shows_every_image_once(feed: Feed) -> None:
    epochs = [[feed.order.picture(16 * epoch + place) for place in range(16)] for epoch in range(3)]
    assert all(sorted(epoch) == list(range(16)) for epoch in epochs)
    assert epochs[0] != epochs[1]


def test_cut_outs_show_their_object(feed: Feed) -> None:
    how = Pretrain(images=2, margin=1.6)
    for index in range(16):
        sample = feed.store.sample(index)
        view, label = cut_out(sample, feed, how, np.random.default_rng(index))
        assert view.pixels.shape == (64, 64, 3)
        assert label in sample.labels
        sides = view.boxes[view.labels == label]
        # the object fills between 1 / 1.6 and 1 / 1.05 of the cut-out along its longer side
        assert ((sides[:, 2:] - sides[:, :2]).max(axis=1) > 0.5).any()


def test_cut_outs_depend_on_seed_and_number_alone(feed: Feed) -> None:
    how = Pretrain(images=8, batch=4)
    images, labels = cut_outs(feed, how, first=4)
    again, _ = cut_outs(feed, how, first=4)
    other, _ = cut_outs(feed._replace(seed=4), how, first=4)
    assert images.shape == (4, 3, 64, 64)
    assert set(labels.tolist()) <= set(range(1, len(LABELS)))
    assert torch.equal(images, again)
    assert not torch.equal(images, other)


def test_namer_has_a_head_for_each_backbone_map() -> None:
    network: Ssd = SPEC.build()
    answers = Namer(network)(torch.zeros(2, 3, 64, 64))
    assert [tuple(answer.shape) for answer in answers] == [(2, len(LABELS))] * 3
