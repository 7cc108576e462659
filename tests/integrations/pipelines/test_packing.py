"""States that are their noise in another order and shape."""

import torch

from s3search.integrations.pipelines.packing import TokenOrder


def _tokens(noise: torch.Tensor) -> torch.Tensor:  # (B, 4, 4, 4) -> (B, 4, 16)
    cut = noise.reshape(-1, 4, 2, 2, 2, 2).permute(0, 2, 4, 1, 3, 5)
    return cut.reshape(len(noise), 4, 16)


def test_packing_is_found_from_numbered_places_and_undone() -> None:
    numbered = torch.arange(64.0).reshape(1, 4, 4, 4)
    packing = TokenOrder.of((4, 4, 4), _tokens(numbered)[0])
    assert packing is not None
    noise = torch.randn((3, 4, 4, 4), generator=torch.Generator().manual_seed(0))
    assert torch.equal(packing.packed(noise), _tokens(noise))
    assert torch.equal(packing.unpacked(_tokens(noise)), noise)


def test_states_that_are_no_rearrangement_have_no_packing() -> None:
    assert TokenOrder.of((2, 2), torch.zeros(4)) is None
    assert TokenOrder.of((2, 2), torch.arange(3.0)) is None
