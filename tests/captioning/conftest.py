"""What the tests of the endpoint backend share."""

import pytest
from PIL import Image

from caploom.captioning.backend import ImageRef, load_backend
from caploom.captioning.settings import EndpointCaptioner
from caploom.storage.opening import open_store
from caploom.storage.records import image_identity


@pytest.fixture
def numbered_images(tmp_path):
    """Makes images whose number is their red."""

    def make(count, size=(8, 8)):
        made = []
        for number in range(count):
            path = tmp_path / f"{number}.png"
            Image.new("RGB", size, (number, 60, 90)).save(path)
            made.append(ImageRef(image_identity(path.read_bytes()), str(path), path.name, f"photo {number}"))
        return made

    return make


@pytest.fixture
def open_endpoint(tmp_path):
    """Makes backends that ask one server, impatient ones, and closes them."""
    made = []

    def make(url, shears=None, **changes):
        fields = {"model": "tiny-llava", "prompt": "What is this?", "image_format": "png", "timeout": 5, "retries": 0}
        settings = EndpointCaptioner.model_validate({"backend": "openai", "url": url, **fields, **changes})
        made.append(
            load_backend(settings if shears is None else settings.stopping_at(shears), open_store(tmp_path / "store"))
        )
        return made[-1]

    yield make
    for backend in made:
        backend.close()
