"""The images that verification runs on."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np
import numpy.typing as npt

from mtl_deploy.export.options.export import Options
from mtl_deploy.runtime.bundle.preprocessing import Preprocessing
from mtl_deploy.runtime.bundle.signature import Signature
from mtl_deploy.runtime.errors import OptionError

REFERENCES = 8
_REFERENCE_BYTES = 16 << 20  # before compression
_FEWEST = 2
_STRESS = 6  # one of each pattern
_SEED = 1  # not the seed of the images that graphs are verified on


@dataclass(frozen=True)
class VerificationImages:
    """Images at the network's size.

    Attributes:
        array: ``(N, H, W, 3) uint8, RGB``.
        source: ``images`` or ``generated``.
        description: for people.
    """

    array: npt.NDArray[np.uint8]
    source: str
    description: str


def verification_images(options: Options, preprocessing: Preprocessing, batch: int | None) -> VerificationImages:
    """Read the user's images, or generate some where there are none.

    Args:
        options: the images' folder and the number of samples.
        preprocessing: the size.
        batch: the only batch that the network takes: their number is brought up to a multiple of it.

    Raises:
        OptionError: the folder holds fewer readable images than samples are wanted.
        ImageError: the folder holds none.
    """
    from mtl_deploy.calibration.data.images import load_images
    from mtl_deploy.calibration.data.natural import natural_images

    samples = options.samples if batch is None else -(-options.samples // batch) * batch
    if options.images is None:
        return VerificationImages(
            natural_images(samples, preprocessing.height, preprocessing.width, seed=0),
            "generated",
            f"{samples} generated ones with the statistics of photographs; --images DIR verifies on real ones",
        )
    loaded = load_images(options.images, preprocessing, samples=samples, seed=0)
    if len(loaded.array) < samples:
        raise OptionError(
            f"{options.images} has {len(loaded.array)} readable images, verification wants {samples}; add images or lower "
            "--samples"
        )
    skipped = f", {len(loaded.skipped)} unreadable ones left out" if loaded.skipped else ""
    return VerificationImages(loaded.array, "images", f"{samples} from {options.images}{skipped}")


def stress_images(preprocessing: Preprocessing, batch: int | None) -> npt.NDArray[np.uint8]:
    """Generate pictures far from photographs: slopes, stripes, textures, flat colours, noise. They never decide anything.

    Args:
        preprocessing: the size.
        batch: the only batch that the network takes; None where it takes any.
    """
    from mtl_deploy.calibration.data.synthetic import synthetic_images

    count = _STRESS if batch is None else -(-_STRESS // batch) * batch
    return synthetic_images(count, preprocessing.height, preprocessing.width, seed=_SEED)


def images_of_another_size(preprocessing: Preprocessing, batch: int | None) -> npt.NDArray[np.uint8]:
    """Generate images of a size that is not the default one, to show that a graph with free sizes is not made for it alone.

    Args:
        preprocessing: with free sizes.
        batch: the only batch that the network takes; None where it takes any.
    """
    from mtl_deploy.calibration.data.natural import natural_images

    step = preprocessing.multiple
    width = preprocessing.width - step if preprocessing.width > step else preprocessing.width + 2 * step
    return natural_images(batch or _FEWEST, preprocessing.height + step, width, seed=_SEED)


def reference_images(signature: Signature, batch: int | None) -> npt.NDArray[np.uint8]:
    """Generate the images: ``(N, H, W, 3) uint8, RGB``. Never the user's, which may be anybody's faces.

    There are fewer of them where images and outputs are large, so that the file stays small.

    Args:
        signature: the graphs'.
        batch: the only batch that the network takes; None where it takes any.
    """
    from mtl_deploy.calibration.data.natural import natural_images

    preprocessing = signature.preprocessing
    size = 3 * preprocessing.height * preprocessing.width
    size += sum(prod(signature.sample_shape(t.name)) * signature.dtype(t.name).itemsize for t in signature.tasks)
    count = min(REFERENCES, max(_FEWEST, _REFERENCE_BYTES // size))
    count = count if batch is None else -(-count // batch) * batch
    return natural_images(count, preprocessing.height, preprocessing.width, seed=_SEED)
