import pickle

import pytest
import torch
from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
from batchgeneratorsv2.transforms.utils.deep_supervision_downsampling import DownsampleSegForDSTransform
from batchgeneratorsv2.transforms.utils.seg_to_regions import ConvertSegmentationToRegionsTransform

from nnunet_topo.errors import ConfigError, DataError, ShapeError
from nnunet_topo.losses import CompoundLoss, make_term
from nnunet_topo.training.targets import AppendLabelTargets

SPACING = (0.5, 1.0, 3.0)
SCALES = ((1, 1, 1), (0.5, 0.5, 0.5), (0.25, 0.25, 0.5))


def batch_of_label_maps(shape, classes, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, classes, (2, 1, *shape), generator=generator).to(torch.int16)


def collate(samples):
    """As nnU-Net's data loader: entry by entry, each with the dtype of the first sample's."""
    collated = [torch.empty((len(samples), *entry.shape), dtype=entry.dtype) for entry in samples[0]]
    for j, sample in enumerate(samples):
        for entry, target in zip(sample, collated, strict=True):
            target[j] = entry
    return collated


CASES = [
    ("three classes", 3, None, None),
    ("three classes, ignore label", 4, 3, None),
    ("regions", 3, None, [(1, 2), 2]),
    ("regions, ignore label", 4, 3, [(1, 2), 2]),
]


@pytest.mark.parametrize(
    ("classes", "ignore_label", "regions"), [case[1:] for case in CASES], ids=[c[0] for c in CASES]
)
@pytest.mark.parametrize("shape", [(8, 12, 10), (12, 8)])
def test_the_pipeline_of_nnunet_gives_what_the_loss_computes_itself(classes, ignore_label, regions, shape):
    spacing = SPACING[: len(shape)]
    common = {"ignore_label": ignore_label, "regions": regions is not None, "spacing": spacing}
    loss = CompoundLoss({name: make_term(name, **common) for name in ("dice", "boundary")}, scale_weights=(0.6, 0.4, 0))
    transforms = []
    if regions is not None:
        with_ignored = [*regions, ignore_label] if ignore_label is not None else regions
        transforms.append(ConvertSegmentationToRegionsTransform(regions=with_ignored, channel_in_seg=0))
    transforms.append(DownsampleSegForDSTransform([scale[: len(shape)] for scale in SCALES]))
    transforms.append(AppendLabelTargets(loss.target_names, structures=2, **common))
    pipeline = pickle.loads(pickle.dumps(ComposeTransforms(transforms)))
    labels = batch_of_label_maps(shape, classes)
    targets = collate([pipeline(image=None, segmentation=sample)["segmentation"] for sample in labels])
    assert [tuple(t.shape[1:]) for t in targets[:1] + targets[3:]] == [tuple(targets[0].shape[1:]), (2, *shape)]
    assert targets[3].dtype == torch.float16
    channels = 3 if regions is None else 2
    outputs = [torch.randn(2, channels, *target.shape[2:], requires_grad=True) for target in targets[:3]]
    handed_in, computed = loss(outputs, targets), loss(outputs, targets[:3])
    assert torch.equal(handed_in, computed)
    for ours, theirs in zip(*(torch.autograd.grad(v, outputs[:2]) for v in (handed_in, computed)), strict=True):
        assert torch.equal(ours, theirs)


def test_without_deep_supervision_the_label_map_becomes_a_list():
    labels = batch_of_label_maps((6, 5), 2)[0]
    transform = AppendLabelTargets(["signed_distance"], ignore_label=None, regions=False, spacing=None)
    result = transform(image=None, segmentation=labels)["segmentation"]
    assert torch.equal(result[0], labels)
    assert result[1].shape == (1, 6, 5)
    nothing = AppendLabelTargets([], ignore_label=None, regions=False, spacing=None)
    assert nothing(image=None, segmentation=labels)["segmentation"] is labels


def test_unknown_target_is_refused():
    with pytest.raises(ConfigError, match="Did you mean 'signed_distance'"):
        AppendLabelTargets(["signed_distanse"], ignore_label=None, regions=False, spacing=None)


def test_more_classes_than_announced_are_refused():
    transform = AppendLabelTargets(["signed_distance"], ignore_label=4, regions=False, spacing=None)
    with pytest.raises(DataError, match=r"expected labels 0..1, got 2. Pass structures="):
        transform(image=None, segmentation=torch.tensor([[[0, 1, 4], [2, 1, 0]]]))


def test_label_maps_of_two_channels_are_refused():
    transform = AppendLabelTargets(["signed_distance"], ignore_label=None, regions=False, spacing=None)
    with pytest.raises(ShapeError, match="expected 1 channel"):
        transform(image=None, segmentation=torch.zeros(2, 4, 5))
