"""A client of dinoserve: DINO image features over HTTP, as NumPy arrays and Pillow images.

>>> from dinoserve import Client
>>> with Client("http://localhost:8080") as client:
...     vector = client.embed("cat.jpg")              # [384], of length 1
...     client.pca_image("cat.jpg").save("parts.png")
"""

from . import types
from ._async_client import AsyncClient
from ._calls import ClassMask, ClassMasks, Pca
from ._client import Client
from ._images import Image, Images
from ._problem import Problem

__all__ = ["AsyncClient", "ClassMask", "ClassMasks", "Client", "Image", "Images", "Pca", "Problem", "types"]
