"""The images for verification."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np
import numpy.typing as npt

from mtl_deploy.calibration.data.images import generated_images, load_images
from mtl_deploy.calibration.data.natural import natural_images
from mtl_deploy.export.options.export import Options
from mtl_deploy.runtime.bundle.preprocessing import Preprocessing
from mtl_deploy.runtime.bundle.signature import Signature
from mtl_deploy.runtime.errors import OptionError

REFERENCES = 8
_REFERENCE_BYTES = 16 << 20  # before compression
_FEWEST = 2
_STRESS = 6  # one per pattern
_SEED, _OTHER_SEED = 0, 1


@dataclass(frozen=True)
class VerificationImages:
    """Images at the network's size.

    Attributes:
        array: ``(N, H, W, C) uint8``, RGB where C is 3; frames where the graph takes these.
        source: ``images`` or ``generated``.
        description: where they come from, for people.
    """

    array: npt.NDArray[np.uint8]
    source: str
    description: str


def verification_images(options: Options, preprocessing: Preprocessing, batch: int | None) -> VerificationImages:
    """Read the user's images, or generate some if there are none.

    Args:
        options: with the folder of the images and the number of samples.
        preprocessing: with the size.
        batch: the only batch that the network takes: the number of images is rounded up to a multiple of it.

    Raises:
        OptionError: the folder holds fewer readable images than requested.
        ImageError: the folder holds no readable image.
    """
    samples = options.samples if batch is None else -(-options.samples // batch) * batch
    if options.images is None:
        return VerificationImages(
            generated_images(samples, preprocessing, seed=_SEED),
            "generated",
            f"{samples} generated images with the statistics of photographs; --images DIR verifies on real ones",
        )
    loaded = load_images(options.images, preprocessing, samples=samples, seed=0)
    if len(loaded.array) < samples:
        raise OptionError(
            f"{options.images} has {len(loaded.array)} readable images, verification needs {samples}; add images or lower "
            "--samples"
        )
    skipped = f", without {len(loaded.skipped)} unreadable ones" if loaded.skipped else ""
    return VerificationImages(np.asarray(loaded.array), "images", f"{samples} from {options.images}{skipped}")


def stress_images(preprocessing: Preprocessing, batch: int | None) -> npt.NDArray[np.uint8]:
    """Generate images far from photographs: gradients, stripes, textures, flat colours, noise. They never decide anything.

    Args:
        preprocessing: with the size.
        batch: the only batch that the network takes; None if it takes any.
    """
    count = _STRESS if batch is None else -(-_STRESS // batch) * batch
    return generated_images(count, preprocessing, seed=_OTHER_SEED, stress=True)


def images_of_another_size(preprocessing: Preprocessing, batch: int | None) -> npt.NDArray[np.uint8]:
    """Generate images of another than the default size, to show that a graph with free sizes does not work only for that.

    Args:
        preprocessing: with free sizes.
        batch: the only batch that the network takes; None if it takes any.
    """
    step = preprocessing.multiple
    width = preprocessing.width - step if preprocessing.width > step else preprocessing.width + 2 * step
    return natural_images(
        batch or _FEWEST, preprocessing.height + step, width, seed=_OTHER_SEED, channels=preprocessing.channel_count
    )


def reference_images(signature: Signature, batch: int | None) -> npt.NDArray[np.uint8]:
    """Generate the images of the reference: ``(N, H, W, C) uint8``, RGB where C is 3.

    The user's may show faces, so they are never used.

    They are the first of those that graphs are verified on if the user has none, so that the network answers for them once.
    There are fewer if images and outputs are large, so that the file stays small.

    Args:
        signature: of the graphs.
        batch: the only batch that the network takes; None if it takes any.
    """
    preprocessing = signature.preprocessing
    size = prod(preprocessing.image_shape)
    size += sum(prod(signature.sample_shape(t.name)) * signature.dtype(t.name).itemsize for t in signature.tasks)
    count = min(REFERENCES, max(_FEWEST, _REFERENCE_BYTES // size))
    count = count if batch is None else -(-count // batch) * batch
    return generated_images(count, preprocessing, seed=_SEED)
